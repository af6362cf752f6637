"""How long the event loop of this process stood still: a task that sleeps, and looks at the clock.

Every daemon and mount runs one `LoopLag`, which its `Metrics` shows as `dfs_loop_lag_seconds`.
While the loop stands still nobody is answered and no heartbeat goes out: something blocks in it (a
call that should be in a thread), or the process got no processor, or it was stopped.  More than
ALARM_S is a warning in the log, of which there is at most one every QUIET_S.  It costs two wake-ups
a second; clusters in one process, under a virtual clock, do not run it.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable

import trio

log = logging.getLogger(__name__)

INTERVAL_S = 0.5
ALARM_S = 1.0
QUIET_S = 60.0
REMEMBERED_S = 60.0  # whoever scrapes more often than that misses nothing


class LoopLag:
    """The lags of the last while.  `clock` is the monotonic one of this machine."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lags: deque[tuple[float, float]] = deque()  # (when, how long), each less than before
        self._quiet_until_s = float("-inf")

    async def run_forever(self) -> None:
        """Watch until cancelled."""
        while True:
            began_s = self._clock()
            await trio.sleep(INTERVAL_S)
            now = self._clock()
            self.note(max(0.0, now - began_s - INTERVAL_S), now)

    def note(self, lag_s: float, now: float) -> None:
        """The loop came back so much later than it should."""
        while self._lags and self._lags[-1][1] <= lag_s:
            self._lags.pop()
        self._lags.append((now, lag_s))
        if lag_s > ALARM_S and now >= self._quiet_until_s:
            self._quiet_until_s = now + QUIET_S
            log.warning("the event loop stood still for %.1f s", lag_s)

    def worst_s(self) -> float:
        """The longest of the last minute."""
        oldest_s = self._clock() - REMEMBERED_S
        while self._lags and self._lags[0][0] < oldest_s:
            self._lags.popleft()
        return self._lags[0][1] if self._lags else 0.0
