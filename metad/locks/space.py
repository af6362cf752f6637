"""The locks of one kind on one inode: who holds which bytes, and who waits, first come first.

Pure.  table.py decides with these who is granted what; waits.py looks from here who waits for whom.
POSIX locks and flocks of an inode are two spaces that know nothing of each other.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from dfswire.lockranges import in_the_way
from dfswire.locks import LockKind, LockOutcome, LockType, Range


class Owner(NamedTuple):
    """Whose lock it is: the kernel's number, which counts within one session."""

    session: str
    number: int


class Process(NamedTuple):
    """Who acts.  A process has several owners when it locks several open files."""

    session: str
    pid: int
    number: int  # of the owner where the pid is not known, otherwise 0


def process_of(owner: Owner, pid: int) -> Process:
    return Process(owner.session, pid, 0 if pid else owner.number)


@dataclass(eq=False)
class Request:
    """A lock that was asked for, and what became of it."""

    inode: int
    kind: LockKind
    owner: Owner
    wanted: Range
    wait: bool
    outcome: LockOutcome = LockOutcome.WAITING
    stamp: int = 0

    @property
    def process(self) -> Process:
        return process_of(self.owner, self.wanted.pid)


@dataclass
class Space:
    """See the module's text."""

    held: dict[Owner, list[Range]] = field(default_factory=dict)
    queue: dict[Request, None] = field(default_factory=dict)  # in the order of arrival

    def holders_in_the_way(self, owner: Owner, wanted: Range) -> Iterator[tuple[Owner, Range]]:
        """Of each other owner one range that `wanted` can't be beside."""
        for other, ranges in self.held.items():
            if other != owner and (found := in_the_way(ranges, wanted)) is not None:
                yield other, found

    def waiters_in_the_way(self, request: Request) -> Iterator[Request]:
        """Those who wait longer (for one that is not in the queue, all), and want what can't be
        beside `request`."""
        for earlier in self.queue:
            if earlier is request:
                return
            if earlier.owner != request.owner and _exclude(earlier.wanted, request.wanted):
                yield earlier

    @property
    def is_empty(self) -> bool:
        return not self.held and not self.queue


def _exclude(one: Range, other: Range) -> bool:
    return (
        LockType.WRITE in (one.type, other.type)
        and one.start <= other.end
        and other.start <= one.end
    )
