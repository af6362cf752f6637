"""What this server has met at other chunkds that it copied from, for metad to hear.

Pure.  replicate.py notes each attempt and asks who was not reached a moment ago, to try others
first; the heartbeat takes the counts along.
"""

from __future__ import annotations

from dfswire.health import EXPERIENCES_MAX, Experience

AVOIDED_S = 30.0


class Peers:
    """Counts by address since they were taken last."""

    def __init__(self) -> None:
        self._calls: dict[str, int] = {}
        self._failed: dict[str, int] = {}
        self._avoid_until: dict[str, float] = {}

    def answered(self, address: str) -> None:
        """Whatever it said."""
        self._calls[address] = self._calls.get(address, 0) + 1
        self._avoid_until.pop(address, None)

    def failed(self, address: str, now: float) -> None:
        """Not reached, or no answer in time."""
        self._calls[address] = self._calls.get(address, 0) + 1
        self._failed[address] = self._failed.get(address, 0) + 1
        self._avoid_until[address] = now + AVOIDED_S

    def is_doubtful(self, address: str, now: float) -> bool:
        """Did it fail a moment ago?"""
        return self._avoid_until.get(address, now) > now

    def take(self) -> list[Experience]:
        """The counts, the worst first, once."""
        experiences = [
            Experience(address=address, calls=calls, failed=self._failed.get(address, 0))
            for address, calls in self._calls.items()
        ]
        self._calls, self._failed = {}, {}
        return sorted(experiences, key=lambda each: -each.failed)[:EXPERIENCES_MAX]
