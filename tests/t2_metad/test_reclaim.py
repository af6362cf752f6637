"""Reclaim: deletes are ordered in time, from the right servers, and only of what is dead."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from dfswire.errors import NoSpace
from dfswire.messages import ROOT_INODE
from dfswire.metadata import GrantRequest, SessionRequest
from dfswire.operations import Unlink
from metad.copies import replicas
from metad.hosts.orders import OrderQueue
from metad.hosts.servers import Servers
from metad.names import chunkmap
from metad.storage.database import Database
from metad.upkeep.reclaim import ReclaimLimits, plan_deletes
from tests.t2_metad.machines_for_tests import GIB, disk, heartbeat, register
from tests.t2_metad.metad_for_tests import FakeClient, FakeServer, Metad

ONE, TWO = b"1" * 16, b"2" * 16
LIMITS = ReclaimLimits(grace_s=3600.0, gone_after_s=600.0)


def test_only_servers_that_are_up_are_told_to_delete() -> None:
    servers = Servers("c", OrderQueue(1))
    servers.register(register("up"), 1000.0)
    servers.register(register("suspect"), 995.0)
    servers.register(register("down"), 980.0)
    plan = plan_deletes([(ONE, ["up-d", "suspect-d", "down-d"])], servers, 1000.0, LIMITS)
    assert (plan.orders, plan.forget) == ([(ONE, "up-d")], [])


def test_who_is_gone_for_long_is_not_waited_for() -> None:
    servers = Servers("c", OrderQueue(1))
    servers.register(register("long"), 0.0)
    servers.register(register("broken"), 1000.0)
    servers.heartbeat(heartbeat("broken", disks=[disk("broken-d", failed=True)]), 1000.0)
    dead = [(ONE, ["long-d", "broken-d", "unknown-d"]), (TWO, [])]
    plan = plan_deletes(dead, servers, 1000.0, LIMITS)
    assert (plan.orders, plan.forget) == ([], [ONE, TWO])
    plan = plan_deletes(dead, servers, 609.0, LIMITS)
    assert plan.forget == [TWO]


@dataclass
class Cluster:
    metad: Metad
    client: FakeClient
    servers: list[FakeServer]

    async def pass_time(self, clock: MockClock, seconds: float, step_s: float = 2.0) -> None:
        """Everybody stays alive meanwhile."""
        for _ in range(int(seconds / step_s)):
            clock.jump(step_s)
            for server in self.servers:
                await server.beat()
            await self.metad.call("session.renew", SessionRequest(session=self.client.session))
            await wait_all_tasks_blocked()

    def state(self, chunk: bytes) -> str | None:
        stored = replicas.chunk_info(self.metad.db, chunk)
        return stored.state if stored else None


@pytest.fixture
async def pair(
    db: Database, nursery: trio.Nursery, mock_clock: MockClock
) -> AsyncIterator[Cluster]:
    metad = Metad(
        db,
        nursery,
        reclaim_grace_s=20.0,
        restore_window_s=0.0,
        grant_expiry_s=10.0,
        gone_after_s=30.0,
    )
    await metad.start()
    servers = [await FakeServer(metad, name).register() for name in ("s1", "s2")]
    yield Cluster(metad, await FakeClient(metad, nursery).open(), servers)
    metad.crash()


async def test_the_chunks_of_a_deleted_file_go_after_the_grace(
    pair: Cluster, mock_clock: MockClock
) -> None:
    written = await pair.client.store(await pair.client.make(b"f"))
    await pair.client.do(Unlink(parent=ROOT_INODE, name=b"f"))
    await wait_all_tasks_blocked()
    assert pair.state(written.chunk) == "dead"
    await pair.pass_time(mock_clock, 18)
    assert [server.orders for server in pair.servers] == [[], []]
    await pair.pass_time(mock_clock, 4)
    one, other = pair.servers
    assert [[each.kind for each in server.orders] for server in pair.servers] == [["delete"]] * 2
    await one.obey()
    assert pair.state(written.chunk) == "dead", "the other may still have it"
    await other.obey(ok=False)
    await pair.pass_time(mock_clock, 4)
    assert [each.kind for each in other.orders] == ["delete"], "a failed one is ordered again"
    await other.obey()
    assert pair.state(written.chunk) is None


async def test_a_server_that_does_not_come_back_is_not_waited_for(
    pair: Cluster, mock_clock: MockClock
) -> None:
    written = await pair.client.store(await pair.client.make(b"f"))
    await pair.client.do(Unlink(parent=ROOT_INODE, name=b"f"))
    pair.servers.pop()
    await pair.pass_time(mock_clock, 24)
    await pair.servers[0].obey()
    assert pair.state(written.chunk) == "dead"
    await pair.pass_time(mock_clock, 20)
    assert pair.state(written.chunk) is None


async def test_an_uncommitted_grant_expires(pair: Cluster, mock_clock: MockClock) -> None:
    request = GrantRequest(session=pair.client.session, count=1)
    (grant,) = (await pair.metad.call("meta.grant", request)).grants
    await pair.pass_time(mock_clock, 8)
    assert pair.state(grant.chunk) == "granted"
    await pair.pass_time(mock_clock, 4)
    assert pair.state(grant.chunk) == "dead"


async def test_many_orphans_are_purged_in_portions(pair: Cluster, mock_clock: MockClock) -> None:
    for number in range(3):
        await pair.client.make(b"f%d" % number)
    for number in range(3):
        await pair.client.do(Unlink(parent=ROOT_INODE, name=b"f%d" % number))
    await wait_all_tasks_blocked()
    assert chunkmap.orphans(pair.metad.db) == []
    pair.metad.service.reclaimer.purge_soon([ROOT_INODE, 999])
    await wait_all_tasks_blocked()
    await pair.client.make(b"still works")


async def test_a_full_database_delays_reclaim_but_forgets_nothing(
    pair: Cluster,
    mock_clock: MockClock,
    monkeypatch: pytest.MonkeyPatch,
    expect_log: Callable[[str], None],
) -> None:
    expect_log("nothing can be reclaimed: full")
    inode = await pair.client.make(b"f")
    await pair.client.do(Unlink(parent=ROOT_INODE, name=b"f", held=True))

    async def full(work: object) -> None:
        raise NoSpace("full")

    with monkeypatch.context() as patched:
        patched.setattr(pair.metad.db, "write", full)
        pair.metad.service.reclaimer.purge_soon([inode])
        await wait_all_tasks_blocked()
    assert chunkmap.orphans(pair.metad.db) == [inode]
    await pair.pass_time(mock_clock, 2)
    assert chunkmap.orphans(pair.metad.db) == []


@pytest.fixture
async def windowed(
    db: Database, nursery: trio.Nursery, mock_clock: MockClock
) -> AsyncIterator[Cluster]:
    """Dead chunks stay for 60 s, and for 20 s on disks with less than a tenth of free space."""
    metad = Metad(db, nursery, reclaim_grace_s=20.0, restore_window_s=60.0)
    await metad.start()
    servers = [await FakeServer(metad, name).register() for name in ("s1", "s2")]
    yield Cluster(metad, await FakeClient(metad, nursery).open(), servers)
    metad.crash()


async def test_chunks_stay_as_long_as_a_restore_may_want_them(
    windowed: Cluster, mock_clock: MockClock
) -> None:
    await windowed.client.store(await windowed.client.make(b"f"))
    await windowed.client.do(Unlink(parent=ROOT_INODE, name=b"f"))
    await windowed.pass_time(mock_clock, 58)
    assert [server.orders for server in windowed.servers] == [[], []]
    await windowed.pass_time(mock_clock, 4)
    assert [[each.kind for each in server.orders] for server in windowed.servers] == [
        ["delete"],
        ["delete"],
    ]


async def test_where_room_is_short_they_go_earlier_and_an_event_says_so(
    windowed: Cluster, mock_clock: MockClock
) -> None:
    await windowed.client.store(await windowed.client.make(b"f"))
    await windowed.client.do(Unlink(parent=ROOT_INODE, name=b"f"))
    windowed.servers[0].free = 5 * GIB
    counts = windowed.metad.service.state.event_log.counts
    await windowed.pass_time(mock_clock, 18)
    assert [server.orders for server in windowed.servers] == [[], []]
    assert counts["reclaim.early"] == 0
    await windowed.pass_time(mock_clock, 4)
    assert [len(server.orders) for server in windowed.servers] == [1, 1]
    assert counts["reclaim.early"] == 1
    # Nothing that its disks have no need of.
    windowed.servers[0].free = 50 * GIB
    await windowed.client.store(await windowed.client.make(b"g"))
    await windowed.client.do(Unlink(parent=ROOT_INODE, name=b"g"))
    for server in windowed.servers:
        await server.obey()
    await windowed.pass_time(mock_clock, 30)
    assert [server.orders for server in windowed.servers] == [[], []]
