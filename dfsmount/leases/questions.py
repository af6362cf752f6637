"""Questions to metad under way, and what has happened since they were asked.  Pure.

An answer may be overtaken by news that makes it untrue.  So every question runs inside `asking()`,
whose token says when it was asked; news is noted with its time, and an answer is late when its
token is smaller.  Notes are kept only while anything is being asked.  Used by attrcache.py and
lategrants.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class Questions:
    """A clock that counts news, and how many questions are under way.

    `notes` are the owner's tables of news, emptied when nobody asks any more.
    """

    def __init__(self, *notes: dict[int, int]) -> None:
        self._notes = notes
        self._now = 0
        self._asking = 0

    @contextmanager
    def asking(self) -> Iterator[int]:
        """Around a question: the token for its answer."""
        self._asking += 1
        try:
            yield self._now
        finally:
            self._asking -= 1
            if not self._asking:
                for notes in self._notes:
                    notes.clear()

    def are_under_way(self) -> bool:
        """Does anybody wait for an answer?"""
        return self._asking > 0

    def tick(self) -> int:
        """Something has happened: the time of it, later than all tokens."""
        self._now += 1
        return self._now

    def note(self, notes: dict[int, int], inode: int) -> None:
        """Something has happened to an inode."""
        now = self.tick()
        if self._asking:
            notes[inode] = now
