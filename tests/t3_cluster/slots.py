"""What may be read of a range that several clients write: `Slot`, written with growing versions.

A write that has returned is seen by every read that starts later, on any client; and what a read
has given, later reads do not go back behind.  Only the unsynced writes of a client that was cut off
may be missing, and those that somebody has missed must never come back.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import trio


@dataclass(eq=False)
class Reading:
    """A read under way, and what was true when it began."""

    floor: int  # the oldest version that it may give
    gone: frozenset[int]
    completed: frozenset[int]


@dataclass(eq=False)
class Slot:
    """A range of the file.  One writes it at a time; who writes and who reads is known by name."""

    offset: int
    length: int
    writing: trio.Lock = field(default_factory=trio.Lock)
    last: int = 0  # the last version that somebody has begun to write
    floor: int = 0  # who begins to read now sees this one or a later one
    stored: int = 0  # nothing can take this one away
    author: dict[int, str] = field(default_factory=dict)
    completed: set[int] = field(default_factory=set)
    gone: set[int] = field(default_factory=set)  # somebody else has missed them
    readings: list[Reading] = field(default_factory=list)

    def content(self, version: int) -> bytes:
        """0 is what was there before: nothing, or zeros."""
        if not version:
            return bytes(self.length)
        return random.Random(self.offset << 20 | version).randbytes(self.length)

    def begin(self, author: str) -> int:
        self.last += 1
        self.author[self.last] = author
        return self.last

    def written(self, version: int, *, may_be_lost: bool) -> None:
        """The write has returned."""
        self.completed.add(version)
        if not may_be_lost:
            if self.author.get(self.floor) != self.author[version]:
                self.stored = max(self.stored, self.floor)  # or it would not have had the lease
            self.floor = max(self.floor, version)

    def synced(self, author: str) -> None:
        """An fsync of this client has returned, which began after its writes."""
        if self.author.get(self.floor) == author:
            self.stored = max(self.stored, self.floor)

    def was_cut(self, author: str) -> None:
        """What it has not synced may be lost."""
        if self.author.get(self.floor) == author:
            self.floor = self.stored
        for reading in self.readings:
            if self.author.get(reading.floor) == author:
                reading.floor = min(reading.floor, self.stored)

    def begin_reading(self) -> Reading:
        reading = Reading(self.floor, frozenset(self.gone), frozenset(self.completed))
        self.readings.append(reading)
        return reading

    def read(self, reading: Reading, reader: str, data: bytes, *, is_cut: bool) -> None:
        """Raises AssertionError when that is not what may be read."""
        self.readings.remove(reading)
        version = self._version(data)
        story = f"{reader} reads version {version} at {self.offset}, written by {self.author}"
        assert version >= reading.floor, f"{story}: {reading.floor} was complete"
        assert version not in reading.gone, f"{story}: others have missed it"
        if self.author.get(version) != reader:
            self.stored = max(self.stored, version)
            self.gone.update(each for each in reading.completed if each > version)
        if version <= self.stored or not is_cut:
            self.floor = max(self.floor, version)

    def _version(self, data: bytes) -> int:
        data = data.ljust(self.length, b"\0")
        for version in range(self.last, -1, -1):
            if data == self.content(version):
                return version
        raise AssertionError(f"{self.length} bytes at {self.offset} are of no version, or of two")
