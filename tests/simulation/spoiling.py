"""Damage to the copies of chunks, without mercy: no copy has to stay good.

Each fate is what becomes of all copies of one chunk.  beyond.py draws one for every chunk; what is
left afterwards groundtruth.py says.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from tests.simulation.cluster import BLOCK_BYTES, Machine
from tests.simulation.groundtruth import Original

Rng = random.Random

# How often each fate is drawn, unless another is asked for.
FATES = {
    "untouched": 4,
    "spared": 3,  # of its copies, one is good
    "last_rots": 4,  # all but one are gone, that one has wrong bits
    "each_elsewhere": 3,  # all have wrong bits, no two in the same block
    "all_rot": 3,
    "all_vanish": 1,
    "anything": 3,
}


class Spoiler:
    """`trace` is told what is done."""

    def __init__(self, rng: Rng, trace: Callable[[str], None]) -> None:
        self._rng = rng
        self._trace = trace

    def spoil(
        self, fate: str, chunk: bytes, original: Original, holders: Sequence[Machine]
    ) -> None:
        """Do this to a chunk that these machines have copies of."""
        copies = self._rng.sample(holders, len(holders))
        if copies:
            self._trace(f"SPOIL {chunk.hex()[:8]} {fate}")
            getattr(self, f"_{fate}")(chunk, original, copies)

    # -- fates

    def _untouched(self, chunk: bytes, original: Original, copies: list[Machine]) -> None:
        pass

    def _spared(self, chunk: bytes, original: Original, copies: list[Machine]) -> None:
        self._anything(chunk, original, copies[1:])

    def _last_rots(self, chunk: bytes, original: Original, copies: list[Machine]) -> None:
        self._all_vanish(chunk, original, copies[1:])
        self._flip(copies[0], chunk, original, self._some(original.blocks))

    def _each_elsewhere(self, chunk: bytes, original: Original, copies: list[Machine]) -> None:
        shuffled = self._rng.sample(original.blocks, len(original.blocks))
        for number, machine in enumerate(copies):
            self._flip(machine, chunk, original, shuffled[number :: len(copies)])

    def _all_rot(self, chunk: bytes, original: Original, copies: list[Machine]) -> None:
        for machine in copies:
            self._flip(machine, chunk, original, self._some(original.blocks))

    def _all_vanish(self, chunk: bytes, original: Original, copies: list[Machine]) -> None:
        for machine in copies:
            self._vanish(machine, chunk, original)

    def _anything(self, chunk: bytes, original: Original, copies: list[Machine]) -> None:
        ways = [self._rot, self._rot, self._truncate, self._tail, self._zeros, self._vanish]
        for machine in copies:
            self._rng.choice(ways)(machine, chunk, original)

    # -- what is done to one copy

    def _some(self, blocks: range) -> list[int]:
        return self._rng.sample(blocks, self._rng.randrange(1, len(blocks) + 1))

    def _rot(self, machine: Machine, chunk: bytes, original: Original) -> None:
        self._flip(machine, chunk, original, self._some(original.blocks))

    def _flip(
        self, machine: Machine, chunk: bytes, original: Original, blocks: Sequence[int]
    ) -> None:
        """A bit in each of these blocks."""
        self._trace(f"  {machine.disk.name}: bits in blocks {sorted(blocks)}")
        content = bytearray(machine.disk.content(chunk))
        for block in blocks:
            at = original.block(block)
            self._flip_within(content, at.start, at.stop)
        machine.disk.rewrite(chunk, bytes(content))

    def _tail(self, machine: Machine, chunk: bytes, original: Original) -> None:
        """A bit in the index or in the footer, and perhaps one before them."""
        self._trace(f"  {machine.disk.name}: a bit in the tail")
        content = bytearray(machine.disk.content(chunk))
        end = len(original.payload)
        self._flip_within(content, end, len(content))
        if self._rng.random() < 0.5:
            self._flip_within(content, 0, end)
        machine.disk.rewrite(chunk, bytes(content))

    def _flip_within(self, content: bytearray, start: int, end: int) -> None:
        at = self._rng.randrange(start, end)
        content[at] ^= 1 << self._rng.randrange(8)

    def _truncate(self, machine: Machine, chunk: bytes, original: Original) -> None:
        content = machine.disk.content(chunk)
        left = self._rng.randrange(len(content))
        self._trace(f"  {machine.disk.name}: truncated to {left}")
        machine.disk.rewrite(chunk, content[:left])

    def _zeros(self, machine: Machine, chunk: bytes, original: Original) -> None:
        """Pages of zeros somewhere, the tail not excepted."""
        content = bytearray(machine.disk.content(chunk))
        start = self._rng.randrange(len(content))
        end = min(start + self._rng.choice([4096, 2 * BLOCK_BYTES]), len(content))
        self._trace(f"  {machine.disk.name}: zeros at {start}-{end}")
        content[start:end] = bytes(end - start)
        machine.disk.rewrite(chunk, bytes(content))

    def _vanish(self, machine: Machine, chunk: bytes, original: Original) -> None:
        self._trace(f"  {machine.disk.name}: vanished")
        machine.disk.vanish(chunk)
