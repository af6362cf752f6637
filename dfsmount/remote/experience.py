"""What this client meets at each chunkd, compared with what it meets at the others.

Pure.  serverhealth.py keeps one `Meetings`; what has gathered since the last time goes to metad
with the renewal of the session.  A call is slow when it took SLOW_TIMES as long as the same kind of
call usually takes at the *other* servers, and long enough for somebody to notice: when everything
is slow, no server is.
"""

from __future__ import annotations

from collections import defaultdict, deque
from statistics import median

from dfswire.health import EXPERIENCES_MAX, Experience

SLOW_TIMES = 5.0
SLOW_LEAST_S = {"read": 0.1, "store": 0.5}  # one fsync may take 0.2 s on a busy disk
SAMPLES = 16  # of a server; what is usual there is their median
SAMPLES_MIN = 4
TROUBLE_LEAST = 2  # bad calls at a server: worth telling metad soon
AVOIDED_S = 10.0  # after that many slow calls in so long a time


class Meetings:
    """Counts since they were taken last, and what is usual."""

    def __init__(self) -> None:
        self._usual: dict[str, dict[str, deque[float]]] = defaultdict(dict)  # kind -> address
        self._calls: dict[str, int] = {}
        self._failed: dict[str, int] = {}
        self._slow: dict[str, int] = {}
        self._slow_s: dict[str, deque[float]] = {}  # the last slow calls

    def took(self, address: str, kind: str, seconds: float, now: float) -> None:
        """A call ended, or was given up because another server had answered before.

        `kind` is "read" or "store", and what else makes calls comparable.
        """
        slow = self._is_slow(address, kind, seconds)
        samples = self._usual[kind].setdefault(address, deque(maxlen=SAMPLES))
        samples.append(seconds)
        self._calls[address] = self._calls.get(address, 0) + 1
        if slow:
            self._slow[address] = self._slow.get(address, 0) + 1
            self._slow_s.setdefault(address, deque(maxlen=TROUBLE_LEAST)).append(now)

    def failed(self, address: str) -> None:
        """No answer in time, or not reached."""
        self._calls[address] = self._calls.get(address, 0) + 1
        self._failed[address] = self._failed.get(address, 0) + 1

    def slow_ones(self, now: float) -> list[str]:
        """Servers that were slow several times lately."""
        return sorted(
            address
            for address, at_s in self._slow_s.items()
            if len(at_s) == TROUBLE_LEAST and now - at_s[0] < AVOIDED_S
        )

    @property
    def is_trouble(self) -> bool:
        """Is there something that metad should hear soon?"""
        bad = {address for counts in (self._failed, self._slow) for address in counts}
        return any(
            self._failed.get(address, 0) + self._slow.get(address, 0) >= TROUBLE_LEAST
            for address in bad
        )

    def take(self) -> list[Experience]:
        """The counts, the worst first, once."""
        found = [
            Experience(
                address=address,
                calls=calls,
                failed=self._failed.get(address, 0),
                slow=self._slow.get(address, 0),
            )
            for address, calls in self._calls.items()
        ]
        self._calls, self._failed, self._slow = {}, {}, {}
        return sorted(found, key=lambda each: -each.failed - each.slow)[:EXPERIENCES_MAX]

    def _is_slow(self, address: str, kind: str, seconds: float) -> bool:
        if seconds < SLOW_LEAST_S[kind.partition(" ")[0]]:
            return False
        others = [
            median(samples)
            for other, samples in self._usual[kind].items()
            if other != address and len(samples) >= SAMPLES_MIN
        ]
        return bool(others) and seconds > SLOW_TIMES * median(others)
