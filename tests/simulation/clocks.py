"""The clocks of all parties: those on walls can jump, and metad's own can run fast or slow.

Everything else goes by the virtual time itself.
"""

from __future__ import annotations

import trio

START_NS = 1_700_000_000 * 10**9


class Clocks:
    """`error_s` of the clock on the wall of each party; `skipped_s` is common to all."""

    def __init__(self) -> None:
        self.error_s: dict[str, float] = {}
        self.skipped_s = 0.0
        self._rate = 1.0
        self._since_s = 0.0
        self._shown_s = 0.0

    def wall_s(self, party: str) -> float:
        """What this party's clock on the wall shows."""
        return START_NS / 1e9 + self._since_start_s(party)

    def wall_ns(self, party: str) -> int:
        return START_NS + int(self._since_start_s(party) * 1e9)

    def _since_start_s(self, party: str) -> float:
        return trio.current_time() + self.skipped_s + self.error_s.get(party, 0.0)

    def metad(self) -> float:
        """The clock by which metad measures leases and silence; it never goes back."""
        return self._shown_s + (trio.current_time() - self._since_s) * self._rate

    def set_rate(self, rate: float) -> None:
        """metad's clock goes so many times as fast as all others from now on."""
        self._shown_s, self._since_s = self.metad(), trio.current_time()
        self._rate = rate
