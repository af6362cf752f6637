"""What operators are shown."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

import msgspec
import pytest
import trio
from trio.testing import MockClock

from dfswire.errors import NoEntry, NotDirectory, UsageError
from dfswire.info import InfoReply, InfoRequest
from dfswire.messages import ROOT_INODE, Empty
from dfswire.observe import Traffic
from dfswire.operations import Link, Release, Unlink
from dfswire.policies import PolicyRequest, PolicyTerms, SetPolicy
from dfswire.status import ClusterStatus
from metad.storage.database import Database
from tests.t2_metad.machines_for_tests import GIB, disk, heartbeat
from tests.t2_metad.metad_for_tests import FakeClient, FakeServer, Metad


@dataclass
class Cluster:
    metad: Metad
    client: FakeClient
    one: FakeServer

    async def status(self) -> ClusterStatus:
        status: ClusterStatus = await self.metad.call("cluster.status", Empty())
        return status

    async def info(self, path: bytes = b"", inode: int = 0) -> InfoReply:
        request = InfoRequest(path=path, inode=inode)
        reply: InfoReply = await self.metad.call("cluster.info", request)
        return reply


@pytest.fixture
async def pair(
    db: Database, nursery: trio.Nursery, mock_clock: MockClock
) -> AsyncIterator[Cluster]:
    metad = Metad(db, nursery)
    await metad.start(background=False)
    one = await FakeServer(metad, "s1").register()
    await FakeServer(metad, "s2").register()
    yield Cluster(metad, await FakeClient(metad, nursery).open(), one)
    metad.crash()


async def test_status(pair: Cluster, mock_clock: MockClock) -> None:
    await pair.client.store(await pair.client.make(b"f"), 1000)
    status = await pair.status()
    assert [(each.server_id, each.state) for each in status.servers] == [
        ("s1", "up"),
        ("s2", "up"),
    ]
    assert (status.chunks.total, status.chunks.under_replicated, status.chunks.lost) == (1, 0, 0)
    assert (status.total_bytes, status.free_bytes) == (100 * GIB, 49 * GIB)
    assert (status.used_bytes, status.inodes, status.replicas) == (1000, 2, 2)
    (session,) = status.sessions
    assert (session.host, session.connected) == ("host", True)
    assert session.expires_s == pytest.approx(30.0)

    mock_clock.jump(11.0)
    await pair.one.beat()
    status = await pair.status()
    assert [each.state for each in status.servers] == ["up", "down"]
    assert status.servers[1].last_heartbeat_s == pytest.approx(11.0)
    assert status.chunks.under_replicated == 1, "what is on a dead server does not count"


async def test_just_after_a_start_of_metad(pair: Cluster, mock_clock: MockClock) -> None:
    """What is free is not known before servers say so: that is no full cluster."""
    terms = PolicyTerms(replicas=2, domain="host")
    await pair.metad.call("policy.set", SetPolicy(inode=ROOT_INODE, terms=terms))
    await pair.metad.restart(background=False)
    mock_clock.jump(2.0)
    status = await pair.status()
    assert [(each.state, each.heard) for each in status.servers] == [("suspect", False)] * 2
    assert (status.total_bytes, status.free_bytes, status.unsatisfied) == (0, 0, [])
    shown = await pair.metad.call("policy.show", PolicyRequest(inode=ROOT_INODE))
    assert not shown.unsatisfied
    mock_clock.jump(9.0)
    for name in ("s1", "s2"):
        await FakeServer(pair.metad, name).register()
    status = await pair.status()
    assert [(each.state, each.heard) for each in status.servers] == [("up", True)] * 2
    assert (status.total_bytes, status.free_bytes) == (100 * GIB, 49 * GIB)
    await pair.metad.restart(background=False)
    mock_clock.jump(11.0)
    assert "there are 0" in (await pair.status()).unsatisfied[0]


async def test_traffic(pair: Cluster, mock_clock: MockClock) -> None:
    figures = disk(pair.one.disk)
    for second in range(3):
        busy = msgspec.structs.replace(figures, read_bytes=1000 * second, reads=second)
        await pair.metad.call("server.heartbeat", heartbeat("s1", disks=[busy]))
        mock_clock.jump(1.0)
    one, other = (await pair.status()).servers
    assert one.traffic == one.disk_traffic[pair.one.disk]
    assert (one.traffic.read_bytes_per_s, one.traffic.reads_per_s) == (1000, 1)
    assert other.traffic == Traffic()
    assert one.incarnation == 1


async def test_info_by_path_and_by_inode(pair: Cluster, mock_clock: MockClock) -> None:
    directory = await pair.client.make(b"d", mode=0o40755)
    inode = await pair.client.make(b"f", parent=directory)
    await pair.client.do(Link(inode=inode, parent=ROOT_INODE, name=b"g"))
    written = await pair.client.store(inode, 1000)
    info = await pair.info(b"/d/f")
    assert info == await pair.info(inode=inode) == await pair.info(b"//g/")
    assert (info.attr.inode, sorted(info.paths)) == (inode, [b"/d/f", b"/g"])
    (extent,), (chunk,) = info.extents, info.chunks
    assert (extent.length, extent.chunk) == (1000, written.chunk)
    assert (chunk.refs, chunk.state, chunk.length) == (1, "live", 1000)
    assert [(each.server_id, each.state, each.server_state) for each in chunk.replicas] == [
        ("s1", "good", "up"),
        ("s2", "good", "up"),
    ]
    assert (await pair.info(b"/")).paths == [b"/"]


async def test_info_about_an_unlinked_file(pair: Cluster, mock_clock: MockClock) -> None:
    inode = await pair.client.make(b"f")
    await pair.client.do(Unlink(parent=ROOT_INODE, name=b"f", held=True))
    assert (await pair.info(inode=inode)).paths == []
    await pair.client.do(Release(inode=inode))


async def test_info_about_nothing(pair: Cluster, mock_clock: MockClock) -> None:
    await pair.client.make(b"f")
    with pytest.raises(NoEntry):
        await pair.info(b"/nothing")
    with pytest.raises(NotDirectory):
        await pair.info(b"/f/x")
    with pytest.raises(NoEntry):
        await pair.info(inode=999)
    for path in (b"", b"relative"):
        with pytest.raises(UsageError):
            await pair.info(path)


async def test_a_server_known_from_the_database_only(pair: Cluster, mock_clock: MockClock) -> None:
    await pair.client.store(await pair.client.make(b"f"), 1000)
    await pair.metad.restart(background=False)
    status = await pair.status()
    assert [each.state for each in status.servers] == ["suspect", "suspect"]
    (chunk,) = (await pair.info(b"/f")).chunks
    assert [each.server_state for each in chunk.replicas] == ["suspect", "suspect"]
