"""Servers are lost, drained, removed and added under load (long: tests.t5_faults.loss)."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from tests.t5_faults.harness import NIGHTLY, Changes
from tests.t5_faults.loss import STEPS, USUAL_TIMERS, run
from tests.t5_faults.upheaval import SPARE_BYTES
from tests.t5_process.observed import REPLICAS

MIB = int(os.environ.get("DFS_FAULT_LOSS_MIB", "10240" if NIGHTLY else "48"))
# With little content: disks so small that they are unevenly full, and copies that may go soon.
SMALL_SPARE_BYTES = 256 << 20
SHORT: Changes = {"rebalance_band": 0.1, "trim_after_s": 1.0}


def test_servers_come_and_go(breakable: None, tmp_path: Path, saw: Callable[[str], None]) -> None:
    """Point 5 of what heals itself; the time limits hold with the usual timers."""
    timers, spare_bytes = (USUAL_TIMERS, SPARE_BYTES) if NIGHTLY else (SHORT, SMALL_SPARE_BYTES)
    phases = run(MIB << 20, tmp_path / "loss", timers, print, spare_bytes)
    assert len(phases) == len(STEPS)
    for phase in phases:
        assert phase.fewest == (REPLICAS - 1 if phase.name == "loss" else REPLICAS)
        saw(phase.line())
