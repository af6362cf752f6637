"""The repairer restores redundancy, with servers that answer as chunkds do."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from dfswire.messages import ROOT_INODE
from dfswire.operations import Unlink
from metad.copies import replicas
from metad.storage.database import Database
from tests.t2_metad.metad_for_tests import FakeClient, FakeServer, Metad


@dataclass
class Cluster:
    metad: Metad
    client: FakeClient
    servers: list[FakeServer]

    def states(self, chunk_id: bytes) -> dict[str, str]:
        return dict(replicas.replicas_of(self.metad.db, chunk_id))

    async def orders(self) -> dict[str, str]:
        """Disk -> kind of the order that the next heartbeat of its server brings."""
        for server in self.servers:
            await server.beat()
        return {order.disk: order.kind for server in self.servers for order in server.orders}


@pytest.fixture
async def three(
    db: Database, nursery: trio.Nursery, mock_clock: MockClock
) -> AsyncIterator[Cluster]:
    metad = Metad(db, nursery)
    await metad.start()
    servers = [await FakeServer(metad, name).register() for name in ("s1", "s2", "s3")]
    yield Cluster(metad, await FakeClient(metad, nursery, "host-s1").open(), servers)
    metad.crash()


async def stored(three: Cluster) -> tuple[bytes, FakeServer, FakeServer, FakeServer]:
    """A chunk on two servers: its id, these two, and the third."""
    written = await three.client.store(await three.client.make(b"f"))
    by_disk = {server.disk: server for server in three.servers}
    first, second = (by_disk.pop(each) for each in written.disks)
    (third,) = by_disk.values()
    return written.chunk, first, second, third


async def copying(three: Cluster) -> tuple[bytes, FakeServer, FakeServer, FakeServer]:
    """A chunk that is missing on one server: its id, who has it, who shall copy it, the third."""
    chunk_id, first, second, third = await stored(three)
    await second.report(chunk_id, "missing")
    await wait_all_tasks_blocked()
    await three.orders()
    return chunk_id, first, *((second, third) if second.orders else (third, second))


async def test_a_bad_replica_is_replaced_at_once(three: Cluster, mock_clock: MockClock) -> None:
    chunk_id, _, second, third = await stored(three)
    await second.report(chunk_id, "bad")
    await wait_all_tasks_blocked()
    orders = await three.orders()
    destination = next(each for each in three.servers if orders.get(each.disk) == "copy")
    assert destination in (second, third)
    await destination.obey()
    assert sorted(three.states(chunk_id).values()) == ["good", "good"], "the bad row is gone"


async def test_a_dead_server_is_replaced_after_its_time(
    three: Cluster, mock_clock: MockClock
) -> None:
    chunk_id, first, second, third = await stored(three)
    three.servers.remove(second)
    for silent_s in range(2, 44, 2):
        mock_clock.jump(2.0)
        await wait_all_tasks_blocked()
        for server in (first, third):
            await server.beat()
        assert bool(third.orders) == (silent_s >= 8 + 30), silent_s
        if third.orders:
            break
    (order,) = third.orders
    assert (order.kind, order.chunk, order.length) == ("copy", chunk_id, 1000)
    assert [each.disk for each in order.sources] == [first.disk]
    await third.obey()
    assert three.states(chunk_id) == dict.fromkeys((first.disk, second.disk, third.disk), "good"), (
        "one too many when it comes back does no harm"
    )


async def test_a_failed_disk_is_replaced_at_once(three: Cluster, mock_clock: MockClock) -> None:
    chunk_id, _, second, third = await stored(three)
    second.failed = True
    await second.beat()
    await wait_all_tasks_blocked()
    assert (await three.orders()).get(third.disk) == "copy"
    await third.obey()
    assert three.states(chunk_id)[third.disk] == "good"
    second.failed = False
    await second.beat()


async def test_a_failed_copy_has_its_source_looked_at_and_is_tried_again(
    three: Cluster, mock_clock: MockClock
) -> None:
    chunk_id, first, destination, _ = await copying(three)
    await destination.obey(ok=False)
    await wait_all_tasks_blocked()
    orders = await three.orders()
    assert orders[first.disk] == "verify"
    assert "copy" in orders.values()
    assert three.states(chunk_id) == {first.disk: "good"}


async def test_a_destination_that_goes_down_is_replaced(
    three: Cluster, mock_clock: MockClock
) -> None:
    _, first, destination, other = await copying(three)
    for _ in range(6):
        mock_clock.jump(2.0)
        for server in (first, other):
            await server.beat()
        await wait_all_tasks_blocked()
    await other.beat()
    assert [each.kind for each in other.orders] == ["copy"]
    assert destination.orders[0].order_id != other.orders[0].order_id


async def test_a_copy_of_a_file_that_is_gone_is_known_so_that_it_is_deleted(
    three: Cluster, mock_clock: MockClock
) -> None:
    chunk_id, _, destination, _ = await copying(three)
    await three.client.do(Unlink(parent=ROOT_INODE, name=b"f"))
    await wait_all_tasks_blocked()
    await destination.obey()
    assert destination.disk in three.states(chunk_id)


async def test_a_copy_of_a_chunk_that_metad_forgot_is_not_booked(
    three: Cluster, mock_clock: MockClock
) -> None:
    chunk_id, _, destination, _ = await copying(three)
    await three.client.do(Unlink(parent=ROOT_INODE, name=b"f"))
    await wait_all_tasks_blocked()
    with three.metad.db.transaction():
        assert replicas.forget_chunk(three.metad.db, chunk_id)
    await destination.obey()
    assert three.states(chunk_id) == {}


async def test_a_cluster_with_too_few_servers_is_not_searched_in_vain(
    db: Database,
    nursery: trio.Nursery,
    mock_clock: MockClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    metad = Metad(db, nursery, replicas=3)
    await metad.start(background=False)
    one, _ = [await FakeServer(metad, name).register() for name in ("s1", "s2")]
    client = await FakeClient(metad, nursery).open()
    chunk_id = (await client.store(await client.make(b"f"))).chunk
    searches = []
    read_in_thread = db.read_in_thread

    async def counted(work: Any) -> Any:
        searches.append(work)
        return await read_in_thread(work)

    monkeypatch.setattr(db, "read_in_thread", counted)
    assert await metad.service.repairer.run_once() == 0
    assert not searches, "two of two is all there can be"
    await one.report(chunk_id, "missing")
    assert await metad.service.repairer.run_once() == 1
    assert len(searches) == 1
    metad.crash()
