"""rename(2) in all its cases."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from dfswire import errors
from dfswire.messages import Invalidated
from dfswire.operations import RENAME_EXCHANGE, RENAME_NOREPLACE, Link, Rename, RmDir
from metad.names import namespace

if TYPE_CHECKING:
    from dfswire.messages import Attr
    from tests.t2_metad.conftest import World

ROOT = 1


def move(
    world: World, old: tuple[int, bytes], new: tuple[int, bytes], flags: int = 0, held: bool = False
) -> list[Attr]:
    op = Rename(
        parent=old[0], name=old[1], new_parent=new[0], new_name=new[1], flags=flags, held=held
    )
    return world.do(op)


def test_to_a_free_name(world: World) -> None:
    file = world.make(b"a")
    attrs = move(world, (ROOT, b"a"), (ROOT, b"b"))
    assert [attr.inode for attr in attrs] == [file, ROOT]
    assert world.names() == {b"b": file}
    assert attrs[0].ctime_ns == attrs[1].mtime_ns == attrs[1].ctime_ns == world.now_ns
    found = {(one.inode, one.name): one.what for one in world.effects.invalidations}
    assert found == {
        (ROOT, b""): Invalidated.ATTR,
        (ROOT, b"a"): Invalidated.NAME,
        (ROOT, b"b"): Invalidated.NAME,
        (file, b""): Invalidated.ATTR,
    }


def test_a_directory_to_another_directory(world: World) -> None:
    a, b = world.mkdir(b"a"), world.mkdir(b"b")
    child = world.mkdir(b"child", a)
    subject, old, new = move(world, (a, b"child"), (b, b"kid"))
    assert (subject.inode, old.inode, old.nlink, new.inode, new.nlink) == (child, a, 2, b, 3)
    parent = namespace.lookup(world.db, child, b"..")
    assert parent is not None
    assert parent.inode == b


@pytest.mark.parametrize("held", [False, True])
def test_replacing_a_file(world: World, held: bool) -> None:
    source, target = world.make(b"a"), world.make(b"b")
    subject, parent, replaced = move(world, (ROOT, b"a"), (ROOT, b"b"), held=held)
    assert (subject.inode, parent.inode) == (source, ROOT)
    assert (replaced.inode, replaced.nlink) == (target, 0)
    assert world.effects.orphaned == [target]
    assert world.effects.held == ({target} if held else set())
    assert world.names() == {b"b": source}


def test_replacing_one_of_several_names(world: World) -> None:
    source, target = world.make(b"a"), world.make(b"b")
    world.do(Link(inode=target, parent=ROOT, name=b"c"))
    assert move(world, (ROOT, b"a"), (ROOT, b"b"))[2].nlink == 1
    assert world.effects.orphaned == []
    assert world.names() == {b"b": source, b"c": target}


def test_replacing_a_directory(world: World) -> None:
    a, b = world.mkdir(b"a"), world.mkdir(b"b")
    source, target = world.mkdir(b"x", a), world.mkdir(b"y", b)
    subject, old, new, replaced = move(world, (a, b"x"), (b, b"y"))
    assert (subject.inode, old.nlink, new.nlink) == (source, 2, 3)
    assert (replaced.inode, replaced.nlink) == (target, 0)
    assert world.effects.orphaned == [target]


def test_what_cannot_replace_what(world: World) -> None:
    world.make(b"f")
    world.mkdir(b"d")
    world.mkdir(b"e")
    full = world.mkdir(b"full")
    world.make(b"x", full)
    for old, new, error in (
        (b"f", b"d", errors.IsDirectory),
        (b"d", b"f", errors.NotDirectory),
        (b"d", b"full", errors.NotEmpty),
        (b"none", b"x", errors.NoEntry),
        (b"f", b"x" * 256, errors.NameTooLong),
    ):
        with pytest.raises(error):
            move(world, (ROOT, old), (ROOT, new))
    for parent, error in ((999, errors.NoEntry), (world.names()[b"f"], errors.NotDirectory)):
        with pytest.raises(error):
            move(world, (ROOT, b"d"), (parent, b"x"))
        with pytest.raises(error):
            move(world, (parent, b"x"), (ROOT, b"x"))


def test_noreplace(world: World) -> None:
    file = world.make(b"a")
    world.make(b"b")
    world.do(Link(inode=file, parent=ROOT, name=b"same"))
    for new in (b"b", b"a", b"same"):
        with pytest.raises(errors.Exists):
            move(world, (ROOT, b"a"), (ROOT, new), RENAME_NOREPLACE)
    move(world, (ROOT, b"a"), (ROOT, b"c"), RENAME_NOREPLACE)
    assert b"c" in world.names()


@pytest.mark.parametrize("flags", [0, RENAME_EXCHANGE])
def test_two_names_of_one_file_stay(world: World, flags: int) -> None:
    file = world.make(b"a")
    world.do(Link(inode=file, parent=ROOT, name=b"b"))
    before = world.attr(file)
    assert move(world, (ROOT, b"a"), (ROOT, b"b"), flags)[0] == before
    assert move(world, (ROOT, b"a"), (ROOT, b"a"), flags)[0] == before
    assert world.names() == {b"a": file, b"b": file}
    assert world.effects.invalidations == []


def test_exchange_a_file_and_a_directory(world: World) -> None:
    a, b = world.mkdir(b"a"), world.mkdir(b"b")
    file, directory = world.make(b"f", a), world.mkdir(b"d", b)
    subject, old, new, counterpart = move(world, (a, b"f"), (b, b"d"), RENAME_EXCHANGE)
    assert (subject.inode, counterpart.inode) == (file, directory)
    assert (old.inode, old.nlink, new.inode, new.nlink) == (a, 3, b, 2)
    assert (world.names(a), world.names(b)) == ({b"f": directory}, {b"d": file})
    assert world.effects.orphaned == []


def test_exchange_needs_both(world: World) -> None:
    world.make(b"a")
    with pytest.raises(errors.NoEntry):
        move(world, (ROOT, b"a"), (ROOT, b"b"), RENAME_EXCHANGE)


@pytest.mark.parametrize("flags", [0, RENAME_NOREPLACE])
def test_a_directory_cannot_move_into_itself(world: World, flags: int) -> None:
    a = world.mkdir(b"a")
    b = world.mkdir(b"b", a)
    c = world.mkdir(b"c", b)
    for parent in (a, b, c):
        with pytest.raises(errors.Invalid):
            move(world, (ROOT, b"a"), (parent, b"x"), flags)


def test_an_ancestor_cannot_be_exchanged_or_replaced(world: World) -> None:
    a = world.mkdir(b"a")
    b = world.mkdir(b"b", a)
    world.mkdir(b"c", b)
    for old, new in (((ROOT, b"a"), (b, b"c")), ((b, b"c"), (ROOT, b"a"))):
        with pytest.raises(errors.Invalid):
            move(world, old, new, RENAME_EXCHANGE)
    with pytest.raises(errors.NotEmpty):
        move(world, (b, b"c"), (ROOT, b"a"))


def test_flags_that_do_not_exist(world: World) -> None:
    world.make(b"a")
    for flags in (RENAME_NOREPLACE | RENAME_EXCHANGE, 4):
        with pytest.raises(errors.Invalid):
            move(world, (ROOT, b"a"), (ROOT, b"b"), flags)


def test_removed_directories_take_part_in_nothing(world: World) -> None:
    world.make(b"a")
    gone = world.mkdir(b"gone")
    world.do(RmDir(parent=ROOT, name=b"gone"))
    with pytest.raises(errors.NoEntry):
        move(world, (ROOT, b"a"), (gone, b"a"))
    with pytest.raises(errors.NoEntry):
        move(world, (gone, b"a"), (ROOT, b"a"))
