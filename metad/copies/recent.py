"""Chunks that were stored a moment ago.

Pure.  A chunkd's inventory is some seconds old when it arrives; a chunk that became part of a file
meanwhile is not missing because it is not in it.  reports.py asks here before it believes that.
"""

from __future__ import annotations

from collections.abc import Iterable


class RecentChunks:
    """Ids of the last `window_s` seconds.  Everything counts as recent right after the start,
    for what an earlier metad knew is lost."""

    def __init__(self, window_s: float, now: float) -> None:
        self._window_s = window_s
        self._started_s = now
        self._stored_s: dict[bytes, float] = {}  # oldest first

    def add(self, chunks: Iterable[bytes], now: float) -> None:
        for chunk in chunks:
            self._stored_s.pop(chunk, None)
            self._stored_s[chunk] = now
        self._forget_before(now - self._window_s)

    def __call__(self, chunk: bytes, now: float) -> bool:
        """May an inventory that arrives now be older than this chunk?"""
        stored_s = self._stored_s.get(chunk, self._started_s)
        return now - stored_s < self._window_s

    def _forget_before(self, limit_s: float) -> None:
        while self._stored_s:
            oldest = next(iter(self._stored_s))
            if self._stored_s[oldest] >= limit_s:
                return
            del self._stored_s[oldest]
