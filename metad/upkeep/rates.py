"""How fast repair may go, and how fast it goes.

Pure.  `Throttle` has a bucket for each disk and one for the whole cluster: a bucket fills at its
rate up to what BURST_S bring, and a transfer may begin while there is anything in it, so chunks of
any size pass and the mean is kept.  `Meter` tells what was done in the last while, for people.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

BURST_S = 2.0  # repair plans about every second: less would let the rate fall short
METER_S = 30.0


class Throttle:
    """Rates in bytes per second; 0 is no limit."""

    def __init__(self, total_per_s: float, disk_per_s: float) -> None:
        self._total_per_s = total_per_s
        self._disk_per_s = disk_per_s
        self._buckets: dict[str, tuple[float, float]] = {}  # "" is the cluster's: (bytes, when)

    @property
    def rates(self) -> tuple[tuple[float, str], tuple[float, str]]:
        """The limits in bytes per second, and what each is of."""
        return (self._total_per_s, "in all"), (self._disk_per_s, "for each disk")

    def allows(self, disks: Iterable[str], now: float) -> bool:
        """May a transfer between these disks begin?"""
        return all(
            not per_s or self._level(name, per_s, now) > 0 for name, per_s in self._limits(disks)
        )

    def spend(self, disks: Iterable[str], size_bytes: int, now: float) -> None:
        """It begins."""
        for name, per_s in self._limits(disks):
            if per_s:
                self._buckets[name] = self._level(name, per_s, now) - size_bytes, now

    def _limits(self, disks: Iterable[str]) -> list[tuple[str, float]]:
        return [("", self._total_per_s), *((disk, self._disk_per_s) for disk in disks)]

    def _level(self, name: str, per_s: float, now: float) -> float:
        level, since = self._buckets.get(name, (per_s * BURST_S, now))
        return min(level + (now - since) * per_s, per_s * BURST_S)


class Meter:
    """Bytes of the last METER_S."""

    def __init__(self) -> None:
        self._done: deque[tuple[float, int]] = deque()
        self._sum = 0

    def add(self, size_bytes: int, now: float) -> None:
        self._done.append((now, size_bytes))
        self._sum += size_bytes
        self._forget(now)

    def per_s(self, now: float) -> float:
        """The mean rate; at first over a shorter while, of 1 s at least."""
        self._forget(now)
        if not self._done:
            return 0.0
        return self._sum / min(max(now - self._done[0][0], 1.0), METER_S)

    def _forget(self, now: float) -> None:
        while self._done and now - self._done[0][0] > METER_S:
            self._sum -= self._done.popleft()[1]
