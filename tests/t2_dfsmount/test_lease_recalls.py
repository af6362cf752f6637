"""Recalls of leases, in every order with what the client is doing."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from dfsmount.leases.exclusive import ALL_PARTS, WRITE_PARTS
from dfsmount.leases.idle import IDLE_S
from dfsmount.leases.returns import SHARED_S
from dfswire.errors import NoEntry
from dfswire.messages import Lease, Part
from tests.t2_dfsmount.lease_client import CREATE, granting, running


async def test_a_recall_is_obeyed_when_the_write_under_way_is_done(
    autojump_clock: MockClock,
) -> None:
    async with running() as world:
        lease = world.metad.lease_number + 1
        async with world.leases.writing(7):
            await world.recall(Lease(inode=7, parts=int(Part.ATTR), number=lease))
            assert world.contents.heard == [("write back", 7)]
            assert world.metad.given_back == []
            world.contents.dirty.add(7)
        await wait_all_tasks_blocked()
        assert world.contents.heard == [("write back", 7), ("store", 7)]
        assert world.metad.given_back == [Lease(inode=7, parts=ALL_PARTS, number=lease)]
        assert not world.leases.covers(7)


async def test_the_kernels_pages_may_be_written_while_a_recall_waits_for_the_kernel(
    autojump_clock: MockClock,
) -> None:
    async with running() as world:
        await world.write()
        world.contents.kernel = trio.Event()
        await world.recall(Lease(inode=7, parts=WRITE_PARTS, number=1))
        with trio.fail_after(1):
            await world.write()
        assert world.takes() == 1
        world.contents.kernel.set()
        await wait_all_tasks_blocked()
        assert len(world.metad.given_back) == 1


async def test_who_comes_while_a_recall_is_obeyed_waits_and_asks_again(
    autojump_clock: MockClock,
) -> None:
    async with running() as world:
        await world.write()
        world.contents.stored = trio.Event()
        await world.recall(Lease(inode=7, parts=WRITE_PARTS, number=1))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(world.write)
            await wait_all_tasks_blocked()
            assert world.takes() == 1
            world.contents.stored.set()
        assert world.takes() == 2
        assert [each.number for each in world.metad.given_back] == [1]
        assert world.leases.covers(7)


async def test_a_recall_that_overtakes_the_grant_is_obeyed_after_one_write(
    autojump_clock: MockClock,
) -> None:
    async with running() as world:
        async with world.grant_under_way(world.write):
            await world.recall(Lease(inode=7, parts=WRITE_PARTS, number=1))
            assert world.metad.given_back == []
        assert world.contents.heard == [("write back", 7), ("store", 7)]
        assert [each.number for each in world.metad.given_back] == [1]
        assert world.takes() == 1


async def test_a_recall_that_overtakes_the_result_of_a_mutation_is_answered_at_once(
    autojump_clock: MockClock,
) -> None:
    """That result may take its time: other clients must confirm what the mutation did."""
    async with running() as world:
        lease = granting(world)
        world.metad.gate = trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(world.mutations.submit, CREATE)
            await wait_all_tasks_blocked()
            await world.recall(lease)
            assert [each.number for each in world.metad.given_back] == [lease.number]
            world.metad.gate.set()
        await wait_all_tasks_blocked()
        assert not world.leases.covers(7)


async def test_a_recall_whose_grant_was_lost_is_answered(autojump_clock: MockClock) -> None:
    async with running() as world:

        def gone(_request: object) -> object:
            raise NoEntry("inode 7")

        world.metad.answers["lease.take"] = gone
        async with world.grant_under_way(world.refused):
            await world.recall(Lease(inode=7, parts=WRITE_PARTS, number=5))
            assert world.metad.given_back == []
        assert [each.number for each in world.metad.given_back] == [5]


async def test_a_recall_of_what_is_not_held_is_answered_and_an_old_one_is_not(
    autojump_clock: MockClock,
) -> None:
    async with running() as world:
        await world.recall(Lease(inode=8, parts=WRITE_PARTS, number=3))
        assert [each.number for each in world.metad.given_back] == [3]
        world.metad.lease_number = 10
        await world.write()
        await world.recall(Lease(inode=7, parts=WRITE_PARTS, number=9))
        assert world.leases.covers(7)


async def test_after_a_recall_the_file_counts_as_shared_for_a_while(
    autojump_clock: MockClock,
) -> None:
    async with running() as world:
        await world.write()
        await world.recall(Lease(inode=7, parts=WRITE_PARTS, number=1))
        assert await world.write()
        await trio.sleep(SHARED_S)
        assert not await world.write()
        await world.recall(Lease(inode=7, parts=WRITE_PARTS, number=2))
        world.leases.returns.closed(7)
        assert not await world.write(), "it was opened anew"


async def test_a_recall_of_a_lease_that_is_being_given_back(autojump_clock: MockClock) -> None:
    async with running() as world:
        await world.write()
        world.leases.returns.closed(7)
        world.contents.kernel = trio.Event()
        await world.recall(Lease(inode=7, parts=WRITE_PARTS, number=1))
        await trio.sleep(2 * IDLE_S)
        world.contents.kernel.set()
        await wait_all_tasks_blocked()
        assert [each.number for each in world.metad.given_back] == [1]
        await world.write()
        assert world.takes() == 2


@pytest.mark.parametrize("end", ["idle", "commit", "recall"])
async def test_a_newer_lease_that_is_recalled_while_the_old_one_ends(
    autojump_clock: MockClock, end: str
) -> None:
    """Of the newer one nothing is known yet but its recall: its grant is on its way."""
    async with running() as world:
        granting(world)
        await world.mutations.submit(CREATE)
        await world.write()
        async with trio.open_nursery() as nursery:
            world.metad.gate = world.metad.back_gate = trio.Event()
            if end == "commit":
                nursery.start_soon(world.commit)
            elif end == "recall":
                await world.recall(Lease(inode=7, parts=WRITE_PARTS, number=1))
            else:
                world.leases.returns.closed(7)
                await trio.sleep(2 * IDLE_S)
            await wait_all_tasks_blocked()
            await world.recall(Lease(inode=7, parts=WRITE_PARTS, number=9))
            world.metad.gate.set()
        await wait_all_tasks_blocked()
        assert 9 in [each.number for each in world.metad.given_back]
        assert not world.leases.covers(7)
