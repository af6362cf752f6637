"""A server is lost, another drained, under load (long: python -m tests.t5_faults.loss)."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from tests.t5_faults.harness import NIGHTLY
from tests.t5_faults.loss import USUAL_TIMERS, run

MIB = int(os.environ.get("DFS_FAULT_LOSS_MIB", "10240" if NIGHTLY else "48"))


def test_server_lost_and_server_drained(
    breakable: None, tmp_path: Path, saw: Callable[[str], None]
) -> None:
    """Point 5 of what heals itself; the time limits hold with the usual timers."""
    figures = run(MIB << 20, tmp_path / "loss", USUAL_TIMERS if NIGHTLY else {}, print)
    assert figures.endangered > 0
    saw(str(figures))
