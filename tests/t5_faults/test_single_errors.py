"""One call of a daemon on its disk fails, and the next one works."""

from __future__ import annotations

import errno
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
    """F18: the n-th call of metad on its disk fails: nothing acknowledged is lost, nothing is half.

    A change may be refused (EIO), and metad may end over it; then it is started again.
    """
    failing = Failing(cluster, "metad", tmp_path)
    made, refused, ends = [], 0, 0
    with failing.running():
        for number in CALLS:
            failing.fail(kind, number)
            attempt = 0
            while not failing.has_failed(kind):
                path = place / f"{number}-{attempt}"
                attempt += 1
                try:
                    path.mkdir()
                    path.rename(f"{path}.renamed")
                except OSError as problem:
                    assert problem.errno == errno.EIO
                    refused += 1
                else:
                    made.append(Path(f"{path}.renamed"))
                if cluster.daemon("metad").running() is None:
                    ends += 1
                    failing.call_off()
                    failing.start()
            (place / f"{number}-after").mkdir()
            made.append(place / f"{number}-after")
        assert all(path.is_dir() for path in made)
    cluster.wait_healthy()
    cluster.remount()
    assert all(path.is_dir() for path in made), "a change that was acknowledged is lost"
    saw(f"{len(CALLS)} failed calls: {refused} changes refused, metad ended {ends} times")
