"""Who waits for whom, over all inodes and sessions: deadlocks, and fairness that would make one.

Pure.  A request waits for holders, which is hard: only they can end it.  It also waits for requests
that came earlier and exclude it, which is mere fairness, so that readers who come and go do not
starve a writer.  A circle of hard waits among owners of POSIX locks is a deadlock (EDEADLK).  A
circle that holds together by fairness alone is nobody's mistake: there the fairness is given up.
To find those the nodes are processes, since one process may own several flocks.

Neither sees everything: who waits for a process that waits for a pipe is not known here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from dfswire.locks import LockKind
from metad.locks.space import Owner, Process, Request, Space, process_of

K = TypeVar("K")


class Waits:
    """All requests that wait.  `space_of` gives the space of a request."""

    def __init__(self, space_of: Callable[[Request], Space]) -> None:
        self._space_of = space_of
        self._by_owner: dict[Owner, dict[Request, None]] = {}
        self._by_process: dict[Process, dict[Request, None]] = {}
        self._by_session: dict[str, dict[Request, None]] = {}

    def add(self, request: Request) -> None:
        self._by_session.setdefault(request.owner.session, {})[request] = None
        self._by_process.setdefault(request.process, {})[request] = None
        if request.kind == LockKind.POSIX:
            self._by_owner.setdefault(request.owner, {})[request] = None

    def remove(self, request: Request) -> None:
        _remove(self._by_session, request.owner.session, request)
        _remove(self._by_process, request.process, request)
        if request.kind == LockKind.POSIX:
            _remove(self._by_owner, request.owner, request)

    def of_session(self, session: str) -> list[Request]:
        return list(self._by_session.get(session, ()))

    def count(self, session: str) -> int:
        return len(self._by_session.get(session, ()))

    def of_owner(self, owner: Owner) -> list[Request]:
        """Its requests for POSIX locks; threads of one process can make several."""
        return list(self._by_owner.get(owner, ()))

    def deadlocks(self, request: Request) -> bool:
        """Does one of those whom `request` waits for wait, by whatever detours, for its owner?"""
        seen: set[Owner] = set()
        todo = self._owners_in_the_way(request)
        while todo:
            owner = todo.pop()
            if owner == request.owner:
                return True
            if owner not in seen:
                seen.add(owner)
                for waiting in self._by_owner.get(owner, ()):
                    todo += self._owners_in_the_way(waiting)
        return False

    def reached_by(self, request: Request) -> set[Process]:
        """All for whom `request` waits, by whatever detours; holders under both their names."""
        return self._reached(self._processes_in_the_way(request))

    def reached_from(self, process: Process) -> set[Process]:
        """All processes that `process` waits for, by whatever detours."""
        return self._reached([process])

    def _reached(self, begin: Iterable[Process]) -> set[Process]:
        seen: set[Process] = set()
        todo = list(begin)
        while todo:
            process = todo.pop()
            if process not in seen:
                seen.add(process)
                for waiting in self._by_process.get(process, ()):
                    todo += self._processes_in_the_way(waiting)
        return seen

    def _owners_in_the_way(self, request: Request) -> list[Owner]:
        space = self._space_of(request)
        return [owner for owner, _ in space.holders_in_the_way(request.owner, request.wanted)]

    def _processes_in_the_way(self, request: Request) -> Iterator[Process]:
        space = self._space_of(request)
        for owner, held in space.holders_in_the_way(request.owner, request.wanted):
            yield process_of(owner, held.pid)
            yield process_of(owner, 0)  # forked processes share open files and what these own
        for earlier in space.waiters_in_the_way(request):
            yield earlier.process


def _remove(index: dict[K, dict[Request, None]], key: K, request: Request) -> None:
    of_key = index[key]
    del of_key[request]
    if not of_key:
        del index[key]
