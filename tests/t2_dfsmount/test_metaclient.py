"""Batches gather, are repeated until answered, and execute once."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from dfsmount.remote.batches import BATCHES_IN_FLIGHT_MAX
from dfsmount.remote.metaclient import MetaClient
from dfswire.batches import Batch, BatchReply, OpResult
from dfswire.errors import NoEntry, SessionLost, Unavailable
from dfswire.messages import Fault
from dfswire.metadata import LookupReply
from dfswire.operations import AnyOperation, Release
from tests.t2_dfsmount.fakes_meta import FakeMetad, Recorder, client


async def test_one_operation_goes_at_once(autojump_clock: MockClock) -> None:
    metad, _, meta = await client()
    await meta.submit(Release(inode=5))
    assert [batch.operations for batch in metad.batches] == [[Release(inode=5)]]
    assert metad.batches[0].sequence == 1


async def test_operations_gather_while_batches_are_under_way(autojump_clock: MockClock) -> None:
    metad, _, meta = await client()
    metad.gate = trio.Event()
    async with trio.open_nursery() as nursery:
        for inode in range(1, 101):
            nursery.start_soon(meta.submit, Release(inode=inode))
        await trio.testing.wait_all_tasks_blocked()
        assert len(metad.batches) == BATCHES_IN_FLIGHT_MAX
        metad.gate.set()
    assert len(metad.batches) == BATCHES_IN_FLIGHT_MAX + 1
    sent = sorted(
        operation.inode
        for batch in metad.batches
        for operation in batch.operations
        if isinstance(operation, Release)
    )
    assert sent == list(range(1, 101))
    await meta.submit(Release(inode=101))
    assert metad.batches[-1].acknowledged == BATCHES_IN_FLIGHT_MAX + 1


async def test_a_lost_reply_is_asked_for_again_under_the_same_number(
    autojump_clock: MockClock,
) -> None:
    metad, _, meta = await client()
    metad.lose_replies = 3
    await meta.submit(Release(inode=5))
    assert [batch.sequence for batch in metad.batches] == [1, 1, 1, 1]
    assert len(metad.executed) == 1


async def test_a_fault_is_raised_to_its_own_caller_only(autojump_clock: MockClock) -> None:
    metad, _, meta = await client()

    def answer(batch: Batch) -> BatchReply:
        return BatchReply(
            results=[
                OpResult(fault=Fault(code="no_entry", message="gone"))
                if operation == Release(inode=50)
                else OpResult()
                for operation in batch.operations
            ]
        )

    metad.answers["meta.batch"] = answer
    failed = []

    async def one(inode: int) -> None:
        try:
            await meta.submit(Release(inode=inode))
        except NoEntry:
            failed.append(inode)

    async with trio.open_nursery() as nursery:
        for inode in range(1, 101):
            nursery.start_soon(one, inode)
    assert failed == [50]


async def test_a_hard_mount_waits_and_a_soft_one_gives_up(autojump_clock: MockClock) -> None:
    metad, _, soft = await client(soft_timeout_s=30)
    metad.away = True
    began = trio.current_time()
    with pytest.raises(Unavailable):
        await soft.submit(Release(inode=5))
    assert 30 <= trio.current_time() - began < 40

    metad, _, hard = await client()
    metad.away = True
    async with trio.open_nursery() as nursery:
        nursery.start_soon(hard.submit, Release(inode=5))
        await trio.sleep(3600)
        metad.away = False
    assert len(metad.executed) == 1


async def test_a_lost_session_fails_mutations_and_repeats_questions(
    autojump_clock: MockClock, expect_log: Any
) -> None:
    expect_log("metad ended this client's session")
    metad, session, meta = await client()
    metad.answers["meta.lookup"] = lambda _request: LookupReply(attr=None)
    metad.end_session()
    with pytest.raises(SessionLost):
        await meta.submit(Release(inode=5))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(session.run, Recorder())
        assert await meta.lookup(1, b"a") is None
        await meta.submit(Release(inode=5))
        nursery.cancel_scope.cancel()


async def test_those_who_wait_go_on_when_the_leaders_are_cancelled(
    autojump_clock: MockClock,
) -> None:
    metad, _, meta = await client()
    metad.gate = trio.Event()
    async with trio.open_nursery() as waiting:
        async with trio.open_nursery() as leaders:
            for inode in range(BATCHES_IN_FLIGHT_MAX):
                leaders.start_soon(meta.submit, Release(inode=inode + 1))
            await trio.testing.wait_all_tasks_blocked()
            waiting.start_soon(meta.submit, Release(inode=99))
            await trio.testing.wait_all_tasks_blocked()
            leaders.cancel_scope.cancel()
        metad.gate.set()
    assert len(metad.executed) == BATCHES_IN_FLIGHT_MAX + 1


async def test_operations_of_others_survive_their_carrier(autojump_clock: MockClock) -> None:
    """A process is killed while its task carries a batch with operations of other processes."""
    async with trio.open_nursery() as background:
        metad, _, meta = await client(nursery=background)
        metad.gate = trio.Event()
        results: list[OpResult] = []

        async def submit(inode: int) -> None:
            results.append(await meta.submit(Release(inode=inode)))

        async with trio.open_nursery() as first:
            for inode in range(BATCHES_IN_FLIGHT_MAX):
                first.start_soon(meta.submit, Release(inode=inode + 1))
            await trio.testing.wait_all_tasks_blocked()
            async with trio.open_nursery() as others:
                scope = trio.CancelScope()
                others.start_soon(cancellable, scope, meta, 50)
                await trio.testing.wait_all_tasks_blocked()
                others.start_soon(submit, 51)
                others.start_soon(submit, 52)
                await trio.testing.wait_all_tasks_blocked()
                gate, metad.gate = metad.gate, trio.Event()
                gate.set()  # the first four are answered: 50 carries the rest
                await trio.testing.wait_all_tasks_blocked()
                assert len(metad.batches[-1].operations) == 3
                scope.cancel()
                landed = trio.Event()
                background.start_soon(tell_landed, meta, landed)
                await trio.testing.wait_all_tasks_blocked()
                assert results == []
                assert not landed.is_set()
                metad.gate.set()
        await landed.wait()
    assert results == [OpResult(), OpResult()]
    assert metad.batches[-1] == metad.batches[-2]  # sent again, under its number
    assert len(metad.executed) == BATCHES_IN_FLIGHT_MAX + 1


async def cancellable(scope: trio.CancelScope, meta: MetaClient, inode: int) -> None:
    with scope:
        await meta.submit(Release(inode=inode))


async def tell_landed(meta: MetaClient, landed: trio.Event) -> None:
    await meta.landed()
    landed.set()


@asynccontextmanager
async def two_that_wait() -> AsyncIterator[tuple[FakeMetad, trio.CancelScope]]:
    """Releases of 50 (in the scope) and 51 wait for a batch to end, and 50 would lead the next."""
    async with trio.open_nursery() as background:
        metad, _, meta = await client(nursery=background)
        metad.gate = trio.Event()
        async with trio.open_nursery() as nursery:
            for inode in range(BATCHES_IN_FLIGHT_MAX):
                nursery.start_soon(meta.submit, Release(inode=inode + 1))
            await trio.testing.wait_all_tasks_blocked()
            scope = trio.CancelScope()
            nursery.start_soon(cancellable, scope, meta, 50)
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(meta.submit, Release(inode=51))
            await trio.testing.wait_all_tasks_blocked()
            yield metad, scope


def sent(metad: FakeMetad) -> list[AnyOperation]:
    return [operation for batch in metad.batches for operation in batch.operations]


async def test_an_operation_that_was_not_sent_is_taken_back(autojump_clock: MockClock) -> None:
    async with two_that_wait() as (metad, scope):
        scope.cancel()
        await trio.testing.wait_all_tasks_blocked()
        metad.gate.set()
    assert Release(inode=50) not in sent(metad)
    assert Release(inode=51) in sent(metad)  # somebody else leads


async def test_a_leader_that_is_cancelled_as_it_wakes_passes_that_on(
    autojump_clock: MockClock,
) -> None:
    async with two_that_wait() as (metad, scope):
        metad.gate.set()
        scope.cancel()  # before anybody runs
    assert Release(inode=51) in sent(metad)


def leased(batch: Batch) -> BatchReply:
    """Whatever does not want to wait is refused."""
    fault = Fault(code="leased") if batch.no_wait else None
    return BatchReply(results=[OpResult(fault=fault) for _ in batch.operations])


async def test_what_must_wait_for_a_lease_waits_alone(autojump_clock: MockClock) -> None:
    metad, _, meta = await client()
    metad.answers["meta.batch"] = leased
    async with trio.open_nursery() as nursery:
        for inode in range(1, 101):
            nursery.start_soon(meta.submit, Release(inode=inode))
    waited = [batch for batch in metad.batches if not batch.no_wait]
    assert sorted(len(batch.operations) for batch in waited) == [1] * 100
    await meta.submit(Release(inode=101))
    assert metad.batches[-1].acknowledged == metad.batches[-1].sequence - 1


async def test_those_who_wait_for_a_lease_hold_up_nobody(autojump_clock: MockClock) -> None:
    """What the other client waits for, perhaps, is among the others."""
    metad, _, meta = await client()

    def answer(batch: Batch) -> BatchReply:
        if not batch.no_wait:
            metad.gate = trio.Event()
        return leased(batch)

    metad.answers["meta.batch"] = answer
    async with trio.open_nursery() as nursery:
        for inode in range(2 * BATCHES_IN_FLIGHT_MAX):
            nursery.start_soon(meta.submit, Release(inode=inode + 1))
        await trio.testing.wait_all_tasks_blocked()
        assert sum(not batch.no_wait for batch in metad.batches) >= BATCHES_IN_FLIGHT_MAX
        nursery.start_soon(meta.submit, Release(inode=50))
        await trio.testing.wait_all_tasks_blocked()
        assert metad.batches[-1].operations == [Release(inode=50)]
        nursery.cancel_scope.cancel()


async def test_a_session_that_ends_meanwhile_ends_the_wait(
    autojump_clock: MockClock, expect_log: Callable[[str], None]
) -> None:
    expect_log("ended this client's session")
    metad, session, meta = await client()

    def refuse(batch: Batch) -> BatchReply:
        session.lost(batch.session)
        return leased(batch)

    metad.answers["meta.batch"] = refuse
    async with trio.open_nursery() as nursery:
        nursery.start_soon(fails_with_session_lost, meta)
        await trio.testing.wait_all_tasks_blocked()
        await session.open()
    assert len(metad.batches) == 1, "under another session it would be another operation"


async def fails_with_session_lost(meta: MetaClient) -> None:
    with pytest.raises(SessionLost):
        await meta.submit(Release(inode=5))
