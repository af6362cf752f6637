"""The newest entries of the journal, kept in memory for followers that were away for a moment.

Used by followers.py.  `offered` is the last entry that was given out; `before` is what the first
entry that is kept follows, so a follower that has `before` or something later can go on.
"""

from __future__ import annotations

from collections import deque

from dfswire import codec
from dfswire.journal import ENTRIES_BYTES, Entry, Position

KEPT_BYTES = 64 << 20


class Window:
    """See the module's text."""

    def __init__(self, position: Position) -> None:
        self.offered = position
        self.before = position
        self.offered_bytes = 0  # of all entries since the start
        self._kept: deque[tuple[Entry, bytes]] = deque()
        self._kept_bytes = 0

    def add(self, entry: Entry) -> None:
        """The next one; the oldest go when there are too many."""
        data = codec.encode(entry)
        self._kept.append((entry, data))
        self._kept_bytes += len(data)
        self.offered_bytes += len(data)
        self.offered = entry.position
        while self._kept_bytes > KEPT_BYTES and len(self._kept) > 1:
            dropped, octets = self._kept.popleft()
            self.before = dropped.position
            self._kept_bytes -= len(octets)

    def take_back(self, entry: Entry, term: int) -> None:
        """The last one never was; what follows is of `term`."""
        if self._kept and self._kept[-1][0] is entry:
            self._kept_bytes -= len(self._kept.pop()[1])
        last = self._kept[-1][0].position if self._kept else self.before
        self.offered = in_term(last, term)

    def at(self, number: int) -> Position | None:
        """Our position `number`, if it is still known."""
        if number == self.before.number:
            return self.before
        index = number - self.before.number - 1
        return self._kept[index][0].position if 0 <= index < len(self._kept) else None

    def after(self, number: int) -> list[bytes]:
        """Encoded entries after `number`, about as much as fits a frame; at least one."""
        found: list[bytes] = []
        size = 0
        first = number - self.before.number
        for index in range(first, len(self._kept)):
            data = self._kept[index][1]
            if found and size + len(data) > ENTRIES_BYTES:
                break
            found.append(data)
            size += len(data)
        return found


def in_term(position: Position, term: int) -> Position:
    """The same place, as metad names it in a later term."""
    return Position(
        epoch=position.epoch,
        term=max(term, position.term),
        number=position.number,
        time_ns=position.time_ns,
        digest=position.digest,
    )
