"""Names and inodes, without network or FUSE."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING, Any

import pytest

from dfswire import errors
from dfswire.messages import FILE_MAX_BYTES, Extent, Invalidated
from dfswire.operations import Create, Link, RmDir, SetAttr, Unlink
from metad.names import namespace

if TYPE_CHECKING:
    from tests.t2_metad.conftest import World

ROOT = 1
GONE = Invalidated.ATTR | Invalidated.GONE


def what(world: World) -> dict[tuple[int, bytes], int]:
    return {(found.inode, found.name): found.what for found in world.effects.invalidations}


def test_create_gives_the_new_inode_and_its_parent(world: World) -> None:
    op = Create(parent=ROOT, name=b"f", mode=stat.S_IFREG | 0o640, uid=7, gid=8)
    new, parent = world.do(op)
    assert (new.mode, new.uid, new.gid, new.nlink, new.size) == (op.mode, 7, 8, 1, 0)
    assert new.atime_ns == new.mtime_ns == new.ctime_ns == world.now_ns
    assert new.generation == world.now_ns // 10**9
    assert (parent.inode, parent.mtime_ns, parent.ctime_ns) == (ROOT, world.now_ns, world.now_ns)
    assert namespace.lookup(world.db, ROOT, b"f") == new == world.attr(new.inode)
    assert what(world) == {(ROOT, b""): Invalidated.ATTR, (ROOT, b"f"): Invalidated.NAME}


def test_create_every_kind(world: World) -> None:
    link = world.make(b"l", mode=stat.S_IFLNK | 0o777, target=b"to/there")
    assert namespace.readlink(world.db, link) == b"to/there"
    assert world.attr(link).size == 8
    device = world.make(b"d", mode=stat.S_IFBLK | 0o600, rdev=0x801)
    assert world.attr(device).rdev == 0x801
    for number, kind in enumerate((stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFCHR)):
        assert stat.S_IFMT(world.attr(world.make(b"%d" % number, mode=kind)).mode) == kind
    with pytest.raises(errors.Invalid):
        namespace.readlink(world.db, device)


@pytest.mark.parametrize(
    "more",
    [
        {"mode": 0o644},
        {"mode": stat.S_IFREG, "target": b"x"},
        {"mode": stat.S_IFLNK},
        {"mode": stat.S_IFREG | 1 << 20},
        {"mode": stat.S_IFCHR, "rdev": 1 << 63},
    ],
)
def test_create_refuses_nonsense(world: World, more: dict[str, Any]) -> None:
    with pytest.raises(errors.Invalid):
        world.do(Create(parent=ROOT, name=b"f", uid=0, gid=0, **more))
    assert world.names() == {}


def test_create_where_a_name_exists(world: World) -> None:
    file, directory = world.make(b"f"), world.mkdir(b"d")
    again = Create(parent=ROOT, name=b"f", mode=stat.S_IFREG, uid=5, gid=5, exclusive=False)
    assert world.do(again) == [world.attr(file), world.attr(ROOT)]
    assert what(world) == {}
    for name in (b"f", b"d"):
        with pytest.raises(errors.Exists):
            world.make(name)
    with pytest.raises(errors.Exists):
        world.make(b"d", exclusive=False)
    with pytest.raises(errors.NotDirectory):
        world.make(b"x", file)
    with pytest.raises(errors.NoEntry):
        world.make(b"x", 999)
    with pytest.raises(errors.NameTooLong):
        world.make(b"x" * 256, directory)


def test_setgid_directories_hand_down_their_group(world: World) -> None:
    top = world.mkdir(b"top", mode=0o2755, gid=50)
    file, below = world.make(b"f", top, gid=1), world.mkdir(b"d", top, gid=1)
    assert (world.attr(file).gid, world.attr(file).mode & 0o7777) == (50, 0o644)
    assert (world.attr(below).gid, world.attr(below).mode & 0o7777) == (50, 0o2755)


def test_directories_count_their_subdirectories(world: World) -> None:
    top = world.mkdir(b"top")
    world.mkdir(b"a", top)
    world.make(b"f", top)
    assert world.attr(top).nlink == 3
    assert world.attr(ROOT).nlink == 3
    removed, parent = world.do(RmDir(parent=top, name=b"a"))
    assert (removed.nlink, parent.nlink) == (0, 2)


def test_lookup_dot_and_dotdot(world: World) -> None:
    top = world.mkdir(b"top")
    below = world.mkdir(b"below", top)
    file = world.make(b"f", below)
    for parent, name, inode in ((below, b".", below), (below, b"..", top), (ROOT, b"..", ROOT)):
        found = namespace.lookup(world.db, parent, name)
        assert found is not None
        assert found.inode == inode
    assert namespace.lookup(world.db, below, b"none") is None
    for name in (b".", b"..", b"x"):
        with pytest.raises(errors.NotDirectory):
            namespace.lookup(world.db, file, name)
        with pytest.raises(errors.NoEntry):
            namespace.lookup(world.db, 999, name)


def test_link_and_unlink(world: World) -> None:
    file, directory = world.make(b"f"), world.mkdir(b"d")
    linked, parent = world.do(Link(inode=file, parent=directory, name=b"g"))
    assert (linked.inode, linked.nlink, linked.ctime_ns) == (file, 2, world.now_ns)
    assert (parent.inode, parent.mtime_ns) == (directory, world.now_ns)
    assert what(world)[file, b""] == Invalidated.ATTR
    unlinked, parent = world.do(Unlink(parent=ROOT, name=b"f"))
    assert (unlinked.nlink, unlinked.ctime_ns, parent.inode) == (1, world.now_ns, ROOT)
    assert world.effects.orphaned == []
    assert what(world)[file, b""] == Invalidated.ATTR
    assert world.names(directory) == {b"g": file}


def test_link_errors(world: World) -> None:
    file, directory = world.make(b"f"), world.mkdir(b"d")
    world.make(b"gone")
    gone = world.do(Unlink(parent=ROOT, name=b"gone"))[0].inode
    for inode, name, error in (
        (directory, b"x", errors.NotPermitted),
        (999, b"x", errors.NoEntry),
        (gone, b"x", errors.NoEntry),
        (file, b"d", errors.Exists),
        (file, b"x" * 256, errors.NameTooLong),
    ):
        with pytest.raises(error):
            world.do(Link(inode=inode, parent=ROOT, name=name))
    with pytest.raises(errors.NotDirectory):
        world.do(Link(inode=file, parent=file, name=b"x"))


def test_too_many_links(world: World) -> None:
    file = world.make(b"f")
    set_links = "UPDATE inode SET nlink = ? WHERE inode = ?"
    with world.db.transaction():
        world.db.change(set_links, (namespace.LINKS_MAX, file))
    with pytest.raises(errors.TooManyLinks):
        world.do(Link(inode=file, parent=ROOT, name=b"x"))
    with world.db.transaction():
        world.db.change(set_links, (1, file))


@pytest.mark.parametrize("held", [False, True])
def test_the_last_unlink_leaves_an_orphan_until_it_is_purged(world: World, held: bool) -> None:
    file = world.make(b"f")
    world.commit(file, Extent(offset=0, length=3, data=b"abc"))
    unlinked, _parent = world.do(Unlink(parent=ROOT, name=b"f", held=held))
    assert unlinked.nlink == 0
    assert world.effects.orphaned == [file]
    assert world.effects.held == ({file} if held else set())
    assert what(world)[file, b""] == GONE
    assert world.attr(file).size == 3
    world.commit(file, Extent(offset=3, length=1, data=b"d"))
    world.purge(file)
    with pytest.raises(errors.NoEntry):
        world.attr(file)
    assert world.make(b"next") > file


def test_unlink_errors(world: World) -> None:
    file = world.make(b"f")
    world.mkdir(b"d")
    for parent, name, error in (
        (ROOT, b"d", errors.IsDirectory),
        (ROOT, b"x", errors.NoEntry),
        (999, b"x", errors.NoEntry),
        (file, b"x", errors.NotDirectory),
    ):
        with pytest.raises(error):
            world.do(Unlink(parent=parent, name=name))


def test_a_removed_directory_takes_nothing_more(world: World) -> None:
    directory, file = world.mkdir(b"d"), world.make(b"f")
    below = world.mkdir(b"below", directory)
    with pytest.raises(errors.NotEmpty):
        world.do(RmDir(parent=ROOT, name=b"d"))
    with pytest.raises(errors.NotDirectory):
        world.do(RmDir(parent=ROOT, name=b"f"))
    with pytest.raises(errors.NoEntry):
        world.do(RmDir(parent=ROOT, name=b"x"))
    world.do(RmDir(parent=directory, name=b"below"))
    assert world.effects.orphaned == [below]
    world.do(RmDir(parent=ROOT, name=b"d"))
    world.purge(directory)
    assert namespace.lookup(world.db, below, b"x") is None
    for attempt in (
        lambda: world.make(b"x", below),
        lambda: world.do(Link(inode=file, parent=below, name=b"x")),
        lambda: world.do(Unlink(parent=below, name=b"x")),
        lambda: namespace.readdir(world.db, below, 0, 10),
        lambda: namespace.lookup(world.db, below, b".."),
    ):
        with pytest.raises(errors.NoEntry):
            attempt()
    assert world.attr(below).nlink == 0


def test_setattr_sets_what_is_given(world: World) -> None:
    file = world.make(b"f", mode=0o4755)
    (attr,) = world.do(SetAttr(inode=file, mode=stat.S_IFDIR | 0o6711))
    assert attr.mode == stat.S_IFREG | 0o6711
    assert what(world) == {(file, b""): Invalidated.ATTR, (1, b"f"): Invalidated.NAME}
    (attr,) = world.do(SetAttr(inode=file, atime_ns=-5, mtime_ns=6))
    assert (attr.atime_ns, attr.mtime_ns, attr.ctime_ns) == (-5, 6, world.now_ns)
    (attr,) = world.do(SetAttr(inode=file, uid=0))
    assert (attr.uid, attr.mode & 0o7777) == (0, 0o711)
    (attr,) = world.do(SetAttr(inode=file, gid=9, mode=0o6711))
    assert (attr.gid, attr.mode & 0o7777) == (9, 0o6711)


def test_chown_keeps_setgid_where_it_is_no_privilege(world: World) -> None:
    directory, locked = world.mkdir(b"d", mode=0o6755), world.make(b"f", mode=0o2644)
    for inode, mode in ((directory, 0o6755), (locked, 0o2644)):
        assert world.do(SetAttr(inode=inode, gid=3))[0].mode & 0o7777 == mode


def test_truncation_trims_and_growing_leaves_a_hole(world: World) -> None:
    file = world.make(b"f")
    world.commit(file, Extent(offset=0, length=4, data=b"abcd"))
    (attr,) = world.do(SetAttr(inode=file, size=2))
    assert (attr.size, attr.allocated_bytes, attr.mtime_ns) == (2, 2, world.now_ns)
    assert what(world) == {(file, b""): Invalidated.ATTR | Invalidated.DATA}
    (attr,) = world.do(SetAttr(inode=file, size=1000, mtime_ns=5))
    assert (attr.size, attr.allocated_bytes, attr.mtime_ns) == (1000, 2, 5)


def test_setattr_errors(world: World) -> None:
    file, directory = world.make(b"f"), world.mkdir(b"d")
    fifo = world.make(b"p", mode=stat.S_IFIFO)
    for op, error in (
        (SetAttr(inode=directory, size=0), errors.IsDirectory),
        (SetAttr(inode=fifo, size=0), errors.Invalid),
        (SetAttr(inode=file, size=FILE_MAX_BYTES + 1), errors.FileTooBig),
        (SetAttr(inode=file, mtime_ns=1 << 63), errors.Invalid),
        (SetAttr(inode=999, mode=0), errors.NoEntry),
    ):
        with pytest.raises(error):
            world.do(op)
