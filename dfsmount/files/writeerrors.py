"""What could not be stored of one inode, as its handles are told.

A write that was accepted may fail later, when nobody waits for it.  The error is remembered with a
number, so that every handle reports it once, at its next fsync or close.
"""

from __future__ import annotations

from dfswire.errors import DFSError, InputOutput, SessionLost


class WriteErrors:
    """The last error, and how many there were."""

    def __init__(self) -> None:
        self._last: DFSError | None = None
        self.count = 0

    def remember(self, problem: DFSError) -> None:
        """To be told to the application, which knows no sessions: EIO."""
        self._last = InputOutput(str(problem)) if isinstance(problem, SessionLost) else problem
        self.count += 1

    def check(self, since: int) -> int:
        """The present count.  Raises the last error if it is newer than `since`."""
        if self._last is not None and self.count > since:
            raise type(self._last)(str(self._last)) from self._last
        return self.count
