"""What clients asked for and were told, in the order in which it happened; and whether it can be.

Moments are numbers of one counter, because much happens at one virtual time.  An operation whose
outcome nobody knows (an error, or its client died) may have happened or not; but not after a later
one of the same client had its answer, for then it must never happen any more.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

from tests.simulation.schedule import CELL_BYTES

EXISTS = -1  # stands for the file itself among its cells
FOR_EVER = 1 << 62

Value = int | None  # what a cell holds: the number of a write, or nothing


class Violation(AssertionError):
    """An invariant does not hold."""

    def __init__(self, invariant: str, text: str) -> None:
        super().__init__(f"{invariant}: {text}")
        self.invariant = invariant


class Moments:
    """The counter."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)

    def next(self) -> int:
        return next(self._numbers)


@dataclass
class Change:
    """A write, truncation or removal of a file by its only writer."""

    values: dict[int, Value]  # of each cell that it touches
    began: int
    ended: int = FOR_EVER
    done: bool = False  # known to have happened
    void: bool = False  # known not to have happened
    synced: bool = False


class FileHistory:
    """One file with one writer and many readers."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.changes: list[Change] = []

    def legal(self, cell: int, began: int, ended: int) -> set[Value]:
        """What a reader may find in a cell between two moments."""
        found: set[Value] = {None if cell != EXISTS else 0}
        for change in self.changes:
            if cell not in change.values or change.void or change.began > ended:
                continue
            if change.done and change.ended < began:
                found = {change.values[cell]}
            else:
                found.add(change.values[cell])
        return found

    def is_certain(self, cell: int) -> bool:
        """Was the last change of this cell acknowledged as durable?"""
        touching = [each for each in self.changes if cell in each.values and not each.void]
        return not touching or (touching[-1].done and touching[-1].synced)

    def check(self, cell: int, data: bytes, began: int, ended: int) -> None:
        """Raise Violation unless a reader may see this."""
        legal = self.legal(cell, began, ended)
        if not data.strip(b"\0"):
            if None not in legal:
                raise Violation("I1", f"{self.name} cell {cell}: nothing, legal {_text(legal)}")
            return
        for value in legal:
            if value is not None and data == pattern(self.name, value, cell):
                return
        raise Violation("I2", f"{self.name} cell {cell}: {data[:24]!r}, legal {_text(legal)}")

    def check_existence(self, there: bool, began: int, ended: int) -> None:
        legal = self.legal(EXISTS, began, ended)
        if int(there) not in legal:
            raise Violation("I5" if there else "I1", f"{self.name} exists: {there}")


def _text(legal: set[Value]) -> str:
    return ", ".join(sorted(map(str, legal)))


def pattern(name: str, number: int, cell: int) -> bytes:
    """The bytes of a cell: they say whose they are."""
    text = f"<{name} cell {cell} write {number}>".encode()
    return (text * (CELL_BYTES // len(text) + 1))[:CELL_BYTES]


@dataclass
class Log:
    """Records that clients have appended to one file."""

    acknowledged: set[bytes] = field(default_factory=set)
    attempted: set[bytes] = field(default_factory=set)

    def check(self, records: list[bytes], expected: set[bytes]) -> None:
        """Each acknowledged one is there once; no other more often; nothing else."""
        for record in sorted(expected):
            if record not in records:
                raise Violation("I1", f"the log has lost {record[:20]!r}")
        for record in records:
            if record not in self.attempted:
                raise Violation("I2", f"the log has {record[:20]!r}, which nobody wrote")
            if records.count(record) > 1:
                raise Violation("I7", f"the log has {record[:20]!r} more than once")


@dataclass
class Counter:
    """Increments under a lock."""

    acknowledged: int = 0
    attempted: int = 0

    def check(self, value: int) -> None:
        if not self.acknowledged <= value <= self.attempted:
            raise Violation(
                "I8",
                f"the counter is {value} after {self.acknowledged} acknowledged increments and "
                f"{self.attempted} attempts under its lock",
            )
