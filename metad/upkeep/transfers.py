"""How much each disk may have to do at once: for repair, for moves, and for trim's verifications.

Pure.  What is bounded are transfers of whole chunks.  An order waits for a heartbeat, and so does
its result, however short it is: about 2 s pass before another one takes its place.  So a smaller
chunk is a part of a transfer, or a million small files would take days at a few chunks a second.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from dfswire.orders import Order

SMALL_PER_TRANSFER = 16  # copies of small chunks


@dataclass(frozen=True)
class RepairLimits:
    """From when on a silent server is missed, how hard to work, what to leave free."""

    repair_after_s: float = 30.0  # from down
    transfers_per_disk: int = 32  # of whole chunks; see weight()
    whole_bytes: int = 4 << 20  # such a chunk
    bytes_per_s: float = 0.0  # of all copies together; 0: no limit
    disk_bytes_per_s: float = 0.0
    reserve_share: float = 0.05  # of a disk; for writers

    def weight(self, length: int) -> float:
        """What share of a transfer the copy of a chunk of `length` bytes is."""
        return max(length / self.whole_bytes, 1 / SMALL_PER_TRANSFER)

    def places(self, disks: int, under_way: Iterable[int], usual_bytes: int) -> int:
        """How many more chunks can be copied at once, if they are of usual size; those `under_way`
        have these lengths."""
        free = disks * self.transfers_per_disk - 2 * sum(map(self.weight, under_way))
        return max(math.ceil(free / self.weight(usual_bytes)), 0)


class Transfers:
    """What each disk has to do.  `share`: how much of what a disk may have is for this."""

    def __init__(self, limits: RepairLimits, share: float = 1.0) -> None:
        self._weight = limits.weight
        self._each_max = limits.transfers_per_disk * share
        self._busy: defaultdict[str, float] = defaultdict(float)

    @classmethod
    def of_copies(cls, limits: RepairLimits, copies: Iterable[Order]) -> Transfers:
        """Of these orders: where each goes, and from where it most likely comes."""
        transfers = cls(limits)
        for order in copies:
            sources = [each.disk for each in order.sources[:1]]
            transfers.occupy([order.disk, *sources], order.length)
        return transfers

    def occupy(self, disks: Iterable[str], length: int) -> None:
        """A chunk of `length` bytes is read or written on these."""
        for disk in disks:
            self._busy[disk] += self._weight(length)

    def fit(self, disks: Iterable[str]) -> bool:
        """May each of these have one more?"""
        return all(self._busy[disk] < self._each_max for disk in disks)

    def of(self, disk: str) -> float:
        """In transfers of whole chunks."""
        return self._busy[disk]
