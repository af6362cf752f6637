"""Mutations: effects are applied in the order of execution, and only for what was committed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from dfswire.errors import NoSpace, SessionLost
from dfswire.messages import ROOT_INODE
from dfswire.metadata import LeaseReply
from dfswire.operations import Create, SetAttr, Unlink
from metad.names import chunkmap
from metad.names.effects import Effects
from metad.storage.database import Database
from tests.t2_metad.metad_for_tests import FakeClient, Metad


class SlowDatabase:
    """Executes at once and reports success later, in whatever order the test likes: the tasks of
    one group commit wake up in no particular order."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self.waiting: list[trio.Event] = []
        self.problem: Exception | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._db, name)

    async def write(self, work: Callable[[], Any]) -> Any:
        if self.problem is not None:
            work()
            problem, self.problem = self.problem, None
            raise problem
        result = await self._db.write(work)
        released = trio.Event()
        self.waiting.append(released)
        await released.wait()
        return result

    def release(self, position: int) -> None:
        self.waiting.pop(position).set()

    def release_all(self) -> None:
        """Writes can't be cancelled; a failing test would wait for them for ever."""
        for released in self.waiting:
            released.set()


async def two_clients(db: Any, nursery: trio.Nursery) -> tuple[Metad, FakeClient, FakeClient]:
    metad = Metad(db, nursery)
    await metad.start(background=False)
    return (
        metad,
        await FakeClient(metad, nursery).open(),
        await FakeClient(metad, nursery).open(),
    )


async def test_a_file_created_and_unlinked_in_one_group_stays_for_its_creator(
    db: Database, nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    metad, one, other = await two_clients(db, nursery)
    slow = SlowDatabase(db)
    object.__setattr__(metad.service.state, "db", slow)
    nursery.start_soon(one.make, b"f")
    await wait_all_tasks_blocked()

    async def unlink() -> None:
        await other.do(Unlink(parent=ROOT_INODE, name=b"f"))

    nursery.start_soon(unlink)
    await wait_all_tasks_blocked()
    try:
        slow.release(1)  # the second to be executed wakes first
        await wait_all_tasks_blocked()
        (inode,) = chunkmap.orphans(db)
        assert one.told_of(inode), "its creator may have opened it"
    finally:
        slow.release_all()
    await wait_all_tasks_blocked()
    await metad.service.reclaimer.run_once()
    assert chunkmap.orphans(db) == [inode]
    metad.crash()


async def test_a_batch_whose_commit_failed_may_be_sent_again(
    db: Database, nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    metad, one, other = await two_clients(db, nursery)
    inode = await one.make(b"f")
    await other.lookup(b"f")

    class FailingDatabase(SlowDatabase):
        """The work runs, then its transaction is undone."""

        async def write(self, work: Callable[[], Any]) -> Any:
            def fail() -> None:
                work()
                if self.problem is not None:
                    problem, self.problem = self.problem, None
                    raise problem

            return await self._db.write(fail)

    failing = FailingDatabase(db)
    failing.problem = NoSpace("full")
    object.__setattr__(metad.service.state, "db", failing)
    batch = one.batch(SetAttr(inode=inode, mode=0o600))
    with pytest.raises(NoSpace):
        await one.send(batch)
    assert (await other.getattr(inode)).mode & 0o777 == 0o644
    told = len(other.told)
    (result,) = await one.send(batch)
    assert result.attrs[0].mode & 0o777 == 0o600
    assert len(other.told) > told, "it has asked since it was told of the first"
    metad.crash()


async def test_a_cancelled_caller_does_not_prevent_the_announcement(
    db: Database, nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    metad, one, other = await two_clients(db, nursery)
    inode = await one.make(b"f")
    await other.lookup(b"f")
    slow = SlowDatabase(db)
    object.__setattr__(metad.service.state, "db", slow)
    batch = one.batch(SetAttr(inode=inode, mode=0o600))
    with trio.CancelScope() as scope:
        nursery.start_soon(release_soon, slow, scope)
        await metad.service.mutations.execute(batch)
    assert scope.cancelled_caught
    await wait_all_tasks_blocked()
    assert other.told_of(inode)
    metad.crash()


async def release_soon(slow: SlowDatabase, scope: trio.CancelScope) -> None:
    await wait_all_tasks_blocked()
    scope.cancel()
    await wait_all_tasks_blocked()
    slow.release(0)


async def test_answers_are_not_kept_for_ever(
    db: Database, nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    metad, one, other = await two_clients(db, nursery)
    inode = await one.make(b"f")
    await other.getattr(inode)
    await one.do(SetAttr(inode=inode, mode=0o600))
    other.silent = True  # and is asked, after the execution, whether it has the file open
    mutations = metad.service.mutations
    with trio.CancelScope() as scope:
        nursery.start_soon(cancel_soon, scope)
        await mutations.execute(one.batch(Unlink(parent=ROOT_INODE, name=b"f")))
    assert list(mutations._under_way[one.session]) == [3]
    create = Create(parent=ROOT_INODE, name=b"g", mode=0o100644, uid=0, gid=0)
    nursery.start_soon(one.send, one.batch(create, acknowledged=3))
    await wait_all_tasks_blocked()
    assert 3 not in mutations._under_way[one.session]
    await metad.service.clients.end(one.session)
    assert one.session not in mutations._under_way
    metad.crash()
    nursery.cancel_scope.cancel()


async def cancel_soon(scope: trio.CancelScope) -> None:
    await wait_all_tasks_blocked()
    scope.cancel()


async def test_a_batch_that_waits_to_be_executed_ends_with_its_session(
    db: Database, nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    """Its row in the database goes later, but others may have its leases by now."""
    metad, one, other = await two_clients(db, nursery)
    inode = await one.make(b"f")

    class LateDatabase(SlowDatabase):
        """Other works are executed first."""

        async def write(self, work: Callable[[], Any]) -> Any:
            released = trio.Event()
            self.waiting.append(released)
            await released.wait()
            return await self._db.write(work)

    late = LateDatabase(db)
    object.__setattr__(metad.service.state, "db", late)
    problems: list[SessionLost] = []

    async def change() -> None:
        try:
            await one.do(SetAttr(inode=inode, mode=0o600))
        except SessionLost as problem:
            problems.append(problem)

    nursery.start_soon(change)
    await wait_all_tasks_blocked()
    nursery.start_soon(metad.service.clients.end, one.session)
    await wait_all_tasks_blocked()
    late.release_all()
    await wait_all_tasks_blocked()
    assert problems
    assert (await other.getattr(inode)).mode & 0o777 == 0o644
    metad.crash()


async def taking(client: FakeClient, inode: int, nursery: trio.Nursery) -> list[LeaseReply]:
    """Ask for the inode's lease; its answer is put here."""
    answers: list[LeaseReply] = []

    async def take() -> None:
        answers.append(await client.take(inode))

    nursery.start_soon(take)
    await wait_all_tasks_blocked()
    return answers


async def test_what_is_executed_is_leased_when_it_is_announced_and_at_once(
    db: Database, nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    metad, one, other = await two_clients(db, nursery)
    inode = await one.make(b"f")
    slow = SlowDatabase(db)
    object.__setattr__(metad.service.state, "db", slow)
    nursery.start_soon(one.do, SetAttr(inode=inode, mode=0o600))
    await wait_all_tasks_blocked()
    answers = await taking(other, inode, nursery)
    try:
        assert not answers, "what it says may not be so: the commit may fail"
    finally:
        slow.release_all()
    await wait_all_tasks_blocked()
    assert answers and answers[0].attr.mode & 0o777 == 0o600
    metad.crash()


async def test_what_metad_rewrites_is_leased_to_nobody_meanwhile(
    db: Database, nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    metad, one, other = await two_clients(db, nursery)
    inode = await one.make(b"f")

    def work(now_ns: int, effects: Effects) -> bool:
        effects.data(inode)
        return True

    slow = SlowDatabase(db)
    object.__setattr__(metad.service.state, "db", slow)
    slow.problem = NoSpace("full")
    with pytest.raises(NoSpace):
        await metad.service.mutations.rewrite(inode, work)
    assert not metad.service.state.leases.changes, "it did not happen"
    nursery.start_soon(metad.service.mutations.rewrite, inode, work)
    await wait_all_tasks_blocked()
    answers = await taking(other, inode, nursery)
    try:
        assert not answers
    finally:
        slow.release_all()
    await wait_all_tasks_blocked()
    assert answers
    metad.crash()
