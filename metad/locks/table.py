"""The table of locks: requests are granted, queued or refused, and what is released goes to who is
next.

Pure; metad/clients/locking.py has the handlers, ledger.py sees to it that each request is made
once.  Ranges split and merge as fcntl(2) says; a flock that is converted is dropped first, as
flock(2) says.  The promises: no two owners hold what excludes the other; who waits is granted in
the order of arrival among those who exclude each other, unless that would make a deadlock; nobody
waits for ever for somebody who is gone.  A request that must not wait looks at holders only, as
POSIX says of F_SETLK.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable

from dfswire.lockranges import changed
from dfswire.locks import Lock, LockKind, LockOutcome, LockType, Range
from metad.locks.space import Owner, Process, Request, Space, process_of
from metad.locks.waits import Waits

_Key = tuple[int, LockKind]
_Reached = dict[Request, set[Process]]


class LockTable:
    """All locks.  A session holds at most `session_max` ranges, and waits for as many.

    `settled` is called with every request that has waited and does not wait any more.
    """

    def __init__(
        self, session_max: int, settled: Callable[[Request], None] = lambda request: None
    ) -> None:
        self._session_max = session_max
        self._tell = settled
        self._spaces: dict[_Key, Space] = {}
        self._waits = Waits(lambda request: self._space(request.inode, request.kind))
        self._unfair: dict[Request, None] = {}  # only earlier requests are in their way
        self._granted: list[Request] = []  # of late, to somebody who may wait elsewhere
        self._holds: defaultdict[str, dict[tuple[_Key, Owner], None]] = defaultdict(dict)
        self._counts: Counter[str] = Counter()  # session -> ranges
        self._stamps: Counter[str] = Counter()

    # Asking

    def ask(self, request: Request) -> None:
        """Decide about a new request; its outcome says how."""
        space = self._space(request.inode, request.kind)
        if request.kind == LockKind.FLOCK:
            self._drop_other_flock(space, request)
        if request.wanted.type == LockType.UNLOCK or self._is_free(space, request):
            self._grant(space, request)
        elif not request.wait:
            request.outcome = LockOutcome.CONFLICT
        elif request.kind == LockKind.POSIX and self._waits.deadlocks(request):
            request.outcome = LockOutcome.DEADLOCK
        elif self._waits.count(request.owner.session) >= self._session_max:
            request.outcome = LockOutcome.NO_LOCKS
        else:
            space.queue[request] = None
            self._waits.add(request)
            self._granted.append(request)  # not so, but it makes circles in the same way
        self._settle((request.inode, request.kind))

    def cancel(self, request: Request) -> None:
        """Nobody waits for this any more; what was granted stays."""
        if request.outcome == LockOutcome.WAITING:
            self._end(request, LockOutcome.CANCELLED)
            self._settle((request.inode, request.kind))

    def blocker(self, request: Request) -> tuple[Owner, Range] | None:
        """Who holds what `request` wants."""
        space = self._spaces.get((request.inode, request.kind), Space())
        return next(space.holders_in_the_way(request.owner, request.wanted), None)

    # Sessions

    def restore(self, session: str, held: Iterable[Lock], stamp: int) -> None:
        """What a client held under an earlier metad; stamps of its session go on from `stamp`."""
        for lock in held:
            owner, key = Owner(session, lock.owner), (lock.inode, lock.kind)
            space = self._space(*key)
            self._hold(key, space, owner, changed(space.held.get(owner, ()), lock.range))
        self._stamps[session] = stamp

    def end_session(self, session: str) -> None:
        """Release everything of a session, and let the next ones go on."""
        keys: dict[_Key, None] = {}
        for request in self._waits.of_session(session):
            keys[request.inode, request.kind] = None
            self._end(request, LockOutcome.CANCELLED)
        for key, owner in list(self._holds.get(session, ())):
            keys[key] = None
            self._hold(key, self._spaces[key], owner, [])
        for key in keys:
            self._settle(key)
        self._holds.pop(session, None)
        del self._counts[session], self._stamps[session]

    @property
    def held_count(self) -> int:
        """Locked ranges of all sessions."""
        return self._counts.total()

    def holders(self, inode: int) -> list[tuple[LockKind, Owner, Range]]:
        """For people: every lock on an inode."""
        return [
            (kind, owner, held)
            for kind in LockKind
            for owner, ranges in self._spaces.get((inode, kind), Space()).held.items()
            for held in ranges
        ]

    def waiting(self, inode: int) -> list[Request]:
        """For people: who waits for a lock on an inode."""
        return [
            request
            for kind in LockKind
            for request in self._spaces.get((inode, kind), Space()).queue
        ]

    # Deciding

    def _is_free(self, space: Space, request: Request) -> bool:
        if self._is_held(space, request):
            return False
        return not (request.wait and self._must_queue(space, request, {}))

    @staticmethod
    def _is_held(space: Space, request: Request) -> bool:
        return any(space.holders_in_the_way(request.owner, request.wanted))

    def _must_queue(self, space: Space, request: Request, reached: _Reached) -> bool:
        """Is there an earlier one that does not itself wait for who asks?"""
        names = {request.process, process_of(request.owner, 0)}
        for earlier in space.waiters_in_the_way(request):
            if earlier not in reached:
                reached[earlier] = self._waits.reached_by(earlier)
            if names.isdisjoint(reached[earlier]):
                return True
        return False

    def _may_go(self, space: Space, request: Request, reached: _Reached) -> bool:
        self._unfair.pop(request, None)
        if self._is_held(space, request):
            return False
        if self._must_queue(space, request, reached):
            self._unfair[request] = None
            return False
        return True

    def _settle(self, key: _Key) -> None:
        """Grant what can be granted after a change of this space, and whatever follows from it."""
        self._grant_waiting(key)
        while self._granted:
            request = self._granted.pop()
            for other in self._waits.of_owner(request.owner):
                if self._waits.deadlocks(other):
                    self._end(other, LockOutcome.DEADLOCK)
                    self._grant_waiting((other.inode, other.kind))
            if self._unfair:
                reached = self._waits.reached_from(request.process)
                for waiting in [each for each in self._unfair if each.process in reached]:
                    self._grant_waiting((waiting.inode, waiting.kind))
        space = self._spaces.get(key)
        if space is not None and space.is_empty:
            del self._spaces[key]

    def _grant_waiting(self, key: _Key) -> None:
        space = self._space(*key)
        progress = True
        while progress:
            progress = False
            reached: _Reached = {}
            for request in list(space.queue):
                if self._may_go(space, request, reached):
                    self._leave(request)
                    self._grant(space, request)
                    self._tell(request)
                    reached.clear()
                    progress = True

    def _grant(self, space: Space, request: Request) -> None:
        owner = request.owner
        before = space.held.get(owner, [])
        after = changed(before, request.wanted)
        grows = len(after) > len(before)
        if grows and self._counts[owner.session] + len(after) - len(before) > self._session_max:
            request.outcome = LockOutcome.NO_LOCKS
            return
        self._hold((request.inode, request.kind), space, owner, after)
        request.outcome, request.stamp = LockOutcome.GRANTED, self._stamps[owner.session]
        self._granted.append(request)

    def _drop_other_flock(self, space: Space, request: Request) -> None:
        """Conversion is not atomic: "the existing lock is first removed"."""
        held = space.held.get(request.owner)
        if held and held[0].type != request.wanted.type:
            self._hold((request.inode, request.kind), space, request.owner, [])
            request.stamp = self._stamps[request.owner.session]

    # Books

    def _space(self, inode: int, kind: LockKind) -> Space:
        return self._spaces.setdefault((inode, kind), Space())

    def _hold(self, key: _Key, space: Space, owner: Owner, ranges: list[Range]) -> None:
        """`ranges` is what the owner holds from now on."""
        before = space.held.pop(owner, [])
        self._counts[owner.session] += len(ranges) - len(before)
        self._stamps[owner.session] += 1
        if ranges:
            space.held[owner] = ranges
            self._holds[owner.session][key, owner] = None
        else:
            self._holds[owner.session].pop((key, owner), None)

    def _leave(self, request: Request) -> None:
        del self._space(request.inode, request.kind).queue[request]
        self._waits.remove(request)
        self._unfair.pop(request, None)

    def _end(self, request: Request, outcome: LockOutcome) -> None:
        self._leave(request)
        request.outcome = outcome
        self._tell(request)
