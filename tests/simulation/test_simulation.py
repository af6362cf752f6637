"""The seeds that every run of the tests simulates, in blocks, and that a seed is what it says.

`make simulate` runs more.  DFS_SIMULATION_SEEDS says how many here.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.simulation.campaign import results
from tests.simulation.schedule import KINDS, draw
from tests.simulation.simulate import simulate

SEEDS = int(os.environ.get("DFS_SIMULATION_SEEDS", "1000"))
BLOCKS = 4  # each starts its processes
ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("block", range(BLOCKS))
def test_no_seed_violates_an_invariant(block: int) -> None:
    count = SEEDS // BLOCKS
    violations = [
        f"{result.violation}\n    python -m tests.simulation replay {result.seed}"
        for result in results(block * count, count)
        if result.violation
    ]
    assert not violations, "\n".join(violations)


def test_a_seed_gives_the_same_trace_in_every_process() -> None:
    program = (
        "from tests.simulation.schedule import draw\n"
        "from tests.simulation.simulate import simulate\n"
        "print([simulate(draw(seed)).trace_hash for seed in range(20)])"
    )

    def traces(hash_seed: str, before: str = "") -> str:
        environment = os.environ | {"PYTHONHASHSEED": hash_seed}
        command = [sys.executable, "-c", before + program]
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True
        )
        return done.stdout

    first = traces("1")
    assert traces("2", "x = [object() for _ in range(12345)]\n") == first
    assert len(set(first.split(","))) == 20


def test_another_seed_gives_another_trace() -> None:
    assert simulate(draw(1)).trace_hash != simulate(draw(2)).trace_hash


def test_the_first_seeds_have_faults_of_every_kind() -> None:
    seen = {fault.kind for seed in range(300) for fault in draw(seed).faults}
    assert seen == set(KINDS)
