"""A database that cannot be written for a while: what metad does by itself goes on afterwards."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from dfswire.errors import NoSpace
from dfswire.jobs import JobsReply, JobsRequest
from dfswire.messages import ROOT_INODE, Extent
from dfswire.operations import Commit
from metad.copies import replicas
from metad.operators.moving import IDLE_S, Moving
from metad.storage.database import Database
from tests.t2_metad.metad_for_tests import FakeClient, FakeServer, Metad

ExpectLog = Callable[[str], None]
PIECES = 20


class Full:
    """Every write fails while `is_on`."""

    def __init__(self, db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
        self.is_on = True
        self.refused = 0
        self._write = db.write
        monkeypatch.setattr(db, "write", self.write)

    async def write(self, work: Callable[[], Any]) -> Any:
        if self.is_on:
            self.refused += 1
            await trio.lowlevel.checkpoint()
            raise NoSpace("the database is full")
        return await self._write(work)


@pytest.fixture
async def metad(db: Database, nursery: trio.Nursery, mock_clock: MockClock) -> AsyncIterator[Metad]:
    metad = Metad(db, nursery, compaction_interval_s=60.0, compaction_idle_s=1.0)
    await metad.start(background=False)
    yield metad
    metad.crash()


async def pass_time(clock: MockClock, seconds: float) -> None:
    clock.jump(seconds)
    await wait_all_tasks_blocked()


async def kinds(metad: Metad) -> set[str]:
    """Of the jobs that there are."""
    reply: JobsReply = await metad.call("job.list", JobsRequest())
    return {job.kind for job in reply.jobs}


async def test_compaction_begins_later(
    metad: Metad, nursery: trio.Nursery, mock_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = await FakeClient(metad, nursery).open()
    inode = await client.make(b"f")
    extents = [Extent(offset=10 * n, length=10, data=b"x" * 10) for n in range(PIECES)]
    await client.do(Commit(inode=inode, extents=extents, size=10 * PIECES, mtime_ns=1))
    full = Full(metad.db, monkeypatch)
    nursery.start_soon(metad.service.compactor.run_forever)
    await wait_all_tasks_blocked()
    await pass_time(mock_clock, 60)
    assert full.refused == 1 and await kinds(metad) == set()
    full.is_on = False
    await pass_time(mock_clock, 60)
    assert await kinds(metad) == {"compact"}


async def test_rebalancing_begins_later(
    metad: Metad, nursery: trio.Nursery, mock_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Moving, "_is_uneven", lambda *_arguments: True)
    full = Full(metad.db, monkeypatch)
    nursery.start_soon(metad.service.moving.run_forever)
    await wait_all_tasks_blocked()
    await pass_time(mock_clock, IDLE_S)
    assert full.refused == 1 and await kinds(metad) == set()
    full.is_on = False
    await pass_time(mock_clock, IDLE_S)
    assert await kinds(metad) == {"rebalance"}


async def test_policies_are_followed_later(
    metad: Metad, nursery: trio.Nursery, mock_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    with metad.db.transaction():
        metad.db.change("INSERT INTO converging VALUES (?, 0)", (ROOT_INODE,))
    full = Full(metad.db, monkeypatch)
    nursery.start_soon(metad.service.policy_calls.run_forever)
    await wait_all_tasks_blocked()
    await pass_time(mock_clock, 1)
    assert full.refused == 1 and await kinds(metad) == set()
    full.is_on = False
    await pass_time(mock_clock, 1)
    assert await kinds(metad) == {"policy"}


async def test_copies_that_are_too_many_go_later(
    metad: Metad,
    nursery: trio.Nursery,
    mock_clock: MockClock,
    monkeypatch: pytest.MonkeyPatch,
    expect_log: ExpectLog,
) -> None:
    expect_log("copies that are too many stay: the database is full")
    servers = [await FakeServer(metad, name).register() for name in ("s1", "s2", "s3")]
    client = await FakeClient(metad, nursery).open()
    chunk = (await client.store(await client.make(b"f"))).chunk
    with metad.db.transaction():
        for server in servers:
            replicas.set_replica(metad.db, chunk, server.disk, replicas.GOOD)
    for _ in range(40):
        mock_clock.jump(2.0)
        for server in servers:
            await server.beat()
    trimmer = metad.service.trimmer
    assert await trimmer.run_once() == 0
    for server in servers:
        await server.beat()
        await server.obey()  # those that shall stay are verified
    full = Full(metad.db, monkeypatch)
    nursery.start_soon(trimmer.run_forever)
    await wait_all_tasks_blocked()
    assert full.refused == 1
    full.is_on = False
    await pass_time(mock_clock, 1)
    assert sorted(dict(replicas.replicas_of(metad.db, chunk)).values()) == [
        replicas.EXCESS,
        replicas.GOOD,
        replicas.GOOD,
    ]


def test_a_new_term_waits_until_there_is_room(
    db: Database, monkeypatch: pytest.MonkeyPatch, expect_log: ExpectLog
) -> None:
    expect_log("cannot be written now: full")
    before = db.term

    def refuse(_recording: object) -> None:
        raise sqlite3.OperationalError("full")

    with monkeypatch.context() as patch:
        patch.setattr(db, "_claim_term", refuse)
        assert db.new_term().term == before
    with db.transaction():
        assert db.term > before, "before anything is written"
