"""Leases of files that are closed: kept for a moment, then given back.

A file that was just closed is often opened again by the same client; one that stays closed should
cost others no recall.  exclusive.py adds what is closed and takes out what is used again.
"""

from __future__ import annotations

import trio

IDLE_S = 1.0  # a file that was just closed is often opened again; then others need no recall
IDLE_MAX = 1000  # so many closed files; the oldest are given back at once
GIVE_BACK_MAX = 500  # in one message


class IdleLeases:
    """Inodes, the longest idle first, and since when they are."""

    def __init__(self) -> None:
        self._since: dict[int, float] = {}
        self._added = trio.Event()

    def __contains__(self, inode: int) -> bool:
        return inode in self._since

    def add(self, inode: int, now_s: float) -> None:
        self._since[inode] = now_s
        self._added.set()

    def discard(self, inode: int) -> None:
        """It is used again, or its lease has ended."""
        self._since.pop(inode, None)

    async def due(self) -> list[int]:
        """Wait until some have been idle for long, or are too many, and take them out.

        None at all, sometimes: when they were used again meanwhile.
        """
        while not self._since:
            self._added = trio.Event()
            await self._added.wait()
        with trio.move_on_at(next(iter(self._since.values())) + IDLE_S):
            while len(self._since) <= IDLE_MAX:
                self._added = trio.Event()
                await self._added.wait()
        return self._take(trio.current_time())

    def _take(self, now_s: float) -> list[int]:
        taken: list[int] = []
        for inode, idle_s in list(self._since.items()):
            # The same sum as in `due`: by rounding, `now_s - IDLE_S` may be less than `idle_s`.
            wanted = idle_s + IDLE_S <= now_s or len(self._since) > IDLE_MAX
            if not wanted or len(taken) == GIVE_BACK_MAX:
                break
            del self._since[inode]
            taken.append(inode)
        return taken
