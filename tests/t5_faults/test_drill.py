"""metad's disk is destroyed under mounts that are in use, and the database made again on a new one.

`python -m tests.t5_faults.drill --rounds 10` is the long run.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path

from tests.t5_faults.drill import run

BACK_S = 4.0
ROUNDS = int(os.environ.get("DFS_FAULT_DRILLS", "1"))


def test_metadata_is_restored_from_the_chunkds(
    breakable: None, tmp_path: Path, rng: random.Random, saw: Callable[[str], None]
) -> None:
    """F19: nothing that was acknowledged is missing, and the mounts go on."""
    totals = run(ROUNDS, rng.randrange(1 << 20), tmp_path / "drill", print)
    saw(
        f"{totals.rounds} disks lost, {totals.promises} promises kept, everybody goes on "
        f"{totals.slowest_s:.1f} s later"
    )


def test_metadata_is_restored_to_an_earlier_moment(
    breakable: None, tmp_path: Path, rng: random.Random, saw: Callable[[str], None]
) -> None:
    """F20: what was true then is true again, and the mounts go on with that."""
    totals = run(ROUNDS, rng.randrange(1 << 20), tmp_path / "drill", print, BACK_S)
    saw(
        f"{totals.rounds} times back, {totals.promises} promises of that moment kept, the mounts "
        f"take changes {totals.slowest_s:.1f} s later"
    )
