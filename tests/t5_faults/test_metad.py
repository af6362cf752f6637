"""metad dies at any moment of a transaction, or its disk does."""

from __future__ import annotations

import errno
import os
import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.t5_faults.chunks import check, write_files
from tests.t5_faults.harness import FaultyCluster
from tests.t5_faults.load import Load, seen

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
    """F18: every call on its disk fails: no change succeeds, and what was acknowledged is kept."""
    digests = write_files(place, 4, 100_000)
    cluster.disks["metad"].cut()
    started = time.monotonic()
    with pytest.raises(OSError) as caught:
        (place / "refused").mkdir()
    assert caught.value.errno == errno.EIO
    refused_s = time.monotonic() - started
    cluster.power_cut("metad")
    cluster.start("metad")
    check(digests)
    assert not (place / "refused").exists()
    (place / "accepted").mkdir()
    cluster.wait_healthy()
    cluster.remount()
    check(digests)
    saw(f"EIO for changes after {refused_s:.1f} s; whole when the disk is back")
