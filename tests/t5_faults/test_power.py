"""The power fails: of everything at once while twelve programs fsync, and of one host at a time.

`make power-cuts COUNT=1000` is the long run of the first.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.t5_faults.harness import FaultyCluster
from tests.t5_faults.load import Load, seen
from tests.t5_faults.powercuts import run

CUTS = int(os.environ.get("DFS_FAULT_CUTS", "4"))
Saw = Callable[[str], None]


def test_everything_at_once(breakable: None, tmp_path: Path, rng: random.Random, saw: Saw) -> None:
    """F29, F8: what was promised is there, and it comes back without hands."""
    totals = run(CUTS, rng.randrange(1 << 20), tmp_path / "power", print)
    saw(
        f"{totals.rounds} cuts, {totals.promises} promises kept, serving again and checked within "
        f"{totals.longest_recovery_s:.1f} s"
    )


@pytest.mark.parametrize("name", ["metad", "chunkd1", "chunkd3"])
def test_one_host(
    cluster: FaultyCluster, load: Load, healing: Callable[[], float], saw: Saw, name: str
) -> None:
    """F29: one host loses power (chunkd3 has xfs); the programs only wait."""
    with load.watched() as longest:
        for _ in range(2):
            cluster.power_cut(name)
            started = time.monotonic()
            cluster.start(name)
            load.wait_progress(1)
            resumed_s = time.monotonic() - started
    saw(f"{seen(longest)}; on {resumed_s:.1f} s after the start, whole {healing():.1f} s later")
