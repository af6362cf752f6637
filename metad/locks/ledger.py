"""Lock requests by their numbers: each is made once, however often and late its message comes.

Pure.  A client counts its requests; of those below the highest number that was seen here, only the
ones that it said to be unanswered are still of use.  What a request came to is kept until the
client's later messages show that it knows.  A session speaks here from its first stream on, which
brings what it held under an earlier metad.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from dfswire.errors import Stale, Unavailable
from dfswire.locks import HeldLocks, Lock, LockKind, LockOutcome, LockType, Range, SetLock
from metad.locks.space import Owner, Request
from metad.locks.table import LockTable


@dataclass
class _Numbers:
    """Of one session.  `expected`: below `highest`, not seen yet, and not void."""

    highest: int = 0
    expected: set[int] = field(default_factory=set)
    requests: dict[int, Request] = field(default_factory=dict)

    def note(self, number: int, unanswered: Collection[int]) -> list[Request]:
        """The client had used the numbers up to this one; returns what it has the answers of."""
        if number <= self.highest:
            return []
        still = set(unanswered)
        known = [each for each in self.requests if each < number and each not in still]
        fresh = {each for each in still if each > self.highest and each not in self.requests}
        self.expected = (self.expected & still) | fresh
        self.highest = number
        return [self.requests.pop(each) for each in known]


class Ledger:
    """All sessions' requests, on one table."""

    def __init__(self, table: LockTable) -> None:
        self._table = table
        self._sessions: dict[str, _Numbers] = {}

    def connect(self, session: str, held: HeldLocks) -> None:
        """The session has opened its stream.  What it says to hold counts the first time only:
        after that it may be older than what is known here."""
        if session not in self._sessions:
            self._sessions[session] = _Numbers()
            self._table.restore(session, held.held, held.stamp)
        self._note(session, held.number, held.unanswered)

    def end(self, session: str) -> None:
        """Release everything.  Idempotent."""
        if self._sessions.pop(session, None) is not None:
            self._table.end_session(session)

    def check(self, session: str) -> _Numbers:
        """Raises Unavailable before the session has said what it holds."""
        try:
            return self._sessions[session]
        except KeyError as problem:
            raise Unavailable(f"session {session} has not opened its stream") from problem

    def set(self, message: SetLock) -> Request:
        """The request of this number, asked now if it was not before.  Raises Stale, Unavailable.

        Stale: the client has the answer, so this is a late copy, and nobody waits for this one.
        """
        numbers = self.check(message.session)
        number = message.number
        is_new = number > numbers.highest or number in numbers.expected
        self._note(message.session, number, message.unanswered)
        if (known := numbers.requests.get(number)) is not None:
            return known
        if not is_new:
            raise Stale(f"lock request {number} was answered before")
        request = request_of(message.session, message.lock, wait=message.wait)
        self._keep(numbers, number, request)
        self._table.ask(request)
        return request

    def cancel(self, session: str, number: int) -> Request:
        """What the request came to, CANCELLED if to nothing so far.  A copy of it that arrives
        later will find that."""
        numbers = self.check(session)
        request = numbers.requests.get(number)
        if request is None:
            request = _cancelled(session)
            if number > numbers.highest or number in numbers.expected:
                self._keep(numbers, number, request)
        self._table.cancel(request)
        return request

    def _note(self, session: str, number: int, unanswered: Collection[int]) -> None:
        for request in self._sessions[session].note(number, unanswered):
            self._table.cancel(request)  # if it waits, then for nobody

    @staticmethod
    def _keep(numbers: _Numbers, number: int, request: Request) -> None:
        numbers.expected.discard(number)
        numbers.requests[number] = request


def request_of(session: str, lock: Lock, *, wait: bool = False) -> Request:
    return Request(lock.inode, lock.kind, Owner(session, lock.owner), lock.range, wait)


def _cancelled(session: str) -> Request:
    """Stands for a request that never arrived."""
    nothing = Range(type=LockType.UNLOCK)
    return Request(
        0, LockKind.POSIX, Owner(session, 0), nothing, False, outcome=LockOutcome.CANCELLED
    )
