"""What may be read of a file to which several clients append: `Log`, of records with numbers.

Every record stands there once, whole, behind those that were there before.  One whose append has
returned is seen by every read that starts later, on any client; only the unsynced ones of a client
that was cut off may be missing, and those that somebody has missed must never come back.
"""

from __future__ import annotations

import random
import struct
from dataclasses import dataclass, field

HEAD = struct.Struct("<4sHII")  # magic, author, number, length of what follows
MAGIC = b"rec:"

Record = tuple[str, int]  # author, number


@dataclass(eq=False)
class Reading:
    """A read under way, and what was true when it began."""

    certain: set[Record]
    gone: frozenset[Record]
    completed: frozenset[Record]
    beginning: list[Record]


@dataclass(eq=False)
class Log:
    """The file.  `certain` records are there for whoever begins to read now."""

    begun: dict[Record, int] = field(default_factory=dict)  # -> length
    completed: set[Record] = field(default_factory=set)
    certain: set[Record] = field(default_factory=set)
    stored: set[Record] = field(default_factory=set)
    gone: set[Record] = field(default_factory=set)
    beginning: list[Record] = field(default_factory=list)  # of the file, for ever
    readings: list[Reading] = field(default_factory=list)

    def begin(self, author: str, length: int) -> Record:
        record = (author, len(self.begun))
        self.begun[record] = length
        return record

    def content(self, record: Record) -> bytes:
        author, number = record
        length = self.begun[record]
        return HEAD.pack(MAGIC, ord(author), number, length) + random.Random(number).randbytes(
            length
        )

    def appended(self, record: Record, *, may_be_lost: bool) -> None:
        """The write has returned."""
        self.completed.add(record)
        if not may_be_lost:
            self.certain.add(record)

    def synced(self, author: str) -> None:
        """An fsync of this client has returned, which began after its writes."""
        self.stored.update(each for each in self.certain if each[0] == author)

    def was_cut(self, author: str) -> None:
        """What it has not synced may be lost."""
        lost = {each for each in self.certain if each[0] == author} - self.stored
        self.certain -= lost
        for reading in self.readings:
            reading.certain -= lost

    def begin_reading(self) -> Reading:
        reading = Reading(
            set(self.certain), frozenset(self.gone), frozenset(self.completed), self.beginning
        )
        self.readings.append(reading)
        return reading

    def read(self, reading: Reading, reader: str, data: bytes) -> None:
        """Raises AssertionError when that is not what may be read."""
        self.readings.remove(reading)
        found = self._parse(data)
        assert len(set(found)) == len(found), f"{reader} finds a record twice: {found}"
        missed = reading.certain - set(found)
        assert not missed, f"{reader} misses {missed} in {found}"
        back = reading.gone & set(found)
        assert not back, f"{reader} finds {back}, which others have missed, in {found}"
        old = reading.beginning
        assert found[: len(old)] == old, f"{reader} finds {found}, others found {old}"
        others = [index for index, each in enumerate(found) if each[0] != reader]
        known = found[: others[-1] + 1] if others else []  # what follows may be uncommitted
        self.stored.update(known)
        self.certain.update(known)
        self.beginning = max(self.beginning, known, key=len)
        self.gone.update(each for each in reading.completed - set(found) if each[0] != reader)

    def _parse(self, data: bytes) -> list[Record]:
        found, at = [], 0
        while at < len(data):
            magic, author, number, length = HEAD.unpack_from(data.ljust(at + HEAD.size, b"\0"), at)
            record = (chr(author), number)
            assert magic == MAGIC and self.begun.get(record) == length, f"no record at {at}"
            end = at + HEAD.size + length
            assert data[at:end] == self.content(record), f"record {record} at {at} is torn"
            found.append(record)
            at = end
        return found
