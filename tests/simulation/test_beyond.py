"""Seeds of the mode `beyond`, and that its ground truth is one.

`python -m tests.simulation beyond` runs more.  DFS_BEYOND_SEEDS says how many here.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from types import SimpleNamespace
from typing import cast

import pytest

from tests.simulation.beyond import simulate
from tests.simulation.beyondplan import TROUBLES, draw
from tests.simulation.campaign import results, run_beyond
from tests.simulation.cluster import BLOCK_BYTES, Machine
from tests.simulation.groundtruth import Original, joined, touches
from tests.simulation.spoiling import FATES, Spoiler

SEEDS = int(os.environ.get("DFS_BEYOND_SEEDS", "24"))


def test_no_seed_violates_an_invariant() -> None:
    violations = [
        f"{result.violation}\n    python -m tests.simulation replay {result.seed} --beyond"
        for result in results(0, SEEDS, run_seed=run_beyond)
        if result.violation
    ]
    assert not violations, "\n".join(violations)


def test_a_seed_gives_the_same_trace_again() -> None:
    first = simulate(draw(1), keep_trace=True)
    assert simulate(draw(1)).trace_hash == first.trace_hash
    assert simulate(draw(2)).trace_hash != first.trace_hash


def test_the_first_seeds_have_everything() -> None:
    plans = [draw(seed) for seed in range(SEEDS)]
    assert {kind for plan in plans for kind in plan.fates} == set(FATES)
    assert {trouble.kind for plan in plans for trouble in plan.troubles} == set(TROUBLES)
    counted = Counter((bool(plan.wiped), plan.removed is not None) for plan in plans)
    assert counted[True, False] and counted[False, False]
    assert any(plan.removed is not None for plan in plans)
    assert {plan.shape.replicas for plan in plans} == {2, 3}
    assert {file.restored for plan in plans for file in plan.files} == {True, False}


# -- the ground truth

LENGTH = 3 * BLOCK_BYTES - 100


@pytest.fixture
def original() -> Original:
    return Original(random.Random(1).randbytes(LENGTH), bytes(range(96)))


def damaged(original: Original, *blocks: int, tail: bytes | None = None) -> bytes:
    content = bytearray(original.payload)
    for block in blocks:
        content[original.block(block).stop - 1] ^= 1
    return bytes(content) + (original.tail if tail is None else tail)


def test_a_block_is_lost_when_no_copy_has_it(original: Original) -> None:
    assert original.lost([damaged(original)]) == set()
    assert original.lost([damaged(original, 0, 2)]) == {0, 2}
    assert original.lost([damaged(original, 0, 2), damaged(original, 1)]) == set()
    assert original.lost([damaged(original, 0, 2), damaged(original, 2)]) == {2}
    assert original.lost([]) == {0, 1, 2}


def test_without_a_checksum_nothing_is_known(original: Original) -> None:
    wrong = bytes(96)
    assert original.lost([damaged(original, tail=wrong)]) == set()  # computed from the payload
    assert original.lost([damaged(original, 1, tail=wrong)]) == {0, 1, 2}
    assert original.lost([damaged(original, 1, tail=wrong), damaged(original, 1)]) == {1}
    assert original.lost([original.payload[:BLOCK_BYTES], damaged(original, 0, 1)]) == {1}


def test_what_has_a_damaged_tail_is_not_served(original: Original) -> None:
    footer_wrong = original.tail[:24] + bytes(72)
    copies = [damaged(original, 0, tail=footer_wrong), damaged(original, 0, 1)]
    assert original.lost(copies) == {0}
    assert original.hidden(copies) == {0, 1}
    assert original.hidden([]) == {0, 1, 2}


def test_ranges() -> None:
    assert joined([(5, 9), (0, 5), (10, 11)]) == ((0, 9), (10, 11))
    assert touches(((0, 9), (10, 11)), 8, 10)
    assert not touches(((0, 9), (10, 11)), 9, 10)
    assert not touches((), 0, 1)


# -- the damage


class _Disk:
    """One chunk file."""

    name = "disk"

    def __init__(self, content: bytes) -> None:
        self.left: bytes | None = content

    def content(self, chunk: bytes) -> bytes:
        assert self.left is not None
        return self.left

    def rewrite(self, chunk: bytes, content: bytes) -> None:
        self.left = content

    def vanish(self, chunk: bytes) -> None:
        self.left = None


@pytest.mark.parametrize("fate", FATES)
@pytest.mark.parametrize("seed", range(20))
def test_each_fate_does_what_it_says(fate: str, seed: int, original: Original) -> None:
    whole = damaged(original)
    disks = [_Disk(whole), _Disk(whole)]
    machines = [cast(Machine, SimpleNamespace(disk=disk)) for disk in disks]
    spoiler = Spoiler(random.Random(seed), lambda text: None)
    spoiler.spoil(fate, b"chunk", original, machines)
    left = [disk.left for disk in disks if disk.left is not None]
    lost = original.lost(left)
    if fate in ("untouched", "spared"):
        assert whole in left and not lost
    elif fate == "each_elsewhere":
        assert not lost and whole not in left
    elif fate == "all_vanish":
        assert not left
    elif fate == "last_rots":
        assert len(left) == 1 and lost
    elif fate == "all_rot":
        assert whole not in left
