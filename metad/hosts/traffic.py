"""How much each disk reads and writes, from the counters in successive heartbeats.

Pure; Reports feeds it, status reads it.  A rate is that of the last few seconds, so that one large
chunk does not make a peak; a daemon that was started anew begins at zero.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from dfswire.hosts import DiskFigures
from dfswire.observe import Traffic

WINDOW_S = 5.0
FORGOTTEN_S = 15.0  # without a heartbeat nothing is known of the present


class TrafficMeter:
    """The counters of all disks, as far back as they matter."""

    def __init__(self) -> None:
        self._seen: dict[str, deque[tuple[float, DiskFigures]]] = {}

    def note(self, disks: Iterable[DiskFigures], now: float) -> None:
        """A heartbeat came."""
        for figures in disks:
            seen = self._seen.setdefault(figures.disk, deque())
            if seen and _restarted(seen[-1][1], figures):
                seen.clear()
            seen.append((now, figures))
            while len(seen) > 2 and now - seen[1][0] >= WINDOW_S:
                seen.popleft()

    def of(self, disk: str, now: float) -> Traffic:
        """What the disk does at the moment."""
        seen = self._seen.get(disk)
        if not seen or len(seen) < 2 or now - seen[-1][0] > FORGOTTEN_S:
            return Traffic()
        (began, first), (ended, last) = seen[0], seen[-1]
        if ended <= began:
            return Traffic()
        seconds = ended - began
        return Traffic(
            read_bytes_per_s=(last.read_bytes - first.read_bytes) / seconds,
            written_bytes_per_s=(last.written_bytes - first.written_bytes) / seconds,
            reads_per_s=(last.reads - first.reads) / seconds,
            writes_per_s=(last.writes - first.writes) / seconds,
        )


def total(parts: Iterable[Traffic]) -> Traffic:
    """Of several disks together."""
    found = list(parts)
    return Traffic(
        read_bytes_per_s=sum(each.read_bytes_per_s for each in found),
        written_bytes_per_s=sum(each.written_bytes_per_s for each in found),
        reads_per_s=sum(each.reads_per_s for each in found),
        writes_per_s=sum(each.writes_per_s for each in found),
    )


def _restarted(before: DiskFigures, now: DiskFigures) -> bool:
    names = ("read_bytes", "written_bytes", "reads", "writes")
    return any(getattr(now, name) < getattr(before, name) for name in names)
