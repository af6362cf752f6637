"""Listing directories while they change: cookies are stable, nothing that stays is missed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from dfswire import errors
from dfswire.operations import Link, Rename, Unlink
from metad.names import namespace
from metad.storage.schema import FIRST_COOKIE

if TYPE_CHECKING:
    from tests.t2_metad.conftest import World

ROOT = 1


def test_pages_follow_each_other(world: World) -> None:
    directory = world.mkdir(b"d")
    names = [b"%d" % number for number in range(10)]
    for name in names:
        world.make(name, directory)
    seen, cookie, end, parent = [], 0, False, None
    while not end:
        entries, end, parent = namespace.readdir(world.db, directory, cookie, 3)
        assert len(entries) <= 3
        seen += [entry.name for entry in entries]
        cookie = entries[-1].cookie
    assert seen == names
    assert parent is not None
    assert parent.inode == ROOT
    assert namespace.readdir(world.db, directory, 0, 10)[1] is True
    assert namespace.readdir(world.db, directory, 0, 9)[1] is False


def test_entries_carry_attributes_and_cookies_start_at_three(world: World) -> None:
    file = world.make(b"f")
    (entry,), end, parent = namespace.readdir(world.db, ROOT, 0, 10)
    assert (entry.cookie, entry.attr) == (FIRST_COOKIE, world.attr(file))
    assert end
    assert parent == world.attr(ROOT)


def test_readdir_of_what_is_no_directory(world: World) -> None:
    with pytest.raises(errors.NotDirectory):
        namespace.readdir(world.db, world.make(b"f"), 0, 10)
    with pytest.raises(errors.NoEntry):
        namespace.readdir(world.db, 999, 0, 10)


def test_changes_between_pages_neither_hide_nor_repeat_what_stays(world: World) -> None:
    for number in range(8):
        world.make(b"%d" % number)
    first, _end, _parent = namespace.readdir(world.db, ROOT, 0, 4)
    world.do(Unlink(parent=ROOT, name=b"1"))
    world.do(Unlink(parent=ROOT, name=b"5"))
    world.do(Rename(parent=ROOT, name=b"2", new_parent=ROOT, new_name=b"renamed"))
    world.do(Rename(parent=ROOT, name=b"0", new_parent=ROOT, new_name=b"6"))
    world.make(b"new")
    rest, end, _parent = namespace.readdir(world.db, ROOT, first[-1].cookie, 100)
    assert [entry.name for entry in first] == [b"0", b"1", b"2", b"3"]
    assert [entry.name for entry in rest] == [b"4", b"6", b"7", b"new"]
    assert end


def test_renaming_all_that_is_listed_comes_to_an_end(world: World) -> None:
    for number in range(6):
        world.make(b"%d" % number)
    cookie, renamed = 0, 0
    while entries := namespace.readdir(world.db, ROOT, cookie, 2)[0]:
        for entry in entries:
            new_name = entry.name + b".bak"
            world.do(Rename(parent=ROOT, name=entry.name, new_parent=ROOT, new_name=new_name))
            renamed += 1
        cookie = entries[-1].cookie
    assert renamed == 6


def test_a_name_that_returns_gets_a_new_cookie(world: World) -> None:
    file = world.make(b"f")
    world.do(Link(inode=file, parent=ROOT, name=b"g"))
    old = namespace.readdir(world.db, ROOT, 0, 10)[0][0].cookie
    world.do(Unlink(parent=ROOT, name=b"f"))
    world.do(Link(inode=file, parent=ROOT, name=b"f"))
    entries = namespace.readdir(world.db, ROOT, 0, 10)[0]
    assert [entry.name for entry in entries] == [b"g", b"f"]
    assert entries[1].cookie > old


def test_a_page_needs_no_sorting(world: World) -> None:
    plan = world.db.read("EXPLAIN QUERY PLAN " + namespace._READDIR, (ROOT, 0, 10))
    assert not any("TEMP B-TREE" in row[-1] for row in plan)
