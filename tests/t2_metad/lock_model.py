"""Locks as plainly as they can be said: one entry for each byte, checked by looking at all of it.

The table of metad/locks/table.py is driven beside this by random histories and by all short ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from dfswire.locks import LockKind, LockOutcome, LockType, Range
from metad.locks.space import Owner, Request
from metad.locks.table import LockTable

BYTES = 6  # the range that histories play on
READ, WRITE, UNLOCK = LockType.READ, LockType.WRITE, LockType.UNLOCK
POSIX, FLOCK = LockKind.POSIX, LockKind.FLOCK
A, B, C = Owner("a", 1), Owner("b", 2), Owner("c", 3)
WHOLE = Range(type=UNLOCK)
Place = tuple[int, LockKind]


def pid_of(owner: Owner) -> int:
    """Each owner is a process of its own, or there would be waits that the model does not see."""
    return 100 + owner.number


@dataclass
class Model:
    """What must be held, and who must be waiting; `table` says who was granted what."""

    table: LockTable = field(init=False)
    session_max: int = 1000
    held: dict[tuple[Place, Owner], dict[int, LockType]] = field(default_factory=dict)
    waiting: list[Request] = field(default_factory=list)
    decided: list[Request] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.table = LockTable(self.session_max, self.decided.append)

    # What is done to the table

    def ask(
        self,
        place: Place,
        owner: Owner,
        kind: LockType,
        start: int = 0,
        end: int = BYTES - 1,
        *,
        wait: bool = True,
    ) -> Request:
        wanted = Range(type=kind, start=start, end=end, pid=pid_of(owner))
        request = Request(*place, owner, wanted, wait)
        if place[1] == LockKind.FLOCK and kind not in self.bytes_of(place, owner).values():
            self.held.pop((place, owner), None)
        blocked = any(self.holders(request))
        circle = place[1] == LockKind.POSIX and self.closes_a_circle(request)
        self.table.ask(request)
        if kind == UNLOCK or (not wait and not blocked):
            assert request.outcome == LockOutcome.GRANTED
        elif not wait:
            assert request.outcome == LockOutcome.CONFLICT
        elif blocked:
            expected = LockOutcome.DEADLOCK if circle else LockOutcome.WAITING
            assert request.outcome == expected
        else:
            assert request.outcome in (LockOutcome.GRANTED, LockOutcome.WAITING)
        if request.outcome == LockOutcome.GRANTED and request not in self.decided:
            self.grant(request)
        elif request.outcome == LockOutcome.WAITING or request in self.decided:
            self.waiting.append(request)
        self.catch_up()
        return request

    def cancel(self, request: Request) -> None:
        self.table.cancel(request)
        self.catch_up()

    def end_session(self, session: str) -> None:
        for key in [each for each in self.held if each[1].session == session]:
            del self.held[key]
        self.table.end_session(session)
        self.catch_up()

    # What follows

    def catch_up(self) -> None:
        """Let the model see what the table has decided, in its order; then compare."""
        for request in self.decided:
            if request.outcome == LockOutcome.GRANTED:
                self.check_fair(request)
                self.grant(request)
            else:
                assert request.outcome == LockOutcome.CANCELLED
            self.waiting.remove(request)
        self.decided.clear()
        self.check()

    def grant(self, request: Request) -> None:
        assert not any(self.holders(request)), "granted beside what excludes it"
        place = (request.inode, request.kind)
        mine = self.held.setdefault((place, request.owner), {})
        for byte in range(request.wanted.start, min(request.wanted.end, BYTES - 1) + 1):
            if request.wanted.type == UNLOCK:
                mine.pop(byte, None)
            else:
                mine[byte] = request.wanted.type

    def check_fair(self, request: Request) -> None:
        """Whoever came earlier and excludes it must be waiting for this very owner."""
        for earlier in self.waiting[: self.waiting.index(request)]:
            if earlier.outcome == LockOutcome.WAITING and self.exclude(earlier, request):
                assert request.owner in self.waited_for(earlier), "overtook"

    def check(self) -> None:
        """What is held is what the model says, and everybody who waits has a reason."""
        places = {place for place, _ in self.held}
        for place in places:
            told = {
                (owner, byte): held.type
                for kind, owner, held in self.table.holders(place[0])
                if kind == place[1]
                for byte in range(held.start, min(held.end, BYTES - 1) + 1)
            }
            known = {
                (owner, byte): kind
                for (where, owner), bytes_ in self.held.items()
                if where == place
                for byte, kind in bytes_.items()
            }
            assert told == known
        for request in self.waiting:
            assert request.outcome == LockOutcome.WAITING
            assert any(self.holders(request)) or any(self.earlier(request)), "waits for nothing"

    def finish(self) -> None:
        """Whoever does not wait releases everything, until nobody has anything: nobody hangs."""
        owners = {owner for _, owner in self.held} | {each.owner for each in self.waiting}
        while True:
            busy = {request.owner for request in self.waiting}
            free = [key for key in self.held if key[1] not in busy and self.held[key]]
            if not free:
                break
            for place, owner in free:
                self.ask(place, owner, UNLOCK)
        assert not self.waiting, f"these wait for ever, of {owners}: {self.waiting}"

    # Questions

    def bytes_of(self, place: Place, owner: Owner) -> dict[int, LockType]:
        return self.held.get((place, owner), {})

    def holders(self, request: Request) -> Iterator[Owner]:
        """Other owners who hold what excludes it."""
        if request.wanted.type == UNLOCK:
            return
        span = range(request.wanted.start, min(request.wanted.end, BYTES - 1) + 1)
        for (place, owner), bytes_ in self.held.items():
            if place == (request.inode, request.kind) and owner != request.owner:
                kinds = {bytes_[byte] for byte in span if byte in bytes_}
                if WRITE in kinds or (kinds and request.wanted.type == WRITE):
                    yield owner

    @staticmethod
    def exclude(one: Request, other: Request) -> bool:
        return (
            (one.inode, one.kind) == (other.inode, other.kind)
            and one.owner != other.owner
            and WRITE in (one.wanted.type, other.wanted.type)
            and one.wanted.start <= other.wanted.end
            and other.wanted.start <= one.wanted.end
        )

    def earlier(self, request: Request) -> Iterator[Request]:
        before = self.waiting[: self.waiting.index(request)]
        return (each for each in before if self.exclude(each, request))

    def closes_a_circle(self, request: Request) -> bool:
        """By holders alone."""
        reached: set[Owner] = set()
        todo = list(self.holders(request))
        while todo:
            owner = todo.pop()
            if owner not in reached:
                reached.add(owner)
                for each in self.waiting:
                    if each.owner == owner and each.kind == LockKind.POSIX:
                        todo += self.holders(each)
        return request.owner in reached

    def waited_for(self, request: Request) -> set[Owner]:
        """By holders and by who came earlier."""
        reached: set[Owner] = set()
        todo = [*self.holders(request), *(each.owner for each in self.earlier(request))]
        while todo:
            owner = todo.pop()
            if owner not in reached:
                reached.add(owner)
                for each in self.waiting:
                    if each.owner == owner and each.outcome == LockOutcome.WAITING:
                        todo += self.holders(each)
                        todo += [other.owner for other in self.earlier(each)]
        return reached
