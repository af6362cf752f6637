"""Which locks this client holds, as far as metad has told it.

Pure.  Answers may arrive in another order than that in which metad made the changes, because
threads of one process ask at the same time; stamps say the right order.  What is kept here decides
whether a close has something to release, what a restarted metad is told, and which open files are
worth nothing when the session is lost.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterator
from dataclasses import dataclass, field
from operator import itemgetter
from typing import NamedTuple

from dfswire.lockranges import changed, within
from dfswire.locks import Lock, LockKind, LockType, Range

_stamp = itemgetter(0)


class Key(NamedTuple):
    """One owner's locks of one kind on one inode."""

    inode: int
    kind: LockKind
    owner: int


def key_of(lock: Lock) -> Key:
    return Key(lock.inode, lock.kind, lock.owner)


@dataclass
class _Held:
    """`later`: changes with their stamps, before any of which an unknown one may still come."""

    ranges: list[Range] = field(default_factory=list)
    later: list[tuple[int, Range]] = field(default_factory=list)

    def now(self) -> list[Range]:
        ranges = self.ranges
        for _, change in self.later:
            ranges = changed(ranges, change)
        return ranges


class Holdings:
    """`stamp` is the highest that was seen."""

    def __init__(self) -> None:
        self.stamp = 0
        self._held: dict[Key, _Held] = {}

    def note(self, key: Key, change: Range, stamp: int, settled: float) -> None:
        """metad has made this change.  All changes of this key up to stamp `settled` are known."""
        held = self._held.setdefault(key, _Held())
        insort(held.later, (stamp, change), key=_stamp)
        self.stamp = max(self.stamp, stamp)
        while held.later and held.later[0][0] <= settled:
            held.ranges = changed(held.ranges, held.later.pop(0)[1])
        if not held.ranges and not held.later:
            del self._held[key]

    def of(self, key: Key) -> list[Range]:
        held = self._held.get(key)
        return held.now() if held is not None else []

    def within(self, key: Key, span: Range) -> list[Range]:
        return within(self.of(key), span.start, span.end)

    def inodes(self) -> set[int]:
        return {key.inode for key in self._held if self.of(key)}

    def all(self) -> Iterator[Lock]:
        for key in self._held:
            for held in self.of(key):
                yield Lock(inode=key.inode, kind=key.kind, owner=key.owner, range=held)


def steps_back(granted: Range, before: list[Range]) -> list[Range]:
    """The changes that take back what `granted` added to `before`, what was held of its bytes.

    They never ask for more than is held, so they are granted at once.
    """
    steps: list[Range] = []
    at = granted.start
    for held in before:
        if held.start > at:
            steps.append(_unlocked(at, held.start - 1))
        if held.type < granted.type:
            steps.append(held)
        at = held.end + 1
    if at <= granted.end:
        steps.append(_unlocked(at, granted.end))
    return steps


def _unlocked(start: int, end: int) -> Range:
    return Range(type=LockType.UNLOCK, start=start, end=end)
