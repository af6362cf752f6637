"""The clock by which a client counts its lease: it goes on while the host is suspended.

trio's clock is CLOCK_MONOTONIC, which stands still while a laptop or a virtual machine sleeps; the
metad that granted the lease does not wait for it.  CLOCK_BOOTTIME counts that time too, as
clock_gettime(2) says, and neither of them jumps.  session.py counts by this one.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import trio

JITTER_S = 0.05  # the two clocks are read one after the other


def suspended_s() -> float:
    """How long this host has slept since it was booted."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) - time.clock_gettime(time.CLOCK_MONOTONIC)


class LeaseClock:
    """trio's clock, and what the host has slept meanwhile.  `suspended` says how long in all."""

    def __init__(self, suspended: Callable[[], float] = suspended_s) -> None:
        self._suspended = suspended
        self._began_s = self._seen_s = suspended()

    def now_s(self) -> float:
        """Only for differences; it is trio's time until the host sleeps for the first time."""
        return trio.current_time() + self.slept_s()

    def slept_s(self) -> float:
        """Since this clock was made.  Without jitter, so that a virtual clock stays exact."""
        suspended_s = self._suspended()
        if suspended_s > self._seen_s + JITTER_S:
            self._seen_s = suspended_s
        return self._seen_s - self._began_s
