"""What one chunkd that keeps the journal is sent: an open stream, as an iterator of frames.

Made by followers.py, which says when it is needed and from where it is to go on.  A frame has some
entries, or a part of one that is too large for a frame; without news there is a sign of life.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from dfswire.journal import ENTRIES_BYTES, FollowJournal, JournalFrame, Position

if TYPE_CHECKING:
    from metad.journal.followers import Followers


class Follower:
    """One open stream: an iterator of frames."""

    def __init__(self, followers: Followers, request: FollowJournal) -> None:
        self.server_id = request.server_id
        self.stream = followers.next_stream()
        self.active = False
        self.in_step = False
        self.sent = 0
        self.number = 0  # on its disk
        self._request = request
        self._followers = followers
        self._base: Position | None = None
        self._rest: memoryview | None = None  # of an entry that is too large for one frame
        self._snapshot = request.snapshot
        self._changed = trio.Event()
        self._closed = False

    def activate(self) -> None:
        """It is needed."""
        self.active = True
        self.rewind(self._followers.start_of(self._request))

    def rewind(self, base: Position) -> None:
        """What it has after `base` does not count."""
        self.stream = self._followers.next_stream()
        self._base = base
        self._rest = None
        self.sent = base.number
        self.number = min(self.number, base.number)
        self.wake()

    def wake(self) -> None:
        self._changed.set()

    def close(self) -> None:
        """End the iteration."""
        self._closed = True
        self.in_step = self.active = False
        self.wake()

    def __aiter__(self) -> Follower:
        return self

    async def __anext__(self) -> JournalFrame:
        if not self._has_news:
            with trio.move_on_after(self._followers.sign_of_life_s):
                while not self._has_news:
                    self._changed = trio.Event()
                    await self._changed.wait()
        if self._closed:
            raise StopAsyncIteration
        return self._take()

    async def aclose(self) -> None:
        """The connection is gone."""
        self._followers.disconnected(self)
        self.close()

    @property
    def _has_news(self) -> bool:
        if self._closed:
            return True
        return self.active and (
            self._base is not None
            or self._rest is not None
            or self.sent < self._followers.offered.number
            or self._snapshot < self._followers.snapshot
        )

    def _take(self) -> JournalFrame:
        if not self.active:
            return JournalFrame(stream=self.stream)
        base, self._base = self._base, None
        if self._snapshot < self._followers.snapshot:
            self._snapshot = self._followers.snapshot
        if self._rest is None and (entries := self._followers.after(self.sent)):
            if len(entries[0]) <= ENTRIES_BYTES:
                self.sent += len(entries)
                return JournalFrame(
                    stream=self.stream, base=base, entries=entries, snapshot=self._snapshot
                )
            self._rest = memoryview(entries[0])
        part, is_last = self._next_part()
        return JournalFrame(
            stream=self.stream, base=base, part=part, is_last=is_last, snapshot=self._snapshot
        )

    def _next_part(self) -> tuple[bytes, bool]:
        if self._rest is None:
            return b"", False
        part, self._rest = bytes(self._rest[:ENTRIES_BYTES]), self._rest[ENTRIES_BYTES:]
        if self._rest:
            return part, False
        self._rest = None
        self.sent += 1
        return part, True
