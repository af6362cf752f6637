"""Leases: who may write when, recalls in every order, and that no void grant is believed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import cast

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from dfsmount.attrcache import AttrCache
from dfsmount.idleleases import IDLE_MAX, IDLE_S
from dfsmount.leasereturns import SHARED_S
from dfsmount.leases import ALL_PARTS, WRITE_PARTS, Leases
from dfsmount.metaclient import MetaClient
from dfsmount.mutations import Mutations
from dfsmount.session import Session
from dfswire.client import Client
from dfswire.errors import InputOutput, NoEntry, Unavailable, UnknownChunk
from dfswire.locks import HeldLocks
from dfswire.messages import Invalidation, Lease, Part
from dfswire.operations import Batch, BatchReply, Commit, Create, Fault, OpResult, SetAttr
from tests.t2_dfsmount.fakes_meta import LEASE_S, RENEW_S, FakeMetad, attr
from tests.t2_dfsmount.test_session import INTRODUCTION

COMMIT = Commit(inode=7, extents=[], size=1, mtime_ns=1)
CREATE = Create(parent=1, name=b"f", mode=0o100644, uid=0, gid=0, lease=WRITE_PARTS)


class Contents:
    """What is dirty, and the order in which it was asked for."""

    def __init__(self) -> None:
        self.dirty: set[int] = set()
        self.heard: list[tuple[str, int]] = []
        self.kernel = trio.Event()  # it answers
        self.kernel.set()
        self.stored = trio.Event()  # storing succeeds
        self.stored.set()
        self.commit: Callable[[], object] | None = None

    async def write_back(self, inode: int) -> None:
        self.heard.append(("write back", inode))
        await self.kernel.wait()

    async def store(self, inode: int) -> None:
        self.heard.append(("store", inode))
        await self.stored.wait()
        self.dirty.discard(inode)

    def is_dirty(self, inode: int) -> bool:
        return inode in self.dirty


class Listener:
    def __init__(self, leases: Leases) -> None:
        self._leases = leases

    async def invalidate(self, invalidations: list[Invalidation]) -> None: ...

    async def drop_all(self) -> None: ...

    def open_inodes(self) -> list[int]:
        return []

    def held_locks(self) -> HeldLocks:
        return HeldLocks()

    def recall(self, leases: list[Lease]) -> None:
        for lease in leases:
            self._leases.recall(lease)

    def leases_in_use(self) -> list[Lease]:
        return self._leases.keep_used()

    def stream_opened(self) -> None:
        self._leases.stream_opened()

    async def session_lost(self) -> None:
        self._leases.lost()


class World:
    def __init__(self, nursery: trio.Nursery, soft_s: float | None) -> None:
        self.metad = FakeMetad()
        self.session = Session(cast(Client, self.metad), "metad:1", INTRODUCTION)
        self.meta = MetaClient(cast(Client, self.metad), self.session, soft_timeout_s=soft_s)
        self.attrs = AttrCache(lambda: True)
        self.leases = Leases(self.meta, self.session, self.attrs, nursery, hard=soft_s is None)
        self.leases.returns.contents = self.contents = Contents()
        self.mutations = Mutations(self.meta, self.attrs, self.leases)

    def takes(self) -> int:
        return self.metad.calls.count("lease.take")

    async def write(self, inode: int = 7) -> bool:
        """One write; whether it had to be committed at once."""
        writing = self.leases.writing(inode)
        async with writing:
            self.contents.dirty.add(inode)
        return writing.through

    async def refused(self) -> None:
        with pytest.raises(NoEntry):
            await self.write()

    async def commit(self) -> None:
        """All that is dirty."""
        await self.mutations.submit(COMMIT, ends_lease=True)

    async def recall(self, *leases: Lease) -> None:
        await self.metad.push(recalls=leases)
        await wait_all_tasks_blocked()


@asynccontextmanager
async def running(soft_s: float | None = None) -> AsyncIterator[World]:
    async with trio.open_nursery() as nursery:
        world = World(nursery, soft_s)
        await world.session.open()
        nursery.start_soon(world.session.run, Listener(world.leases))
        nursery.start_soon(world.leases.returns.run)
        await wait_all_tasks_blocked()
        yield world
        nursery.cancel_scope.cancel()


def ending(lease: Lease) -> Commit:
    return Commit(inode=7, extents=[], size=1, mtime_ns=1, give_back=lease)


def granting(world: World, inode: int = 7) -> Lease:
    """The next batch grants a lease."""
    lease = world.metad.lease(inode)
    results = [OpResult(attrs=[attr(inode)], lease=lease)]
    world.metad.answers["meta.batch"] = lambda _batch: BatchReply(results=results)
    return lease


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


# Recalls


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
        world.metad.take_gate = trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(world.write)
            await wait_all_tasks_blocked()
            await world.recall(Lease(inode=7, parts=WRITE_PARTS, number=1))
            assert world.metad.given_back == []
            world.metad.take_gate.set()
        await wait_all_tasks_blocked()
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
        world.metad.take_gate = trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(world.refused)
            await wait_all_tasks_blocked()
            await world.recall(Lease(inode=7, parts=WRITE_PARTS, number=5))
            assert world.metad.given_back == []
            world.metad.take_gate.set()
        await wait_all_tasks_blocked()
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


# The end of a lease


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
        world.metad.take_gate = trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(world.write)
            await wait_all_tasks_blocked()
            world.metad.break_stream()
            await trio.sleep(1)
            assert world.metad.followed[-1].leases == []
            world.metad.take_gate.set()
        await wait_all_tasks_blocked()
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
