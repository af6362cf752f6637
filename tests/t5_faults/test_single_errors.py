"""One call of a daemon on its disk fails, and the next one works."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.t5_faults.failing import Failing
from tests.t5_faults.harness import NIGHTLY, FaultyCluster
from tests.t5_faults.load import Load, seen
from tests.t5_faults.test_disks import failed
from tests.t5_process.observed import wait_for

VICTIM = "chunkd1"
CALLS = range(40) if NIGHTLY else range(0, 12, 3)
Saw = Callable[[str], None]


def test_calls_of_a_chunkd(cluster: FaultyCluster, load: Load, tmp_path: Path, saw: Saw) -> None:
    """F6, F5: a failed fsync is not repeated, and one is no reason to give the disk up; two are."""
    failing = Failing(cluster, VICTIM, tmp_path, "chunks")
    with failing.running():
        cluster.wait_healthy()
        with load.watched() as longest:
            for kind in ("read", "sync"):
                failing.fail(kind)
                wait_for(lambda kind=kind: failing.has_failed(kind), f"a {kind} fails")
                load.wait_progress()
                assert not failed(cluster, VICTIM)
            failing.fail("sync")
            wait_for(lambda: failing.has_failed("sync"), "another sync fails")
            wait_for(lambda: failed(cluster, VICTIM), "the disk counts as failed")
            load.wait_progress()
            wait_for(lambda: cluster.status().chunks.under_replicated == 0, "repair elsewhere")
    saw(seen(longest))


@pytest.mark.parametrize("kind", ["sync", "write"])
def test_calls_of_metad(
    cluster: FaultyCluster, place: Path, tmp_path: Path, saw: Saw, kind: str
) -> None:
    """F18: the n-th call of metad on its disk fails: it ends, and nothing is lost, half or refused.

    A change that met it is repeated with the next metad, and happens once.
    """
    failing = Failing(cluster, "metad", tmp_path)
    made = []
    with failing.running(), failing.kept_alive() as statuses:
        for number in CALLS:
            failing.fail(kind, number)
            attempt = 0
            while not failing.has_failed(kind):
                path = place / f"{number}-{attempt}"
                attempt += 1
                path.mkdir()
                path.rename(f"{path}.renamed")
                made.append(Path(f"{path}.renamed"))
            (place / f"{number}-after").mkdir()
            made.append(place / f"{number}-after")
        assert all(path.is_dir() for path in made)
    assert set(statuses) == {1}
    cluster.wait_healthy()
    cluster.remount()
    assert all(path.is_dir() for path in made), "a change that was acknowledged is lost"
    saw(f"{len(CALLS)} failed calls: metad ended {len(statuses)} times, every change was made once")
