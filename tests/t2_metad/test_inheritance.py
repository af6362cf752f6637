"""ACLs in the database: set, changed by chmod, inherited; and who is told of it."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

import pytest

from dfswire import errors
from dfswire.messages import ROOT_INODE, Invalidated
from dfswire.operations import ACL_ACCESS, ACL_DEFAULT, Create, Link, RemoveXattr, SetAttr, SetXattr
from metad.names import acl, rows
from metad.names.acl import Acl, Entry
from metad.names.xattrs import value

if TYPE_CHECKING:
    from tests.t2_metad.conftest import World

EMPTY = bytes.fromhex("02000000")


def listed(owner: int, user: int, group: int, mask: int, others: int) -> Acl:
    """With one entry for user 1000."""
    return (
        Entry(acl.USER_OBJ, owner),
        Entry(acl.USER, user, 1000),
        Entry(acl.GROUP_OBJ, group),
        Entry(acl.MASK, mask),
        Entry(acl.OTHER, others),
    )


MINIMAL = (Entry(acl.USER_OBJ, 7), Entry(acl.GROUP_OBJ, 0), Entry(acl.OTHER, 1))


def access_of(world: World, inode: int) -> Acl | None:
    found = value(world.db, inode, ACL_ACCESS)
    return None if found is None else acl.parse(found)


def set_acl(world: World, inode: int, entries: Acl, name: bytes = ACL_ACCESS) -> int:
    """The mode afterwards."""
    (attr,) = world.do(SetXattr(inode=inode, name=name, value=acl.build(entries)))
    assert attr.ctime_ns == world.now_ns
    return stat.S_IMODE(attr.mode)


def test_an_acl_changes_the_mode_and_chmod_changes_the_acl(world: World) -> None:
    file = world.make(b"f", mode=0o4644)
    assert set_acl(world, file, listed(6, 7, 4, 5, 1)) == 0o4651
    assert access_of(world, file) == listed(6, 7, 4, 5, 1)
    world.do(SetAttr(inode=file, mode=0o720))
    assert access_of(world, file) == listed(7, 7, 4, 2, 0)
    world.do(SetAttr(inode=file, uid=3))
    assert access_of(world, file) == listed(7, 7, 4, 2, 0)


def test_an_acl_that_says_no_more_than_the_mode_is_not_kept(world: World) -> None:
    file = world.make(b"f")
    set_acl(world, file, listed(6, 7, 4, 5, 1))
    assert set_acl(world, file, MINIMAL) == 0o701
    assert access_of(world, file) is None


def test_removing_an_acl_leaves_the_mode_and_may_be_repeated(world: World) -> None:
    file = world.make(b"f")
    set_acl(world, file, listed(6, 7, 4, 5, 1))
    for _ in range(2):
        (attr,) = world.do(RemoveXattr(inode=file, name=ACL_ACCESS))
        assert stat.S_IMODE(attr.mode) == 0o651
        assert access_of(world, file) is None
    set_acl(world, file, listed(6, 7, 4, 5, 1))
    world.do(SetXattr(inode=file, name=ACL_ACCESS, value=EMPTY))
    assert access_of(world, file) is None


def test_the_setgid_bit_goes_when_the_caller_is_not_of_the_group(world: World) -> None:
    file = world.make(b"f", mode=0o2755)
    op = SetXattr(
        inode=file, name=ACL_ACCESS, value=acl.build(listed(6, 7, 4, 5, 1)), clear_setgid=True
    )
    assert stat.S_IMODE(world.do(op)[0].mode) == 0o651


def test_what_cannot_have_an_acl(world: World) -> None:
    file = world.make(b"f")
    link = world.make(b"l", mode=stat.S_IFLNK | 0o777, target=b"f")
    full = acl.build(listed(6, 7, 4, 5, 1))
    for inode, name, content, error in (
        (file, ACL_DEFAULT, full, errors.AccessDenied),
        (file, ACL_ACCESS, b"nonsense", errors.Invalid),
        (link, ACL_ACCESS, full, errors.NotSupported),
    ):
        with pytest.raises(error):
            world.do(SetXattr(inode=inode, name=name, value=content))
    world.do(SetXattr(inode=file, name=ACL_DEFAULT, value=EMPTY))


def test_a_default_acl_is_inherited_in_place_of_the_umask(world: World) -> None:
    directory = world.mkdir(b"d")
    default = listed(7, 6, 5, 7, 4)
    set_acl(world, directory, default, ACL_DEFAULT)
    assert stat.S_IMODE(world.attr(directory).mode) == 0o755
    file = world.make(b"f", directory, mode=0o666, umask=0o077)
    assert not world.effects.bare
    assert stat.S_IMODE(world.attr(file).mode) == 0o664
    assert access_of(world, file) == listed(6, 6, 5, 6, 4)
    assert value(world.db, file, ACL_DEFAULT) is None
    below = world.mkdir(b"s", directory, mode=0o777, umask=0o077)
    assert access_of(world, below) == default
    assert value(world.db, below, ACL_DEFAULT) == acl.build(default)
    link = world.make(b"l", directory, mode=stat.S_IFLNK | 0o777, target=b"f", umask=0o077)
    assert stat.S_IMODE(world.attr(link).mode) == 0o777
    assert access_of(world, link) is None


def test_a_minimal_default_acl_gives_a_mode_and_no_acl(world: World) -> None:
    directory = world.mkdir(b"d")
    set_acl(world, directory, MINIMAL, ACL_DEFAULT)
    file = world.make(b"f", directory, mode=0o666, umask=0o077)
    assert world.effects.bare == [file]
    assert stat.S_IMODE(world.attr(file).mode) == 0o600
    assert access_of(world, file) is None
    assert world.mkdir(b"s", directory)
    assert not world.effects.bare  # it has the default ACL


def test_without_a_default_acl_the_umask_counts(world: World) -> None:
    file = world.make(b"f", mode=0o4666, umask=0o027)
    assert world.effects.bare == [file]
    assert stat.S_IMODE(world.attr(file).mode) == 0o4640
    world.do(Create(parent=ROOT_INODE, name=b"f", mode=0o100644, uid=0, gid=0, exclusive=False))
    assert not world.effects.bare  # it was there before


def test_kernels_ask_for_the_names_of_what_changed_owner_mode_or_acl(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = world.mkdir(b"d")
    file = world.make(b"f")
    world.do(Link(inode=file, parent=directory, name=b"g"))
    names = {(ROOT_INODE, b"f"), (directory, b"g")}
    setting = SetXattr(inode=file, name=ACL_ACCESS, value=acl.build(listed(6, 7, 4, 5, 1)))
    for op in (SetAttr(inode=file, mode=0o600), SetAttr(inode=file, uid=1), setting):
        world.do(op)
        told = {(one.inode, one.name): one.what for one in world.effects.invalidations}
        assert told == {(file, b""): Invalidated.ATTR, **dict.fromkeys(names, Invalidated.NAME)}
    world.do(SetAttr(inode=file, mtime_ns=1))
    assert [one.inode for one in world.effects.invalidations] == [file]
    monkeypatch.setattr(rows, "NAMES_TOLD_MAX", 1)
    world.do(SetAttr(inode=file, mode=0o600))
    told = {(one.inode, one.name): one.what for one in world.effects.invalidations}
    everything = dict.fromkeys([(ROOT_INODE, b""), (directory, b"")], Invalidated.ALL_NAMES)
    assert told == {(file, b""): Invalidated.ATTR, **everything}
