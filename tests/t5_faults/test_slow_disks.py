"""Disks that answer everything, but a hundred times slower than a disk should."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from tests.t5_faults.chunks import copies_of, write_files
from tests.t5_faults.failing import Failing
from tests.t5_faults.harness import NIGHTLY, FaultyCluster
from tests.t5_faults.load import Load, seen
from tests.t5_process.observed import run_dfs, wait_for

VICTIM = "chunkd1"
SLOW_S = 0.4
Saw = Callable[[str], None]


def test_chunkd(cluster: FaultyCluster, load: Load, place: Path, tmp_path: Path, saw: Saw) -> None:
    """F16: who meets it goes elsewhere; metad hears of it, and does not take it for dead."""
    failing = Failing(cluster, VICTIM, tmp_path, "chunks")
    with failing.running():
        cluster.wait_healthy()
        load.wait_progress(10)  # experience with all servers
        failing.slow_down(SLOW_S, "read", "write", "sync")
        first_s = wait_for(
            lambda: max(load.slowest_s()["files"] - 2 * SLOW_S, 0.0),
            "a program waits for that disk",
        )
        with load.watched() as later:
            load.wait_progress()
        assert cluster.server(VICTIM).state != "down"
        if NIGHTLY:
            judged(cluster, place, failing)
    cluster.wait_healthy()
    saw(f"at first {first_s + 2 * SLOW_S:.1f} s; then {seen(later)}")


def judged(cluster: FaultyCluster, place: Path, failing: Failing) -> None:
    """What takes longer: with one mount 25 s until metad believes it, and 30 s that it holds on."""
    wait_for(lambda: cluster.server(VICTIM).reason, "metad knows that it is slow")
    assert cluster.server(VICTIM).state == "suspect"
    status, shown = run_dfs("nodes", "--json", "--url", cluster.address)
    assert status == 1 and "were slow" in shown, shown
    assert "is slow" in run_dfs("events", "--json", "--url", cluster.address)[1]
    fresh = write_files(place, 4, 100_000)
    assert {copy.server for copy in copies_of(cluster, fresh)} == {"chunkd2", "chunkd3"}
    failing.call_off()
    wait_for(lambda: cluster.server(VICTIM).state == "up", "it is trusted again", 120.0)


def test_metad(cluster: FaultyCluster, load: Load, tmp_path: Path, saw: Saw) -> None:
    """F16: changes take longer, and that is all: metad goes on hearing its servers and clients."""
    failing = Failing(cluster, "metad", tmp_path)
    with failing.running():
        cluster.wait_healthy()
        pid = cluster.pid("metad")
        with load.watched() as longest:
            failing.slow_down(SLOW_S, "sync")
            load.wait_progress(2)
            assert all(server.state == "up" for server in cluster.status().servers)
        assert longest["names"] > 4 * SLOW_S, "its disk was not slow"
        failing.call_off()
        started = time.monotonic()
        load.wait_progress(1)
        quick_s = time.monotonic() - started
        assert cluster.pid("metad") == pid, "it has ended"
    saw(f"{seen(longest)}; as before {quick_s:.1f} s later")
