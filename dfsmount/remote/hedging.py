"""Ask one after the other, and a second one when the first is slow: the first answer wins.

`ChunkClient.read` uses it for replicas.  It promises that every attempt has ended when it returns.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

import trio

from dfswire.errors import DFSError

P = TypeVar("P")
A = TypeVar("A")


async def first_answer(
    attempt: Callable[[P], Awaitable[A]],
    places: Sequence[P],
    patience_s: float,
    hedges: trio.Semaphore,
    on_hedge: Callable[[], None] = lambda: None,
) -> tuple[A | None, list[DFSError]]:
    """The first answer of `attempt(place)`, or None; and the errors met, in order of time.

    The next place is asked when one fails, and once, if `hedges` allows, when nothing has come for
    `patience_s`; `on_hedge` is told.
    """
    if len(places) == 1:
        try:
            return await attempt(places[0]), []
        except DFSError as problem:
            return None, [problem]
    race = _Race(attempt, places)
    async with trio.open_nursery() as nursery:
        race.start_next(nursery)
        with trio.move_on_after(patience_s):
            await race.news()
        if race.is_silent and _acquire(hedges):
            on_hedge()
            race.start_next(nursery)
            try:
                await race.finish(nursery)
            finally:
                hedges.release()
        await race.finish(nursery)
        nursery.cancel_scope.cancel()
    return race.answer, race.problems


def _acquire(hedges: trio.Semaphore) -> bool:
    try:
        hedges.acquire_nowait()
    except trio.WouldBlock:
        return False
    return True


class _Race(Generic[P, A]):
    """The state of one `first_answer`."""

    def __init__(self, attempt: Callable[[P], Awaitable[A]], places: Sequence[P]) -> None:
        self._attempt = attempt
        self._places = list(places)
        self._running = 0
        self._news = trio.Event()
        self.answer: A | None = None
        self.problems: list[DFSError] = []

    @property
    def is_silent(self) -> bool:
        return self.answer is None and not self.problems

    def start_next(self, nursery: trio.Nursery) -> None:
        self._running += 1
        nursery.start_soon(self._run, self._places.pop(0))

    async def news(self) -> None:
        """Wait until an attempt has ended since the last call."""
        await self._news.wait()
        self._news = trio.Event()

    async def finish(self, nursery: trio.Nursery) -> None:
        """Until there is an answer, or no place is left to ask."""
        while self.answer is None and (self._running or self._places):
            if not self._running:
                self.start_next(nursery)
            await self.news()

    async def _run(self, place: P) -> None:
        try:
            answer = await self._attempt(place)
        except DFSError as problem:
            self.problems.append(problem)
        else:
            self.answer = answer
        finally:
            self._running -= 1
            self._news.set()
