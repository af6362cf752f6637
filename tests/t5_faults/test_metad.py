"""metad dies at any moment of a transaction, or its disk does."""

from __future__ import annotations

import os
import random
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from tests.t5_faults.chunks import check, write_files
from tests.t5_faults.harness import FaultyCluster
from tests.t5_faults.load import Load, seen
from tests.t5_process.observed import HEAL_S

KILLS = int(os.environ.get("DFS_FAULT_KILLS", "4"))
Saw = Callable[[str], None]


def test_killed_at_any_moment(
    cluster: FaultyCluster, load: Load, rng: random.Random, saw: Saw
) -> None:
    """F17: every change happens once (those of the load fail when they happen twice, or never)."""
    resumed_s = 0.0
    with load.watched() as longest:
        for _ in range(KILLS):
            time.sleep(rng.uniform(0, 0.3))
            cluster.kill("metad")
            started = time.monotonic()
            cluster.start("metad")
            load.wait_progress(1)
            resumed_s = max(resumed_s, time.monotonic() - started)
    saw(f"{seen(longest)}; {KILLS} deaths, went on {resumed_s:.1f} s after the start at most")


def test_disk_gone(cluster: FaultyCluster, place: Path, saw: Saw) -> None:
    """F18: every call on its disk fails: metad ends, and who asks waits for the next one."""
    digests = write_files(place, 4, 100_000)
    cluster.disks["metad"].cut()
    started = time.monotonic()
    program = subprocess.Popen(["mkdir", str(place / "made")])
    try:
        assert cluster.exit_status("metad") == 1
        ended_s = time.monotonic() - started
        assert "metad ends" in cluster.log_text("metad")
        assert program.poll() is None, "neither refused nor acknowledged"
        cluster.power_cut("metad")
        cluster.start("metad")
        assert program.wait(HEAL_S) == 0
    finally:
        program.kill()
        program.wait()
    assert (place / "made").is_dir()
    check(digests)
    (place / "accepted").mkdir()
    cluster.wait_healthy()
    cluster.remount()
    check(digests)
    saw(f"waits; metad ended after {ended_s:.1f} s; whole when the disk is back")
