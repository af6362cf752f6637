"""Which disks repair takes for lost, when servers and disks come and go.

Pure.  A disk that is not usable is lost, with one exception: what repair began to replace for a
server is a *start*, and there is one start for a server in START_EVERY_S.  So a disk that fails and
recovers all the time, or a server with many failing disks, does not set off one copying after the
other; when a lost disk is back it counts again at once.
"""

from __future__ import annotations

from collections.abc import Mapping

START_EVERY_S = 30.0


class Losses:
    """Remembers what is lost, and when the last start for each server was."""

    def __init__(self) -> None:
        self._lost: set[str] = set()
        self._started_s: dict[str, float] = {}

    def update(self, missing: Mapping[str, str], now: float) -> set[str]:
        """Of the disks that are not usable (disk -> server) those that are lost."""
        self._lost &= missing.keys()
        fresh = {
            disk: server
            for disk, server in missing.items()
            if disk not in self._lost
            and now - self._started_s.get(server, -START_EVERY_S) >= START_EVERY_S
        }
        self._started_s.update(dict.fromkeys(fresh.values(), now))
        self._lost |= fresh.keys()
        return set(self._lost)
