"""The two steps of forgetting, and answers that wait for the news that were sent before them."""

from __future__ import annotations

from typing import Any, cast

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from dfsmount.ports import Forgotten
from dfsmount.remote.metaclient import MetaClient
from dfsmount.remote.session import Session
from dfswire.client import Client
from dfswire.errors import NoEntry, Unavailable
from dfswire.messages import EventPosition, Invalidated, Invalidation
from dfswire.metadata import LookupReply
from tests.t2_dfsmount.fakes_meta import FakeMetad, running


def change(inode: int) -> Invalidation:
    return Invalidation(inode=inode, what=int(Invalidated.ATTR))


class Answers:
    """Lookups whose answers speak of news; what came of each, when it came."""

    def __init__(
        self, metad: FakeMetad, session: Session, told: EventPosition, soft_s: float | None = None
    ) -> None:
        self.came: list[str] = []
        self._meta = MetaClient(cast(Client, metad), session, soft_timeout_s=soft_s)
        self._told = told
        metad.answers["meta.lookup"] = self._answer

    def _answer(self, request: Any) -> LookupReply:
        if request.name == b"error":
            problem = NoEntry("gone")
            problem.told = self._told
            raise problem
        return LookupReply(told=self._told)

    async def ask(self, name: bytes) -> None:
        try:
            await self._meta.lookup(1, name)
        except NoEntry:
            self.came.append("refused")
        except Unavailable:
            self.came.append("given up")
        else:
            self.came.append("answered")


@pytest.mark.parametrize(("name", "came"), [(b"a", "answered"), (b"error", "refused")])
async def test_an_answer_does_not_overtake_the_news(
    autojump_clock: MockClock, nursery: trio.Nursery, name: bytes, came: str
) -> None:
    async with running() as (metad, session, listener):
        answers = Answers(metad, session, EventPosition(stream=session.stream.count, tick=1))
        nursery.start_soon(answers.ask, name)
        await wait_all_tasks_blocked()
        assert answers.came == []
        await metad.push(change(7))
        await wait_all_tasks_blocked()
        assert answers.came == [came]
        assert listener.heard[-1] == [change(7)]


async def test_an_answer_does_not_wait_for_the_kernel(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    """Which may wait for this very answer."""
    async with running() as (metad, session, listener):
        listener.blocked = trio.Event()
        await metad.push(change(7))
        await wait_all_tasks_blocked()
        answers = Answers(metad, session, EventPosition(stream=session.stream.count, tick=2))
        nursery.start_soon(answers.ask, b"a")
        await wait_all_tasks_blocked()
        assert answers.came == []
        await metad.push(change(8))
        await wait_all_tasks_blocked()
        assert answers.came == ["answered"]
        assert metad.acked == []


async def test_what_comes_while_the_kernel_is_busy_is_told_it_in_one_go(
    autojump_clock: MockClock,
) -> None:
    async with running() as (metad, _session, listener):
        listener.blocked = trio.Event()
        first = await metad.push(change(6))
        await wait_all_tasks_blocked()
        await metad.push(change(7))
        last = await metad.push(change(8), drop_all=True)
        await wait_all_tasks_blocked()
        listener.blocked.set()
        await wait_all_tasks_blocked()
        assert listener.told_kernel == [
            Forgotten({6: False}),
            Forgotten({7: False, 8: False}, everything=True),
        ]
        assert metad.acked == [first, last]


async def test_an_answer_of_an_earlier_stream_waits_for_nothing(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    """All that was cached then has been forgotten."""
    async with running() as (metad, session, _listener):
        answers = Answers(metad, session, EventPosition(stream=session.stream.count, tick=1))
        metad.break_stream()
        await trio.sleep(1)
        assert session.stream.is_open
        with trio.fail_after(60):
            await answers.ask(b"a")
        assert answers.came == ["answered"]


async def test_who_waits_for_news_goes_on_when_the_stream_breaks(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    async with running() as (metad, session, _listener):
        answers = Answers(metad, session, EventPosition(stream=session.stream.count, tick=1))
        nursery.start_soon(answers.ask, b"a")
        await wait_all_tasks_blocked()
        assert answers.came == []
        metad.break_stream()
        await trio.sleep(1)
        assert answers.came == ["answered"]


async def test_a_soft_mount_does_not_wait_for_ever_for_news(autojump_clock: MockClock) -> None:
    async with running() as (metad, session, _listener):
        told = EventPosition(stream=session.stream.count, tick=1)
        answers = Answers(metad, session, told, soft_s=2.0)
        began = trio.current_time()
        await answers.ask(b"a")
        assert answers.came == ["given up"]
        assert trio.current_time() == began + 2.0


async def test_an_acknowledgement_that_fails_breaks_the_stream(autojump_clock: MockClock) -> None:
    async with running() as (metad, session, listener):
        before = session.stream.count

        def fail(_request: object) -> object:
            del metad.answers["session.ack"]
            raise Unavailable("lost")

        metad.answers["session.ack"] = fail
        await metad.push(change(7))
        await trio.sleep(1)
        assert session.stream.count == before + 1
        assert listener.heard[-2:] == ["drop", "drop"]
        assert session.stream.is_open


async def test_every_stream_has_a_new_number_and_the_name_of_this_metad(
    autojump_clock: MockClock,
) -> None:
    """A restarted one is asked for its name."""
    async with running() as (metad, session, _listener):
        metad.break_stream()
        await trio.sleep(1)
        metad.instance = "second"
        metad.break_stream()
        await trio.sleep(1)
        assert session.stream.is_open
        assert [(each.instance, each.number) for each in metad.followed] == [
            ("first", 1),
            ("first", 2),
            ("first", 3),
            ("second", 4),
        ]
