"""Questions of clients, and grants of chunks."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from dfswire.errors import Full, NoEntry, NoSpace, SessionLost
from dfswire.messages import ROOT_INODE, Extent
from dfswire.metadata import (
    GrantReply,
    GrantRequest,
    InodeRequest,
    LayoutReply,
    LayoutRequest,
    ReaddirReply,
    ReaddirRequest,
    SessionRequest,
    StatfsReply,
    StatfsRequest,
)
from dfswire.operations import Commit, Create, SetXattr
from metad.storage.database import Database
from tests.t2_metad.machines_for_tests import GIB, disk, heartbeat
from tests.t2_metad.metad_for_tests import FakeClient, FakeServer, Metad


@pytest.fixture
async def metad(db: Database, nursery: trio.Nursery, mock_clock: MockClock) -> AsyncIterator[Metad]:
    made = Metad(db, nursery)
    await made.start(background=False)
    yield made
    made.crash()


@pytest.fixture
async def client(metad: Metad, nursery: trio.Nursery) -> FakeClient:
    return await FakeClient(metad, nursery, "host-s2").open()


async def servers(metad: Metad, count: int) -> list[FakeServer]:
    return [await FakeServer(metad, f"s{number}").register() for number in range(1, count + 1)]


async def test_names_and_attributes(client: FakeClient, mock_clock: MockClock) -> None:
    inode = await client.make(b"f")
    found = await client.lookup(b"f")
    assert found is not None and found == await client.getattr(inode)
    assert await client.lookup(b"g") is None
    with pytest.raises(NoEntry):
        await client.getattr(999)


async def test_symlinks_and_xattrs(metad: Metad, client: FakeClient, mock_clock: MockClock) -> None:
    link = Create(parent=ROOT_INODE, name=b"l", mode=0o120777, uid=0, gid=0, target=b"to")
    (result,) = await client.do(link)
    inode = result.attrs[0].inode
    request = InodeRequest(session=client.session, inode=inode)
    assert (await metad.call("meta.readlink", request)).target == b"to"
    await client.do(SetXattr(inode=inode, name=b"user.a", value=b"1"))
    (xattr,) = (await metad.call("meta.xattrs", request)).xattrs
    assert (xattr.name, xattr.value) == (b"user.a", b"1")


async def test_readdir_in_pages(
    metad: Metad, client: FakeClient, nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    made = [await client.make(b"f%d" % number) for number in range(5)]
    reader = await FakeClient(metad, nursery).open()
    cookie, seen = 0, []
    while True:
        request = ReaddirRequest(session=reader.session, inode=ROOT_INODE, cookie=cookie, limit=2)
        page: ReaddirReply = await metad.call("meta.readdir", request)
        seen += [entry.attr.inode for entry in page.entries]
        if page.end:
            break
        cookie = page.entries[-1].cookie
    assert seen == made
    held = metad.service.state.leases.check(reader.session, 0.0).held
    assert {ROOT_INODE, *made} <= held.keys(), "it holds what it was told"


async def test_questions_need_a_session(metad: Metad, mock_clock: MockClock) -> None:
    for name, request in {
        "meta.getattr": InodeRequest(session="x", inode=1),
        "meta.statfs": StatfsRequest(session="x"),
        "meta.grant": GrantRequest(session="x", count=1),
    }.items():
        with pytest.raises(SessionLost):
            await metad.call(name, request)


async def test_grants_name_distinct_servers_the_own_host_first(
    metad: Metad, client: FakeClient, mock_clock: MockClock
) -> None:
    await servers(metad, 3)
    request = GrantRequest(session=client.session, count=20, avoid=["s3:9500"])
    reply: GrantReply = await metad.call("meta.grant", request)
    assert len({each.chunk for each in reply.grants}) == 20
    for grant in reply.grants:
        assert [each.disk for each in grant.targets] == ["s2-d", "s1-d"]
        assert [each.address for each in grant.targets] == ["s2:9500", "s1:9500"]
        assert grant.expires_s == metad.config.grant_expiry_s


async def test_no_grants_without_servers_that_are_up(
    metad: Metad, client: FakeClient, mock_clock: MockClock
) -> None:
    await servers(metad, 2)
    mock_clock.jump(4.0)
    with pytest.raises(NoSpace):
        await metad.call("meta.grant", GrantRequest(session=client.session, count=1))


async def test_full_is_not_the_same_as_too_few_servers(
    metad: Metad, client: FakeClient, mock_clock: MockClock
) -> None:
    made = await servers(metad, 3)
    for server in made:
        full = heartbeat(server.server_id, disks=[disk(server.disk, free=0)])
        await metad.call("server.heartbeat", full)
    request = GrantRequest(session=client.session, count=1)
    with pytest.raises(Full):
        await metad.call("meta.grant", request)
    mock_clock.jump(4.0)
    for server in made[:2]:
        full = heartbeat(server.server_id, disks=[disk(server.disk, free=0)])
        await metad.call("server.heartbeat", full)
    with pytest.raises(NoSpace) as refused:  # the third one may have room, and come back
        await metad.call("meta.grant", request)
    assert type(refused.value) is NoSpace


async def test_layout_names_the_best_replica_first(
    metad: Metad, client: FakeClient, mock_clock: MockClock
) -> None:
    first, _ = await servers(metad, 2)
    inode = await client.make(b"f")
    chunk = await client.store(inode, 1000)
    mock_clock.jump(4.0)
    await first.beat()
    request = LayoutRequest(session=client.session, inode=inode, offset=0, length=10)
    reply: LayoutReply = await metad.call("meta.layout", request)
    assert reply.attr.size == 1000
    assert reply.extents == [Extent(offset=0, length=1000, chunk=chunk.chunk)]
    (location,) = reply.chunks
    assert (location.chunk, location.length) == (chunk.chunk, 1000)
    assert [each.disk for each in location.replicas] == ["s1-d", "s2-d"]


async def test_inline_data_needs_no_chunk(
    metad: Metad, client: FakeClient, mock_clock: MockClock
) -> None:
    inode = await client.make(b"f")
    extent = Extent(offset=0, length=5, data=b"hello")
    await client.do(Commit(inode=inode, extents=[extent], size=5, mtime_ns=1))
    request = LayoutRequest(session=client.session, inode=inode, offset=0, length=10)
    reply: LayoutReply = await metad.call("meta.layout", request)
    assert reply.extents == [extent] and reply.chunks == []


async def test_statfs_waits_for_the_first_figures_after_a_start(
    metad: Metad, client: FakeClient, mock_clock: MockClock
) -> None:
    replies: list[StatfsReply] = []

    async def ask() -> None:
        replies.append(await metad.call("meta.statfs", StatfsRequest(session=client.session)))

    first, second, third = await servers(metad, 3)
    await ask()
    full_bytes = replies.pop().free_bytes
    assert full_bytes > 0
    await metad.restart(background=False)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        for server in (first, second, third):
            await wait_all_tasks_blocked()
            assert replies == []
            await server.register()
    assert replies.pop().free_bytes == full_bytes
    # One of them is away: the others will do, after a while.
    await metad.restart(background=False)
    for server in (first, second):
        await server.register()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        await wait_all_tasks_blocked()
        assert replies == []
        mock_clock.jump(metad.config.suspect_s)
    assert 0 < replies[0].free_bytes < full_bytes
    await ask()  # at once
    replies.clear()
    # Nobody is there: nothing is known until all of them are down.
    await metad.restart(background=False)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        await wait_all_tasks_blocked()
        mock_clock.jump(metad.config.suspect_s)
        await wait_all_tasks_blocked()
        assert replies == []
        mock_clock.jump(metad.config.down_s)
    assert replies[0].total_bytes == 0


async def test_statfs(metad: Metad, client: FakeClient, mock_clock: MockClock) -> None:
    async def ask() -> StatfsReply:
        reply: Any = await metad.call("meta.statfs", StatfsRequest(session=client.session))
        assert isinstance(reply, StatfsReply)
        return reply

    assert (await ask()).total_bytes == 0
    await servers(metad, 2)
    await client.make(b"f")
    reply = await ask()
    assert (reply.total_bytes, reply.free_bytes) == (100 * GIB, 49 * GIB)
    assert reply.inodes - reply.inodes_free == 1, "counted now and then only"
    mock_clock.jump(15.0)
    assert (await ask()).total_bytes == 0, "both are down"
    await metad.call("session.renew", SessionRequest(session=client.session))
    mock_clock.jump(16.0)
    reply = await ask()
    assert reply.inodes - reply.inodes_free == 2
