"""Immutable and append-only files and directories: what each mutation is refused, as by ext4."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

import pytest

from dfswire import errors
from dfswire.messages import ROOT_INODE, Extent, Invalidated
from dfswire.operations import (
    FALLOC_KEEP_SIZE,
    FALLOC_PUNCH_HOLE,
    FALLOC_ZERO_RANGE,
    FS_APPEND,
    FS_DIRSYNC,
    FS_IMMUTABLE,
    FS_NOATIME,
    FS_NODUMP,
    RENAME_EXCHANGE,
    Access,
    AccessTime,
    CopyRange,
    Create,
    CreateUnnamed,
    Fallocate,
    Link,
    Operation,
    RemoveXattr,
    Rename,
    RmDir,
    SetAttr,
    SetFlags,
    SetXattr,
    Unlink,
)

if TYPE_CHECKING:
    from tests.t2_metad.conftest import World

I, A = FS_IMMUTABLE, FS_APPEND  # noqa: E741 - as chattr says
FILE, OTHER, TOP, SUB, INNER = 2, 3, 4, 5, 6  # see `tree`


@pytest.fixture
def tree(world: World) -> World:
    """/f with bytes and an xattr, /other, /top, /top/sub, /top/inner (a file)."""
    file = world.make(b"f")
    world.live_chunk(file, 0, 100)
    world.do(SetXattr(inode=file, name=b"user.a", value=b"1"))
    other = world.make(b"other")
    top = world.mkdir(b"top")
    sub = world.mkdir(b"sub", top)
    inner = world.make(b"inner", top)
    assert (file, other, top, sub, inner) == (FILE, OTHER, TOP, SUB, INNER)
    return world


def rename(old: tuple[int, bytes], new: tuple[int, bytes], flags: int = 0) -> Rename:
    return Rename(parent=old[0], name=old[1], new_parent=new[0], new_name=new[1], flags=flags)


def new_file(parent: int, name: bytes) -> Create:
    return Create(parent=parent, name=name, mode=stat.S_IFREG | 0o600, uid=0, gid=0)


def copy(source: int, inode: int) -> CopyRange:
    return CopyRange(source=source, source_offset=0, inode=inode, offset=0, length=5)


def fallocate(mode: int) -> Fallocate:
    return Fallocate(inode=FILE, mode=mode, offset=0, length=200)


ROOT = ROOT_INODE
UNNAMED = CreateUnnamed(parent=TOP, mode=stat.S_IFREG | 0o600, uid=0, gid=0)


@pytest.mark.parametrize(
    ("inode", "refused_for", "operation"),
    [
        (FILE, I | A, SetAttr(inode=FILE, mode=0o600)),
        (FILE, I | A, SetAttr(inode=FILE, uid=5)),
        (FILE, I | A, SetAttr(inode=FILE, mtime_ns=5)),
        (FILE, I | A, SetAttr(inode=FILE, size=5)),
        (FILE, I | A, SetAttr(inode=FILE, size=500)),
        (FILE, I | A, SetXattr(inode=FILE, name=b"user.b", value=b"")),
        (FILE, I | A, RemoveXattr(inode=FILE, name=b"user.a")),
        (FILE, I | A, Link(inode=FILE, parent=ROOT, name=b"g")),
        (FILE, I | A, Unlink(parent=ROOT, name=b"f")),
        (FILE, I | A, rename((ROOT, b"f"), (ROOT, b"g"))),
        (FILE, I | A, rename((ROOT, b"other"), (ROOT, b"f"))),
        (FILE, I | A, rename((ROOT, b"other"), (ROOT, b"f"), RENAME_EXCHANGE)),
        (FILE, I, fallocate(0)),
        (FILE, I, fallocate(FALLOC_KEEP_SIZE)),
        (FILE, I | A, fallocate(FALLOC_PUNCH_HOLE | FALLOC_KEEP_SIZE)),
        (FILE, I | A, fallocate(FALLOC_ZERO_RANGE)),
        (FILE, I | A, copy(OTHER, FILE)),
        (FILE, 0, copy(FILE, OTHER)),
        (FILE, 0, Access(times=[AccessTime(inode=FILE, atime_ns=5, ctime_ns=5)])),
        (TOP, I, new_file(TOP, b"new")),
        (TOP, I, UNNAMED),
        (TOP, I, Link(inode=FILE, parent=TOP, name=b"new")),
        (TOP, I, rename((ROOT, b"f"), (TOP, b"new"))),
        (TOP, I | A, rename((ROOT, b"f"), (TOP, b"inner"))),
        (TOP, I | A, rename((TOP, b"inner"), (ROOT, b"new"))),
        (TOP, I | A, rename((TOP, b"inner"), (TOP, b"new"))),
        (TOP, I | A, Unlink(parent=TOP, name=b"inner")),
        (TOP, I | A, RmDir(parent=TOP, name=b"sub")),
        (TOP, I | A, SetAttr(inode=TOP, mode=0o700)),
        (SUB, I | A, RmDir(parent=TOP, name=b"sub")),
        (SUB, I | A, rename((TOP, b"sub"), (ROOT, b"new"))),
    ],
    ids=str,
)
@pytest.mark.parametrize("flag", [I, A], ids=["immutable", "append"])
def test_what_a_flag_forbids(
    tree: World, inode: int, refused_for: int, operation: Operation, flag: int
) -> None:
    tree.do(SetFlags(inode=inode, flags=flag | FS_NODUMP))
    before = tree.db.read("SELECT * FROM inode")
    if flag & refused_for:
        with pytest.raises(errors.NotPermitted):
            tree.do(operation)
        assert tree.db.read("SELECT * FROM inode") == before
    else:
        tree.do(operation)
    tree.do(SetFlags(inode=inode, flags=0))


def test_existing_names_come_first(tree: World) -> None:
    """As on ext4: EEXIST before EPERM, and an open of what is there is no change."""
    tree.do(SetFlags(inode=TOP, flags=I))
    with pytest.raises(errors.Exists):
        tree.do(new_file(TOP, b"inner"))
    with pytest.raises(errors.Exists):
        tree.do(Link(inode=FILE, parent=TOP, name=b"inner"))
    with pytest.raises(errors.NoEntry):
        tree.do(Unlink(parent=TOP, name=b"missing"))
    opened = Create(parent=TOP, name=b"inner", mode=stat.S_IFREG, uid=0, gid=0, exclusive=False)
    assert tree.do(opened)[0].inode == INNER


def test_bytes_go_to_the_end_of_an_append_only_file_only(tree: World) -> None:
    tree.do(SetFlags(inode=FILE, flags=A))
    tree.commit(FILE, Extent(offset=100, length=3, data=b"abc"))
    with pytest.raises(errors.NotPermitted):
        tree.commit(FILE, Extent(offset=102, length=3, data=b"abc"))
    tree.commit(FILE, Extent(offset=200, length=3, data=b"abc"))
    tree.do(SetFlags(inode=FILE, flags=I))
    with pytest.raises(errors.NotPermitted):
        tree.commit(FILE, Extent(offset=300, length=3, data=b"abc"))
    assert tree.attr(FILE).size == 203


def test_flags_are_kept_and_told(tree: World) -> None:
    flags = I | A | FS_NODUMP | FS_NOATIME
    (attr,) = tree.do(SetFlags(inode=FILE, flags=flags))
    assert (attr.flags, attr.ctime_ns) == (flags, tree.now_ns)
    assert tree.attr(FILE) == attr
    told = [(each.inode, each.what) for each in tree.effects.invalidations]
    assert told == [(FILE, Invalidated.ATTR | Invalidated.DATA)]
    assert tree.do(SetFlags(inode=TOP, flags=FS_DIRSYNC))[0].flags == FS_DIRSYNC
    assert tree.do(SetFlags(inode=FILE, flags=0))[0].flags == 0


def test_flags_that_cannot_be(tree: World) -> None:
    link = tree.make(b"l", mode=0o120777, target=b"t")
    for inode, flags in ((FILE, 0x8), (FILE, I | 0x4000), (link, I)):
        with pytest.raises(errors.NotSupported):
            tree.do(SetFlags(inode=inode, flags=flags))
    with pytest.raises(errors.NoEntry):
        tree.do(SetFlags(inode=999, flags=0))
