"""Clocks that are wrong and jump, of one host or of all, or go at a wrong rate: leases and graces
do not go by the former, and do not end too soon by the latter."""

from __future__ import annotations

import contextlib
import os
import time
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
LASTING_S = 6.0
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


@pytest.mark.parametrize(
    ("who", "rate"),
    [("metad", 2.0), ("chunkd1", 0.5), *nightly(("metad", 0.5), ("chunkd1", 2.0), ("mnt", 2.0))],
)
def test_wrong_rates(timed: FaultyCluster, tmp_path: Path, saw: Saw, who: str, rate: float) -> None:
    """F21: one host's time goes twice as fast as that of all others, or half as fast."""
    cluster, place = timed, timed.mount_point / "place"
    place.mkdir()
    clock = Clocked(cluster, who, tmp_path)
    with clock.running():
        cluster.wait_healthy()
        digests = write_files(place, 4, 100_000)
        ordered = cluster.log_text("metad").count("copies ordered")
        cluster.see_log("mnt")
        with Load(cluster, place, tmp_path) as load:
            load.wait_progress()
            clock.go_at(rate)
            began_s, began_ns = time.monotonic(), touched_ns(place / "first")
            with load.watched() as longest:
                while time.monotonic() - began_s < LASTING_S:
                    load.wait_progress(1)
                    assert all(each.state != "down" for each in cluster.status().servers)
            shown_s = (touched_ns(place / "last") - began_ns) / 1e9
            lasted_s = time.monotonic() - began_s
            load.finish()
        if who == "metad":
            assert shown_s > 0.75 * rate * lasted_s, "its clock goes at the right rate"
        assert "lease ended" not in cluster.unseen_log("mnt")
        assert cluster.log_text("metad").count("copies ordered") == ordered
        check(digests)
    cluster.wait_healthy()
    cluster.remount()
    check(digests)
    load.check()
    saw(seen(longest))


def touched_ns(path: Path) -> int:
    """The time that metad gives to a change now."""
    path.mkdir()
    return path.stat().st_ctime_ns
