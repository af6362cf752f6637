"""When to read ahead, and how far: pure arithmetic on the offsets of one handle's reads.

A handle that reads on where it stopped gets a window that doubles with each read; one that jumps
gets none, so random reads fetch only what they need.  The kernel sends the requests of one stream
concurrently and slightly out of order; that still counts as sequential.
"""

from __future__ import annotations

FIRST_BYTES = 256 << 10
MOST_BYTES = 16 << 20  # four chunks from (usually) different servers at once
SLACK_REQUESTS = 2  # how far out of order requests of one stream come


class ReadAhead:
    """The state of one stream of reads."""

    def __init__(self) -> None:
        self._expected = 0
        self._ahead = 0  # asked for up to here
        self.window_bytes = 0

    def advance(self, offset: int, length: int, size: int) -> tuple[int, int] | None:
        """After a read: the range [start, end) to fetch in the background, if any.

        It is asked for in steps of half a window, so that fetches are large.
        """
        end = offset + length
        if abs(offset - self._expected) > SLACK_REQUESTS * length:
            self.window_bytes = 0
            self._expected = self._ahead = end
            return None
        self.window_bytes = min(MOST_BYTES, max(FIRST_BYTES, 2 * self.window_bytes))
        self._expected = max(self._expected, end)
        self._ahead = max(self._ahead, self._expected)
        target = min(size, self._expected + self.window_bytes)
        if target <= self._ahead or self._ahead - self._expected > self.window_bytes // 2:
            return None
        start, self._ahead = self._ahead, target
        return start, target
