"""How leases end: with a commit, after a while without use, and tried again."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from dfsmount.leases.exclusive import ALL_PARTS
from dfsmount.leases.idle import IDLE_MAX, IDLE_S
from dfswire.batches import Batch, BatchReply, OpResult
from dfswire.errors import InputOutput, SessionLost, UnknownChunk
from dfswire.messages import Fault, Lease
from tests.t2_dfsmount.lease_client import COMMIT, CREATE, ending, granting, running


async def test_a_commit_ends_the_lease_that_came_with_the_file(autojump_clock: MockClock) -> None:
    async with running() as world:
        lease = granting(world)
        await world.mutations.submit(CREATE)
        await world.write()
        world.metad.gate = trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(world.commit)
            await wait_all_tasks_blocked()
            assert world.metad.batches[-1].operations == [ending(lease)]
            nursery.start_soon(world.write)
            await wait_all_tasks_blocked()
            assert world.takes() == 0
            world.metad.answers.clear()
            world.metad.gate.set()
        assert world.takes() == 1


@pytest.mark.parametrize("reason", ["taken", "writing", "soft", "asked not to"])
async def test_a_commit_that_does_not_end_it(autojump_clock: MockClock, reason: str) -> None:
    async with running(soft_s=3.0 if reason == "soft" else None) as world:
        if reason == "taken":
            await world.write()
        else:
            granting(world)
            await world.mutations.submit(CREATE)
        if reason == "writing":
            async with world.leases.writing(7):
                await world.mutations.submit(COMMIT, ends_lease=True)
        else:
            await world.mutations.submit(COMMIT, ends_lease=reason != "asked not to")
        assert world.metad.batches[-1].operations == [COMMIT]
        assert world.leases.covers(7)


async def test_the_commit_that_a_recall_asks_for_ends_the_lease(autojump_clock: MockClock) -> None:
    async with running() as world:
        await world.write()
        world.contents.stored = trio.Event()
        lease = Lease(inode=7, parts=ALL_PARTS, number=1)
        await world.recall(lease)
        await world.commit()
        assert world.metad.batches[-1].operations == [ending(lease)]
        world.contents.stored.set()
        await wait_all_tasks_blocked()
        assert world.metad.given_back == []
        await world.write()
        assert world.takes() == 2


@pytest.mark.parametrize("code", ["unknown_chunk", "input_output"])
async def test_a_commit_that_fails_leaves_nobody_in_doubt(
    autojump_clock: MockClock, code: str
) -> None:
    async with running() as world:
        lease = granting(world)
        await world.mutations.submit(CREATE)

        def refuse(_batch: Batch) -> BatchReply:
            return BatchReply(results=[OpResult(fault=Fault(code=code))])

        world.metad.answers["meta.batch"] = refuse
        with pytest.raises((InputOutput, UnknownChunk)):
            await world.commit()
        await wait_all_tasks_blocked()
        assert world.metad.given_back == [lease]
        await world.write()
        assert world.takes() == 1


async def test_leases_of_closed_files_go_after_a_while(autojump_clock: MockClock) -> None:
    async with running() as world:
        for inode in (7, 8, 9):
            await world.write(inode)
            world.leases.returns.closed(inode)
        await trio.sleep(IDLE_S / 2)
        await world.write(8)
        world.leases.returns.closed(10)
        await trio.sleep(IDLE_S)
        assert [each.inode for each in world.metad.given_back] == [7, 9]
        assert world.metad.calls.count("lease.give_back") == 1
        assert world.leases.covers(8)
        await world.write(7)
        assert world.takes() == 4


async def test_not_many_closed_files_stay_leased(autojump_clock: MockClock) -> None:
    async with running() as world:
        for inode in range(10, IDLE_MAX + 12):
            await world.write(inode)
            world.leases.returns.closed(inode)
        await wait_all_tasks_blocked()
        assert [each.inode for each in world.metad.given_back] == [10, 11]


@pytest.mark.parametrize("since_s", [0.9, 1.0, 1234.1])
async def test_an_idle_lease_is_given_back_whatever_the_rounding(
    autojump_clock: MockClock, since_s: float
) -> None:
    """0.9 + 1.0 - 1.0 is less than 0.9: it was looked at again and again, and never time."""
    async with running() as world:
        await trio.sleep_until(since_s)
        await world.write()
        world.contents.dirty.discard(7)
        world.leases.returns.closed(7)
        await trio.sleep(2 * IDLE_S)
        assert len(world.metad.given_back) == 1


async def test_with_the_session_a_lease_is_given_back_already(
    autojump_clock: MockClock, expect_log: Callable[[str], None]
) -> None:
    expect_log("metad ended this client's session")
    async with running() as world:
        await world.write()

        def gone(_request: object) -> object:
            world.metad.end_session()
            raise SessionLost("unknown")

        world.metad.answers["lease.give_back"] = gone
        world.leases.returns.closed(7)
        await trio.sleep(2 * IDLE_S)
        assert world.metad.calls.count("lease.give_back") == 1
        await world.write()
        assert world.takes() == 2


async def test_giving_back_is_tried_again(autojump_clock: MockClock) -> None:
    async with running(soft_s=1.0) as world:
        await world.write()
        world.metad.away = True
        world.leases.returns.closed(7)
        await trio.sleep(5)
        assert world.metad.given_back == []
        world.metad.away = False
        await trio.sleep(5)
        assert len(world.metad.given_back) == 1
