"""Files without a name (O_TMPFILE), and the times of reading."""

from __future__ import annotations

import stat

import pytest
import trio
from trio.testing import MockClock

from dfswire import errors
from dfswire.messages import ROOT_INODE
from dfswire.operations import (
    Access,
    AccessTime,
    AnyOperation,
    CreateUnnamed,
    Link,
    Release,
    SetAttr,
    Unlink,
)
from tests.t2_metad.conftest import World
from tests.t2_metad.metad_for_tests import FakeClient, Metad


def unnamed(*, linkable: bool = True, parent: int = ROOT_INODE) -> CreateUnnamed:
    mode = stat.S_IFREG | 0o640
    return CreateUnnamed(parent=parent, mode=mode, uid=7, gid=8, linkable=linkable)


def test_an_unnamed_file_is_an_orphan_from_birth(world: World) -> None:
    before = world.attr(ROOT_INODE)
    (attr,) = world.do(unnamed())
    assert (attr.nlink, attr.mode, attr.uid, attr.gid) == (0, stat.S_IFREG | 0o640, 7, 8)
    assert world.effects.orphaned == [attr.inode] and world.effects.held == {attr.inode}
    assert world.attr(ROOT_INODE) == before
    world.purge(attr.inode)


def test_it_gets_its_first_name_by_a_link(world: World) -> None:
    (attr,) = world.do(unnamed())
    (linked, _parent) = world.do(Link(inode=attr.inode, parent=ROOT_INODE, name=b"n"))
    assert linked.nlink == 1 and world.effects.adopted == [attr.inode]
    with pytest.raises(errors.NoEntry):
        world.purge(attr.inode)
    world.do(Unlink(parent=ROOT_INODE, name=b"n", held=True))
    with pytest.raises(errors.NoEntry):  # it had a name, and what was removed stays removed
        world.do(Link(inode=attr.inode, parent=ROOT_INODE, name=b"n"))


def test_no_name_for_an_exclusive_one(world: World) -> None:
    (attr,) = world.do(unnamed(linkable=False))
    with pytest.raises(errors.NoEntry):
        world.do(Link(inode=attr.inode, parent=ROOT_INODE, name=b"n"))


def test_a_name_that_is_taken_leaves_it_unnamed(world: World) -> None:
    world.make(b"n")
    (attr,) = world.do(unnamed())
    with pytest.raises(errors.Exists):
        world.do(Link(inode=attr.inode, parent=ROOT_INODE, name=b"n"))
    world.purge(attr.inode)


def test_it_inherits_the_group_and_needs_a_directory(world: World) -> None:
    directory = world.mkdir(b"d", mode=0o2755, gid=9)
    assert world.do(unnamed(parent=directory))[0].gid == 9
    with pytest.raises(errors.NotDirectory):
        world.do(unnamed(parent=world.make(b"f")))
    with pytest.raises(errors.Invalid):
        world.do(CreateUnnamed(parent=1, mode=stat.S_IFDIR | 0o700, uid=0, gid=0))


def read(inode: int, atime_ns: int, ctime_ns: int) -> Access:
    return Access(times=[AccessTime(inode=inode, atime_ns=atime_ns, ctime_ns=ctime_ns)])


def test_reading_changes_atime_only(world: World) -> None:
    before = world.attr(world.make(b"f"))
    assert world.do(read(before.inode, before.atime_ns + 5, before.ctime_ns)) == []
    attr = world.attr(before.inode)
    assert attr.atime_ns == before.atime_ns + 5
    assert (attr.mtime_ns, attr.ctime_ns) == (before.mtime_ns, before.ctime_ns)
    assert [each.inode for each in world.effects.invalidations] == [before.inode]


@pytest.mark.parametrize(
    ("inode", "atime_ns", "ctime_ns"),
    [(2, 5, 0), (2, 1 << 62, 7), (999, 1 << 62, 0)],
    ids=["older", "changed since", "gone"],
)
def test_late_news_of_reading_is_dropped(
    world: World, inode: int, atime_ns: int, ctime_ns: int
) -> None:
    attr = world.attr(world.make(b"f"))
    assert world.do(read(inode, atime_ns, ctime_ns or attr.ctime_ns)) == []
    assert world.attr(attr.inode) == attr
    assert not world.effects.invalidations


# -- with sessions --------------------------------------------------------------------------------


@pytest.fixture
async def client(metad: Metad, nursery: trio.Nursery) -> FakeClient:
    return await FakeClient(metad, nursery).open()


async def made(client: FakeClient, operation: AnyOperation) -> int:
    (result,) = await client.do(operation)
    return result.attrs[0].inode


async def exists(metad: Metad, inode: int) -> bool:
    await trio.sleep(5)  # what is not used any more is purged in the background
    return bool(metad.db.read("SELECT 1 FROM inode WHERE inode = ?", (inode,)))


async def test_it_lives_until_it_is_released(
    metad: Metad, client: FakeClient, autojump_clock: MockClock
) -> None:
    inode = await made(client, unnamed())
    assert await exists(metad, inode)
    await client.do(Release(inode=inode))
    assert not await exists(metad, inode)


async def test_a_linked_one_outlives_its_release_and_session(
    metad: Metad, client: FakeClient, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    inode = await made(client, unnamed())
    await client.do(Link(inode=inode, parent=ROOT_INODE, name=b"n"))
    await client.do(Release(inode=inode))
    await metad.service.clients.end(client.session)
    assert await exists(metad, inode)
    other = await FakeClient(metad, nursery).open()
    await other.do(SetAttr(inode=inode, mode=0o600))


async def test_the_end_of_a_session_ends_its_unnamed_files(
    metad: Metad, client: FakeClient, autojump_clock: MockClock
) -> None:
    inode = await made(client, unnamed())
    await metad.service.clients.end(client.session)
    assert not await exists(metad, inode)


async def test_it_survives_a_restart_while_it_is_open(
    metad: Metad, client: FakeClient, autojump_clock: MockClock
) -> None:
    kept, lost = await made(client, unnamed()), await made(client, unnamed())
    await metad.restart()
    await client.follow([kept])
    assert await exists(metad, kept)
    assert not await exists(metad, lost)
    await client.do(Link(inode=kept, parent=ROOT_INODE, name=b"n"))
    await client.do(Release(inode=kept))
    assert await exists(metad, kept)
