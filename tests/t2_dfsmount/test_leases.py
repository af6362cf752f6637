"""Leases: who may write when, and that no void grant is believed."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from dfsmount.leases.exclusive import WRITE_PARTS
from dfsmount.leases.idle import IDLE_S
from dfswire.errors import NoEntry, Unavailable
from dfswire.messages import Lease
from dfswire.operations import SetAttr
from tests.t2_dfsmount.fakes_meta import LEASE_S, RENEW_S, attr
from tests.t2_dfsmount.lease_client import CREATE, granting, running

# Writing


async def test_the_first_write_asks_for_the_lease_and_those_after_it_do_not(
    autojump_clock: MockClock,
) -> None:
    async with running() as world:
        assert not world.leases.covers(7)
        assert not await world.write()
        assert not await world.write()
        assert world.takes() == 1
        assert world.leases.covers(7) and not world.leases.covers(8)
        assert world.attrs.attr(7) == attr(7)


async def test_those_who_write_at_once_ask_once(autojump_clock: MockClock) -> None:
    async with running() as world:
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(world.write)
        assert world.takes() == 1


async def test_an_inode_that_is_gone(autojump_clock: MockClock) -> None:
    async with running() as world:

        def gone(_request: object) -> object:
            raise NoEntry("inode 7")

        world.metad.answers["lease.take"] = gone
        with pytest.raises(NoEntry):
            await world.write()
        del world.metad.answers["lease.take"]
        await world.write()


async def test_a_lease_that_comes_with_a_new_file(autojump_clock: MockClock) -> None:
    async with running() as world:
        lease = granting(world)
        await world.mutations.submit(CREATE)
        assert not await world.write()
        assert world.takes() == 0
        assert world.leases.wanted(7) == 0 and world.leases.wanted(8) == WRITE_PARTS
        world.metad.break_stream()
        await trio.sleep(1)
        assert world.metad.followed[-1].leases == [lease]


async def test_writing_waits_while_metad_may_take_this_client_for_dead(
    autojump_clock: MockClock, expect_log: Callable[[str], None]
) -> None:
    expect_log("the lease ended")
    async with running() as world:
        await world.write()
        world.metad.away = True
        await trio.sleep(LEASE_S)
        with trio.move_on_after(LEASE_S) as patience:
            await world.write()
        assert patience.cancelled_caught
        world.metad.away = False
        with trio.fail_after(RENEW_S):
            await world.write()


async def test_a_write_that_lasts_longer_than_that_is_committed_before_it_returns(
    autojump_clock: MockClock, expect_log: Callable[[str], None]
) -> None:
    expect_log("the lease ended")
    async with running() as world:
        writing = world.leases.writing(7)
        async with writing:
            world.metad.away = True
            await trio.sleep(LEASE_S + 1)
        assert writing.through


async def test_a_soft_mount_does_not_wait_for_ever(
    autojump_clock: MockClock, expect_log: Callable[[str], None]
) -> None:
    expect_log("the lease ended")
    async with running(soft_s=3.0) as world:
        await world.write()
        world.metad.away = True
        await trio.sleep(LEASE_S)
        with pytest.raises(Unavailable):
            await world.write()


async def test_a_soft_mount_does_not_wait_for_ever_for_a_lease_on_its_way_back(
    autojump_clock: MockClock,
) -> None:
    """While metad is away it cannot be given back, and until then nobody writes."""
    async with running(soft_s=1.0) as world:
        await world.write()
        world.contents.dirty.discard(7)
        world.metad.away = True
        world.leases.returns.closed(7)
        await trio.sleep(1.1 * IDLE_S)
        with trio.fail_after(10), pytest.raises(Unavailable):
            await world.write()
        world.metad.away = False
        await world.write()


# The stream and the session


async def test_what_is_not_in_use_ends_with_the_stream(autojump_clock: MockClock) -> None:
    async with running() as world:
        for inode in (7, 8):
            await world.write(inode)
        world.contents.dirty.discard(8)
        async with world.leases.writing(9):
            world.metad.break_stream()
            await trio.sleep(1)
            assert [each.inode for each in world.metad.followed[-1].leases] == [7, 9]
        assert not world.leases.covers(8)
        await world.write(7)
        assert world.takes() == 3
        await world.write(8)
        assert world.takes() == 4


async def test_a_grant_from_before_the_stream_was_opened_anew_is_void(
    autojump_clock: MockClock,
) -> None:
    async with running() as world:
        async with world.grant_under_way(world.write):
            world.metad.break_stream()
            await trio.sleep(1)
            assert world.metad.followed[-1].leases == []
        assert world.takes() == 2
        assert [each.number for each in world.metad.given_back] == [1]


async def test_a_grant_while_the_stream_is_away_is_void(autojump_clock: MockClock) -> None:
    async with running() as world:
        lease = granting(world)
        world.metad.has_streams = False
        world.metad.break_stream()
        await trio.sleep(1)
        await world.mutations.submit(CREATE)
        world.metad.has_streams = True
        await trio.sleep(1)
        assert not world.leases.covers(7)
        assert world.metad.given_back == [lease]


async def test_a_grant_that_was_asked_for_before_the_lease_ended_is_void(
    autojump_clock: MockClock,
) -> None:
    async with running() as world:
        await world.write()
        lease = granting(world)
        world.metad.gate = trio.Event()
        truncate = SetAttr(inode=7, size=0, lease=WRITE_PARTS)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(world.mutations.submit, truncate)
            await wait_all_tasks_blocked()
            world.contents.dirty.clear()
            await world.recall(Lease(inode=7, parts=WRITE_PARTS, number=1))
            assert not world.leases.covers(7)
            world.metad.gate.set()
        await wait_all_tasks_blocked()
        assert not world.leases.covers(7)
        assert lease in world.metad.given_back


async def test_of_two_grants_the_newer_counts(autojump_clock: MockClock) -> None:
    async with running() as world:
        granting(world)
        world.metad.gate = trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(world.mutations.submit, CREATE)
            await wait_all_tasks_blocked()
            await world.write()
            world.metad.gate.set()
        world.metad.break_stream()
        await trio.sleep(1)
        assert [each.number for each in world.metad.followed[-1].leases] == [2]


async def test_a_lost_session_ends_all_leases(
    autojump_clock: MockClock, expect_log: Callable[[str], None]
) -> None:
    expect_log("metad ended this client's session")
    async with running() as world:
        writing = world.leases.writing(7)
        async with writing:
            world.metad.end_session()
            await trio.sleep(RENEW_S)
            assert not world.leases.covers(7)
        assert writing.through
        assert world.metad.followed[-1].leases == []
        await world.write()
        assert world.takes() == 2


async def test_a_session_that_is_lost_while_a_lease_is_asked_for(
    autojump_clock: MockClock, expect_log: Callable[[str], None]
) -> None:
    expect_log("metad ended this client's session")
    async with running() as world:
        world.metad.sessions += 100
        with trio.fail_after(RENEW_S):
            await world.write()
        assert world.leases.covers(7)
