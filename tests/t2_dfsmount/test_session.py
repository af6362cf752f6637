"""The session: lease, event stream, reconnection; all under a virtual clock."""

from __future__ import annotations

from typing import Any, cast

import pytest
import trio
from trio.testing import MockClock

from dfsmount.remote.leaseclock import LeaseClock, suspended_s
from dfsmount.remote.session import AWAKE_CHECK_EVERY_S, Session
from dfswire.client import Client
from dfswire.errors import SessionLost, Unavailable
from dfswire.messages import Invalidated, Invalidation
from dfswire.metadata import Renewed, RenewSession
from tests.t2_dfsmount.fakes_meta import (
    INTRODUCTION,
    LEASE_S,
    RENEW_S,
    FakeMetad,
    running,
)

CHANGE = Invalidation(inode=7, what=int(Invalidated.ATTR))
OPENED = ["drop", "drop"]  # before a stream is asked for, and when it is open


async def test_caches_are_valid_once_the_stream_is_open(autojump_clock: MockClock) -> None:
    async with running() as (metad, session, listener):
        assert session.lease_left_s() > 0
        assert listener.heard == OPENED
        assert metad.followed[0].open_inodes == [7, 9]
        assert metad.followed[0].locks.number == 3
        assert metad.followed[0].leases == listener.leases
        assert listener.opened == 1


async def test_an_event_is_acknowledged_only_after_it_was_obeyed(
    autojump_clock: MockClock,
) -> None:
    async with running() as (metad, _session, listener):
        listener.blocked = trio.Event()
        number = await metad.push(CHANGE)
        await trio.testing.wait_all_tasks_blocked()
        assert metad.acked == []
        listener.blocked.set()
        await trio.testing.wait_all_tasks_blocked()
        assert listener.heard[-1] == [CHANGE]
        assert metad.acked == [number]


async def test_a_recall_is_passed_on_and_does_not_hold_up_an_acknowledgement(
    autojump_clock: MockClock,
) -> None:
    async with running() as (metad, _session, listener):
        number = await metad.push(CHANGE, recalls=listener.leases)
        await trio.testing.wait_all_tasks_blocked()
        assert listener.heard[-2:] == [listener.leases, [CHANGE]]
        assert metad.acked == [number]
        await metad.push(recalls=listener.leases)
        await trio.testing.wait_all_tasks_blocked()
        assert listener.heard[-1] == listener.leases


async def test_who_may_be_taken_for_dead_waits_until_he_was_heard(
    autojump_clock: MockClock, expect_log: Any
) -> None:
    expect_log("the lease ended")
    async with running() as (metad, session, _listener):
        await session.heard()
        metad.away = True
        await trio.sleep(LEASE_S)
        assert session.contact_left_s() == 0
        with trio.move_on_after(LEASE_S) as patience:
            await session.heard()
        assert patience.cancelled_caught
        metad.away = False
        with trio.fail_after(RENEW_S):
            await session.heard()
        assert session.contact_left_s() > 0


async def test_the_lease_is_renewed_in_time(autojump_clock: MockClock) -> None:
    async with running() as (_metad, session, listener):
        await trio.sleep(10 * LEASE_S)
        assert session.lease_left_s() > LEASE_S - 2 * RENEW_S
        assert listener.heard == OPENED


async def test_a_session_that_is_gone_is_noticed_by_renewing_it(
    autojump_clock: MockClock, expect_log: Any
) -> None:
    """Though the stream, of another connection, goes on."""
    expect_log("metad ended this client's session")
    async with running() as (metad, session, listener):
        before = await session.current()

        def gone(request: RenewSession) -> object:
            if request.session == before:
                raise SessionLost("unknown")
            return Renewed(instance=metad.instance)

        metad.answers["session.renew"] = gone
        await trio.sleep(2 * RENEW_S)
        assert await session.current() != before
        assert "lost" in listener.heard


async def test_everything_is_dropped_when_the_lease_ends(
    autojump_clock: MockClock, expect_log: Any
) -> None:
    expect_log("the lease ended")
    async with running() as (metad, session, listener):
        began = trio.current_time()
        metad.away = True
        await listener.news.wait()
        assert listener.heard == [*OPENED, "drop"]
        assert trio.current_time() - began <= LEASE_S
        assert session.lease_left_s() == 0
        metad.away = False
        await trio.sleep(RENEW_S)
        assert session.lease_left_s() > 0


async def test_a_lease_does_not_outlast_a_sleep_of_the_host(
    autojump_clock: MockClock, expect_log: Any
) -> None:
    """trio's clock stands still meanwhile, and so does every timer."""
    expect_log("this host was suspended for 3600 s")
    expect_log("the lease ended")
    slept_s = 100.0  # since the host was booted
    async with running(LeaseClock(lambda: slept_s)) as (metad, session, listener):
        metad.away = True
        assert session.lease_left_s() > LEASE_S - RENEW_S
        slept_s += 3600
        assert session.lease_left_s() == 0
        began = trio.current_time()
        await listener.news.wait()
        assert listener.heard == [*OPENED, "drop"]
        assert trio.current_time() - began <= AWAKE_CHECK_EVERY_S
        metad.away = False
        await trio.sleep(RENEW_S)
        assert session.lease_left_s() > 0


async def test_an_answer_that_waited_while_the_host_slept_renews_nothing(
    autojump_clock: MockClock, expect_log: Any
) -> None:
    expect_log("this host was suspended for 25 s")
    expect_log("the lease ended")
    slept_s = 0.0
    async with running(LeaseClock(lambda: slept_s)) as (metad, session, _listener):
        answered = trio.Event()

        def sleep(_request: object) -> Renewed:
            nonlocal slept_s
            slept_s += 25
            answered.set()
            del metad.answers["session.renew"]
            return Renewed(instance=metad.instance)

        metad.answers["session.renew"] = sleep
        await answered.wait()
        await trio.testing.wait_all_tasks_blocked()
        assert session.lease_left_s() == 0
        await trio.sleep(RENEW_S)
        assert session.lease_left_s() > 0


def test_a_host_that_has_not_slept_yet() -> None:
    readings = iter([7.0, 7.01, 6.99, 7.02, 9.0, 8.99])
    clock = LeaseClock(lambda: next(readings))
    assert [clock.slept_s() for _ in range(5)] == [0, 0, 0, 2, 2]
    assert suspended_s() >= -0.001


async def test_a_broken_stream_drops_everything_and_is_opened_again(
    autojump_clock: MockClock,
) -> None:
    async with running() as (metad, session, listener):
        metad.break_stream()
        await listener.news.wait()
        assert session.lease_left_s() == 0
        await trio.sleep(1)
        assert len(metad.followed) == 2
        assert session.lease_left_s() > 0
        assert listener.heard == OPENED + OPENED


async def test_a_lost_session_is_replaced(autojump_clock: MockClock, expect_log: Any) -> None:
    expect_log("metad ended this client's session")
    async with running() as (metad, session, listener):
        metad.end_session()
        await trio.sleep(RENEW_S)
        assert "lost" in listener.heard
        assert await session.current() == metad.session
        assert session.lease_left_s() > 0


async def test_acknowledged_sequences(autojump_clock: MockClock) -> None:
    async with running() as (_metad, session, _listener):
        name, first = await session.begin()
        _, second = await session.begin()
        session.finish(name, second)
        assert session.acknowledged == first - 1
        session.finish(name, first)
        assert session.acknowledged == second


@pytest.mark.parametrize("away", [False, True])
async def test_closing(autojump_clock: MockClock, away: bool) -> None:
    metad, given_back = FakeMetad(), trio.Event()
    session = Session(cast(Client, metad), "metad:1", INTRODUCTION, closed=given_back.set)
    await session.open()
    metad.away = away
    await session.close()
    assert session.grant is None
    assert given_back.is_set() == (not away)
    assert metad.calls[-1] == "session.close"


def answer_as_stranger(metad: FakeMetad) -> None:
    """A metad that was started without its database: it knows no session of this cluster."""
    metad.cluster_id = "d"
    metad.sessions += 100
    metad.break_stream()


async def test_the_metad_of_another_cluster_ends_no_session(
    autojump_clock: MockClock, expect_log: Any
) -> None:
    expect_log("this metad is of cluster d; waiting for the right one")
    expect_log("the lease ended")
    async with running() as (metad, session, listener):
        before = await session.current()
        answer_as_stranger(metad)
        await trio.sleep(60)
        assert session.lease_left_s() == 0
        metad.cluster_id = "c"
        metad.sessions -= 100
        await trio.sleep(RENEW_S)
        assert await session.current() == before
        assert session.lease_left_s() > 0
        assert "lost" not in listener.heard


async def test_nobody_knows_at_once_whether_the_session_has_ended(
    autojump_clock: MockClock, expect_log: Any
) -> None:
    expect_log("metad ended this client's session")
    async with running() as (metad, session, _listener):
        before = await session.current()

        def away(_request: object) -> object:
            del metad.answers["session.renew"]
            raise Unavailable("away")

        metad.answers["session.renew"] = away
        metad.sessions += 1
        assert await session.has_ended("an earlier one")
        assert session.grant is not None
        assert await session.has_ended(before)


async def test_the_metad_of_another_cluster_opens_no_session(
    autojump_clock: MockClock, expect_log: Any
) -> None:
    """What it shows is not what programs have open here."""
    expect_log("metad ended this client's session")
    expect_log("this metad is of cluster d; waiting for the right one")
    async with running() as (metad, session, _listener):
        assert metad.introductions[-1].cluster_id == ""
        session.lost(await session.current())
        answer_as_stranger(metad)
        await trio.sleep(60)
        assert session.grant is None and session.lease_left_s() == 0
        metad.cluster_id = "c"
        await trio.sleep(RENEW_S)
        assert metad.introductions[-1].cluster_id == "c"
        assert session.lease_left_s() > 0
