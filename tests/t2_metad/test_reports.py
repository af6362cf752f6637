"""What chunkds report, and what metad makes of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

import pytest
import trio
from trio.testing import MockClock

from dfswire.errors import AlreadyRunning, SessionLost, WrongCluster
from dfswire.hosts import Registered
from dfswire.inventories import ChangesReply, Inventory, InventoryChanges, InventoryReply
from dfswire.messages import Empty, Extent, WrittenChunk
from dfswire.metadata import BadReplica, GrantRequest
from dfswire.operations import Commit, SetAttr
from dfswire.orders import OrderResult
from metad.copies import replicas
from metad.hosts import machines
from metad.storage.database import Database
from tests.t2_metad.machines_for_tests import heartbeat, register
from tests.t2_metad.metad_for_tests import FakeClient, FakeServer, Metad

FIRST, LAST = bytes(16), b"\xff" * 16


@dataclass
class Cluster:
    metad: Metad
    client: FakeClient
    one: FakeServer
    other: FakeServer

    def states(self, chunk: bytes) -> dict[str, str]:
        return dict(replicas.replicas_of(self.metad.db, chunk))

    async def inventory(self, server: FakeServer, *chunks: bytes) -> list[bytes]:
        """What metad does not know of these, the only ones on the server's disk."""
        page = Inventory(
            server_id=server.server_id,
            incarnation=1,
            disk=server.disk,
            first=FIRST,
            last=LAST,
            chunks=b"".join(sorted(chunks)),
        )
        reply: InventoryReply = await self.metad.call("server.inventory", page)
        return reply.unknown

    async def kinds(self, server: FakeServer) -> list[str]:
        await server.beat()
        return [order.kind for order in server.orders]


@pytest.fixture
async def pair(
    db: Database, nursery: trio.Nursery, mock_clock: MockClock
) -> AsyncIterator[Cluster]:
    metad = Metad(db, nursery)
    await metad.start(background=False)
    one = await FakeServer(metad, "s1").register()
    other = await FakeServer(metad, "s2").register()
    yield Cluster(metad, await FakeClient(metad, nursery).open(), one, other)
    metad.crash()


async def stored(pair: Cluster) -> bytes:
    return (await pair.client.store(await pair.client.make(b"f"))).chunk


async def test_registration(
    pair: Cluster, mock_clock: MockClock, expect_log: Callable[[str], None]
) -> None:
    expect_log("s3:9500 is refused")
    expect_log("s4:9500 is refused: server s4 belongs to another cluster")
    reply: Registered = await pair.metad.call("server.register", register("s3"))
    assert reply.cluster_id == pair.metad.service.state.cluster_id
    assert reply.heartbeat_s == 1.0
    saved = [each.server_id for each in machines.load_servers(pair.metad.db)]
    assert saved == ["s1", "s2", "s3"]
    with pytest.raises(WrongCluster):
        await pair.metad.call("server.register", register("s4", cluster_id="other"))
    assert (await pair.metad.call("cluster.status", Empty())).foreign == ["s4:9500"]
    with pytest.raises(AlreadyRunning):
        await pair.metad.call("server.register", register("s3", incarnation=0))
    assert len(machines.load_servers(pair.metad.db)) == 3


async def test_a_restarted_metad_asks_servers_to_register(
    pair: Cluster, mock_clock: MockClock, expect_log: Callable[[str], None]
) -> None:
    expect_log("s1:9500 is refused")
    await pair.metad.restart(background=False)
    assert (await pair.one.beat()).register
    with pytest.raises(AlreadyRunning):
        await pair.metad.call("server.register", register("s1", incarnation=0))
    await pair.one.register()
    assert not (await pair.one.beat()).register


async def test_reports_of_bad_missing_and_good_replicas(
    pair: Cluster, mock_clock: MockClock
) -> None:
    chunk = await stored(pair)
    await pair.one.report(chunk, "bad")
    assert pair.states(chunk) == {"s1-d": "bad", "s2-d": "good"}
    await pair.one.report(chunk, "good")
    assert pair.states(chunk) == {"s1-d": "good", "s2-d": "good"}
    await pair.one.report(chunk, "missing")
    assert pair.states(chunk) == {"s2-d": "good"}
    await pair.one.report(chunk, "bad")
    assert pair.states(chunk) == {"s2-d": "good"}, "of a replica that nobody relies on"
    await pair.one.report(chunk, "good")
    assert pair.states(chunk) == {"s2-d": "good"}, "it may be gone since it was found"
    assert await pair.kinds(pair.one) == ["verify"]
    await pair.one.obey()
    assert pair.states(chunk) == {"s1-d": "good", "s2-d": "good"}


async def test_reports_about_unknown_chunks_and_foreign_disks_change_nothing(
    pair: Cluster, mock_clock: MockClock
) -> None:
    chunk = await stored(pair)
    await pair.one.report(b"x" * 16, "bad")
    pair.one.disk, message = "s2-d", heartbeat("s1")
    await pair.metad.call("server.heartbeat", message)
    report = await pair.one.beat()
    assert report.register, "that disk is not its own"
    assert pair.states(chunk) == {"s1-d": "good", "s2-d": "good"}


async def test_the_loss_of_the_last_good_replica_is_said_aloud(
    pair: Cluster, expect_log: Callable[[str], None], mock_clock: MockClock
) -> None:
    expect_log("no good replica left")
    chunk = await stored(pair)
    await pair.one.report(chunk, "bad")
    await pair.other.report(chunk, "missing")
    await pair.one.report(chunk, "good")  # so that fsck is satisfied


async def test_a_replica_lost_before_its_commit_is_looked_at_after_it(
    pair: Cluster, mock_clock: MockClock
) -> None:
    inode = await pair.client.make(b"f")
    request = GrantRequest(session=pair.client.session, count=1)
    (grant,) = (await pair.metad.call("meta.grant", request)).grants
    await pair.one.report(grant.chunk, "bad")
    assert pair.states(grant.chunk)["s1-d"] == "granted"
    written = WrittenChunk(chunk=grant.chunk, length=10, digest=b"d" * 16, disks=["s1-d", "s2-d"])
    extent = Extent(offset=0, length=10, chunk=grant.chunk)
    await pair.client.do(
        Commit(inode=inode, extents=[extent], size=10, mtime_ns=1, chunks=[written])
    )
    assert await pair.kinds(pair.one) == ["verify"]


async def test_a_client_that_got_no_bytes_has_the_server_look(
    pair: Cluster, mock_clock: MockClock
) -> None:
    chunk = await stored(pair)
    for disk in ("s1-d", "unknown"):
        request = BadReplica(session=pair.client.session, chunk=chunk, disk=disk, reason="checksum")
        await pair.metad.call("meta.bad_replica", request)
    assert await pair.kinds(pair.one) == ["verify"]
    assert await pair.kinds(pair.other) == []
    assert pair.states(chunk) == {"s1-d": "good", "s2-d": "good"}, "clients are not believed"
    with pytest.raises(SessionLost):
        await pair.metad.call(
            "meta.bad_replica", BadReplica(session="x", chunk=chunk, disk="s1-d", reason="")
        )


async def test_a_verified_replica_is_good_again(pair: Cluster, mock_clock: MockClock) -> None:
    chunk = await stored(pair)
    await pair.one.report(chunk, "bad")
    await pair.inventory(pair.one, chunk)
    await pair.one.beat()
    assert [order.kind for order in pair.one.orders] == ["verify"]
    await pair.one.obey(ok=False)
    assert pair.states(chunk)["s1-d"] == "bad"
    await pair.inventory(pair.one, chunk)
    await pair.one.beat()
    await pair.one.obey()
    assert pair.states(chunk)["s1-d"] == "good"


async def test_an_inventory_reveals_what_is_missing_and_what_is_unknown(
    pair: Cluster, mock_clock: MockClock, expect_log: Callable[[str], None]
) -> None:
    expect_log("disk s1-d lacks 1 chunks")
    chunk = await stored(pair)
    mock_clock.jump(20.0)
    assert await pair.inventory(pair.one) == [], "it may have been stored after the count"
    assert pair.states(chunk)["s1-d"] == "good"
    assert await pair.kinds(pair.one) == ["verify"]
    assert await pair.inventory(pair.one, chunk, b"x" * 16) == [b"x" * 16]
    mock_clock.jump(60.0)
    await pair.inventory(pair.one)
    assert pair.states(chunk) == {"s1-d": "bad", "s2-d": "good"}


async def test_a_dead_chunk_is_not_missed(pair: Cluster, mock_clock: MockClock) -> None:
    """Its files go one after the other, and metad hears of each with the next heartbeat."""
    inode = await pair.client.make(b"f")
    chunk = (await pair.client.store(inode)).chunk
    await pair.client.do(SetAttr(inode=inode, size=0))
    mock_clock.jump(100.0)
    await pair.inventory(pair.one)
    assert pair.states(chunk) == {"s1-d": "good", "s2-d": "good"}
    assert await pair.kinds(pair.one) == []


async def test_inventories_of_strangers_are_not_compared(
    pair: Cluster, mock_clock: MockClock
) -> None:
    stranger = FakeServer(pair.metad, "s9")
    assert await pair.inventory(stranger, b"x" * 16) == []
    pair.one.disk = "s2-d"
    assert await pair.inventory(pair.one, b"x" * 16) == []


async def test_results_of_unknown_orders_are_ignored(pair: Cluster, mock_clock: MockClock) -> None:
    await pair.one.beat(results=[OrderResult(order_id=1, ok=True)])


async def test_a_copied_chunk_is_recent_too(pair: Cluster, mock_clock: MockClock) -> None:
    chunk = await stored(pair)
    await pair.one.report(chunk, "missing")
    mock_clock.jump(100.0)
    await pair.one.beat()
    await pair.other.beat()
    await pair.metad.service.repairer.run_once()
    await pair.one.beat()
    assert [order.kind for order in pair.one.orders] == ["copy"]
    await pair.one.obey()
    await pair.inventory(pair.one)
    assert pair.states(chunk)["s1-d"] == "good"


async def test_a_copied_chunk_is_recent_while_its_row_is_committed(
    pair: Cluster, mock_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The commit takes a while, and an inventory that was made before the copy arrives."""
    chunk = await stored(pair)
    await pair.one.report(chunk, "missing")
    mock_clock.jump(100.0)
    await pair.one.beat()
    await pair.other.beat()
    await pair.metad.service.repairer.run_once()
    await pair.one.beat()
    db = pair.metad.db
    write = db.write

    async def write_and_wait(work: Callable[[], object]) -> object:
        monkeypatch.undo()
        done = await write(work)
        await pair.inventory(pair.one)
        return done

    monkeypatch.setattr(db, "write", write_and_wait)
    await pair.one.obey()
    assert pair.states(chunk)["s1-d"] == "good"


async def changes(
    pair: Cluster, after: int, *, gone: bytes = b"", new: bytes = b""
) -> ChangesReply:
    request = InventoryChanges(
        server_id="s1", incarnation=1, disk="s1-d", after=after, gone=gone, new=new
    )
    reply: ChangesReply = await pair.metad.call("server.changes", request)
    return reply


async def test_changes_reveal_the_same(
    pair: Cluster, mock_clock: MockClock, expect_log: Callable[[str], None]
) -> None:
    expect_log("disk s1-d lacks 1 chunks")
    chunk = await stored(pair)
    mock_clock.jump(100.0)
    await pair.one.beat()
    assert await changes(pair, 0, gone=chunk) == ChangesReply(whole=True), "of what is not known"
    assert pair.states(chunk)["s1-d"] == "good"
    await pair.inventory(pair.one, chunk)
    for _ in range(2):  # the first answer may be lost
        reply = await changes(pair, 0, gone=chunk, new=b"x" * 16)
        assert reply == ChangesReply(unknown=[b"x" * 16])
    assert pair.states(chunk) == {"s1-d": "bad", "s2-d": "good"}
    assert (await changes(pair, 1, new=chunk)).unknown == []
    assert await pair.kinds(pair.one) == ["verify"], "of a disk that says it has it again"
    assert await changes(pair, 0) == await changes(pair, 3) == ChangesReply(whole=True)


async def test_what_left_as_ordered_is_not_missed(pair: Cluster, mock_clock: MockClock) -> None:
    chunk = await stored(pair)
    mock_clock.jump(100.0)
    await pair.one.beat()
    await pair.inventory(pair.one, chunk)
    replicas.condemn(pair.metad.db, chunk, "s1-d")
    await changes(pair, 0, gone=chunk)
    assert pair.states(chunk)["s1-d"] == "excess"
    strange = InventoryChanges(server_id="s9", incarnation=1, disk="s1-d", after=1)
    assert await pair.metad.call("server.changes", strange) == ChangesReply(hold=True)
