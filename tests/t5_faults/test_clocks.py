"""Clocks that are wrong and jump, of one host or of all: leases and graces do not go by them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.t5_faults.chunks import check, write_files
from tests.t5_faults.clocks import Clocked
from tests.t5_faults.harness import FaultyCluster, nightly
from tests.t5_faults.load import Load, seen
from tests.t5_process.observed import sha256_of
from tests.t5_process.wholeness import proven

HOUR_S = 3600.0
YEARS_S = 16 * 365 * 24 * HOUR_S  # beyond 2038
JUMPS_S = [HOUR_S, -HOUR_S, YEARS_S, 0.0]
Saw = Callable[[str], None]


@pytest.fixture
def timed(breakable: None, tmp_path: Path) -> Iterator[FaultyCluster]:
    """A cluster of its own: the times of its files stay in the future."""
    cluster = FaultyCluster(tmp_path / "cluster", isolated=False, disk_bytes=0)
    try:
        cluster.up()
        cluster.mount()
        with proven(cluster):
            yield cluster
    finally:
        cluster.close()


@pytest.mark.parametrize("who", ["all", *nightly("metad", "chunkd1", "mnt")])
def test_jumps(timed: FaultyCluster, tmp_path: Path, saw: Saw, who: str) -> None:
    """F21: an hour ahead, an hour behind, beyond 2038, and right again: nobody notices.

    No server goes down, no lease ends, nothing is reclaimed early, and a change is always later
    than the one before.
    """
    cluster, place = timed, timed.mount_point / "place"
    place.mkdir()
    began_ns = place.stat().st_ctime_ns
    names = ["metad", *cluster.chunkd_names, "mnt"] if who == "all" else [who]
    with contextlib.ExitStack() as cleanup:
        clocks = [Clocked(cluster, name, tmp_path) for name in names]
        for clock in clocks:
            cleanup.enter_context(clock.running())
        cluster.wait_healthy()
        digests = write_files(place, 6, 100_000)
        cluster.see_log("mnt")
        ordered = cluster.log_text("metad").count("copies ordered")
        with Load(cluster, place, tmp_path) as load:
            load.wait_progress()
            changed_ns = 0
            with load.watched() as longest:
                for jump_s in JUMPS_S:
                    for clock in clocks:
                        clock.jump(jump_s)
                    load.wait_progress(1)
                    path = place / "touched"
                    path.write_bytes(os.urandom(70_000))
                    digests[path] = sha256_of(path)
                    assert path.stat().st_ctime_ns > changed_ns, "a change of the past"
                    changed_ns = path.stat().st_ctime_ns
                    assert all(each.state == "up" for each in cluster.status().servers)
            load.finish()
        assert "lease ended" not in cluster.unseen_log("mnt")
        assert cluster.log_text("metad").count("copies ordered") == ordered
        check(digests)
    if who in ("all", "metad"):
        assert changed_ns - began_ns > YEARS_S * 1e9, "the clocks have not jumped"
    cluster.wait_healthy()
    cluster.remount()
    check(digests)
    load.check()
    saw(seen(longest))
