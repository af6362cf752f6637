"""Requests for locks that nobody waits for any more, while metad refuses or forgets."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from dfsmount.locks.holdings import key_of
from dfsmount.locks.requests import LockRequests
from dfswire.errors import DFSError, NoSpace, SessionLost
from dfswire.locks import (
    Lock,
    LockAnswer,
    LockKind,
    LockOutcome,
    LockType,
    Range,
)
from tests.t2_dfsmount.fakes_meta import FakeMetad, Recorder, client

ExpectLog = Callable[[str], None]
WANTED = Lock(inode=7, kind=LockKind.POSIX, owner=1, range=Range(type=LockType.WRITE))


class Bench:
    """A client, and a metad whose answers are `outcomes`, call by call."""

    def __init__(self, metad: FakeMetad, requests: LockRequests, session: str) -> None:
        self.metad, self.requests, self.session = metad, requests, session
        self.stamp = 0
        for call in ("lock.set", "lock.cancel"):
            self.will(call, LockOutcome.GRANTED)

    def will(self, call: str, *outcomes: LockOutcome | DFSError) -> None:
        """The next answers to this call; the last one again and again."""
        coming = list(outcomes)

        def answer(_request: object) -> LockAnswer:
            outcome = coming.pop(0) if len(coming) > 1 else coming[0]
            if isinstance(outcome, SessionLost):
                self.metad.end_session()
            if isinstance(outcome, DFSError):
                raise outcome
            granted = outcome == LockOutcome.GRANTED
            self.stamp += granted
            return LockAnswer(outcome=outcome, stamp=self.stamp if granted else 0)

        self.metad.answers[call] = answer

    async def ask_for_a_second(self) -> None:
        """Ask, and give up."""
        with trio.move_on_after(1):
            await self.requests.ask(self.session, WANTED, wait=True)

    def asked(self, call: str) -> int:
        return self.metad.calls.count(call)


@asynccontextmanager
async def running() -> AsyncIterator[Bench]:
    async with trio.open_nursery() as nursery:
        metad, session, meta = await client(nursery=nursery)
        nursery.start_soon(session.run, Recorder())
        await wait_all_tasks_blocked()
        yield Bench(metad, LockRequests(meta, session, nursery), await session.current())
        nursery.cancel_scope.cancel()


def silence(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests for locks get there; their answers do not come."""
    answered = bench.metad.call

    async def call(name: str, *arguments: Any, **options: Any) -> Any:
        if name == "lock.set":
            await trio.sleep_forever()
        return await answered(name, *arguments, **options)

    monkeypatch.setattr(bench.metad, "call", call)


async def test_cancelling_goes_on_in_the_background(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running() as bench:
        silence(bench, monkeypatch)
        bench.will("lock.cancel", NoSpace("now"), NoSpace("still"), LockOutcome.CANCELLED)
        await bench.ask_for_a_second()
        assert bench.asked("lock.cancel") >= 1 and bench.requests.held().unanswered == [1]
        await trio.sleep(10)
        assert bench.asked("lock.cancel") == 3
        assert bench.requests.held().unanswered == [] and not bench.requests.held().held


async def test_the_end_of_the_session_cancels_it(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, expect_log: ExpectLog
) -> None:
    expect_log("metad ended this client's session")
    async with running() as bench:
        silence(bench, monkeypatch)
        bench.will("lock.cancel", NoSpace("now"), SessionLost("gone"))
        await bench.ask_for_a_second()
        await trio.sleep(10)
        assert bench.asked("lock.cancel") == 2
        assert bench.requests.held().unanswered == []


async def test_the_end_of_the_session_unlocks(
    autojump_clock: MockClock, expect_log: ExpectLog
) -> None:
    expect_log("metad ended this client's session")
    async with running() as bench:
        assert await bench.requests.ask(bench.session, WANTED, wait=False) == LockOutcome.GRANTED
        bench.will("lock.set", SessionLost("gone"))
        await bench.requests.unlock(key_of(WANTED), Range(type=LockType.UNLOCK))
        assert bench.asked("lock.set") == 2
