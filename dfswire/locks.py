"""Locks as they cross the network: flock(2) of whole files and fcntl(2) of byte ranges.

A request to set a lock carries `(session, number)`; the client counts the numbers and repeats a
request under the same one until it has the answer, so it is executed once.  `unanswered` names all
smaller numbers that the client still waits for: of every other smaller number nothing is believed
any more, however late a copy of it arrives.  `stamp` puts the changes of one session in the order
in which metad made them, whatever order the answers arrive in.
"""

from __future__ import annotations

import enum

from dfswire.messages import Answer, Inode, Message, Natural

LOCK_END_MAX = (1 << 63) - 1  # to wherever the file ends; the kernel's OFFSET_MAX


class LockKind(enum.IntEnum):
    """The two kinds of locks.  They do not see each other, as on a local file system."""

    POSIX = 0  # byte ranges; the owner is a process, or (OFD) an open file description
    FLOCK = 1  # always the whole file; the owner is an open file description


class LockType(enum.IntEnum):
    """The values of F_RDLCK, F_WRLCK, F_UNLCK."""

    READ = 0
    WRITE = 1
    UNLOCK = 2


class Range(Message, frozen=True, kw_only=True):
    """The bytes from `start` to `end`, both included, and what is (to be) locked there."""

    type: LockType
    start: Natural = 0
    end: Natural = LOCK_END_MAX
    pid: int = 0  # of who locked it, on its own host; 0 unknown

    def __post_init__(self) -> None:
        if not self.start <= self.end <= LOCK_END_MAX:
            raise ValueError("a range of no bytes, or beyond the largest offset")


class Lock(Message, frozen=True, kw_only=True):
    """A lock that is held or wanted.

    `owner` is the kernel's number for who holds it, different for all owners of one session.
    """

    inode: Inode
    kind: LockKind
    owner: Natural
    range: Range


class HeldLocks(Message, frozen=True, kw_only=True):
    """All that a client knows of its locks when it opens its event stream; for a metad that was
    restarted.

    `number` is the last that it has used; requests in `unanswered` will be repeated.  Stamps go on
    from `stamp`.
    """

    number: Natural = 0
    unanswered: list[int] = []
    stamp: Natural = 0
    held: list[Lock] = []


class SetLock(Message, frozen=True, kw_only=True):
    """Lock or unlock.  With `wait` not false the answer may be WAITING: then ask again, with the
    same number, and the place in the queue is kept."""

    session: str
    number: Natural
    unanswered: list[int] = []
    lock: Lock
    wait: bool = False


class LockOutcome(enum.IntEnum):
    """What became of a request."""

    GRANTED = 0
    WAITING = 1  # not yet; even without `wait` while a restarted metad does not know all locks
    CONFLICT = 2  # somebody else has it
    DEADLOCK = 3  # waiting would never end
    NO_LOCKS = 4  # the session has too many
    CANCELLED = 5


class LockAnswer(Answer, frozen=True, kw_only=True):
    """`stamp` is that of the change which the request has made; 0 as long as it has made none.

    A flock that converts a lock drops that one first; if it was not granted, that is its change.
    """

    outcome: LockOutcome
    stamp: Natural = 0


class CancelLock(Message, frozen=True, kw_only=True):
    """Nobody waits for this request any more.  The answer is what became of it: GRANTED when that
    was earlier, otherwise it never will be."""

    session: str
    number: Natural


class GetLock(Message, frozen=True, kw_only=True):
    """Could `lock` be set?"""

    session: str
    lock: Lock


class GetLockReply(Answer, frozen=True, kw_only=True):
    """One lock that is in the way, and the host of its owner; None when nothing is."""

    range: Range | None = None
    host: str = ""
