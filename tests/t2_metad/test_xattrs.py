"""Extended attributes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from dfswire import errors
from dfswire.messages import Invalidated, Xattr
from dfswire.operations import XATTR_CREATE, XATTR_REPLACE, RemoveXattr, SetXattr, Unlink
from metad.names.xattrs import xattrs

if TYPE_CHECKING:
    from tests.t2_metad.conftest import World


def test_set_list_remove(world: World) -> None:
    file = world.make(b"f")
    world.do(SetXattr(inode=file, name=b"user.b", value=b"1"))
    (attr,) = world.do(SetXattr(inode=file, name=b"user.a", value=b"\0" * 65536))
    assert attr.ctime_ns == world.now_ns
    assert [(one.inode, one.what) for one in world.effects.invalidations] == [
        (file, Invalidated.ATTR)
    ]
    assert xattrs(world.db, file) == [
        Xattr(name=b"user.a", value=b"\0" * 65536),
        Xattr(name=b"user.b", value=b"1"),
    ]
    (attr,) = world.do(RemoveXattr(inode=file, name=b"user.a"))
    assert attr.ctime_ns == world.now_ns
    assert xattrs(world.db, file) == [Xattr(name=b"user.b", value=b"1")]


def test_create_and_replace(world: World) -> None:
    file = world.make(b"f")
    with pytest.raises(errors.NoAttribute):
        world.do(SetXattr(inode=file, name=b"user.a", value=b"1", flags=XATTR_REPLACE))
    world.do(SetXattr(inode=file, name=b"user.a", value=b"1", flags=XATTR_CREATE))
    with pytest.raises(errors.Exists):
        world.do(SetXattr(inode=file, name=b"user.a", value=b"2", flags=XATTR_CREATE))
    world.do(SetXattr(inode=file, name=b"user.a", value=b"3", flags=XATTR_REPLACE))
    assert xattrs(world.db, file) == [Xattr(name=b"user.a", value=b"3")]


def test_errors(world: World) -> None:
    file = world.make(b"f")
    for op, error in (
        (SetXattr(inode=999, name=b"a", value=b""), errors.NoEntry),
        (SetXattr(inode=file, name=b"a", value=b"", flags=8), errors.Invalid),
        (RemoveXattr(inode=999, name=b"a"), errors.NoEntry),
        (RemoveXattr(inode=file, name=b"a"), errors.NoAttribute),
    ):
        with pytest.raises(error):
            world.do(op)
    with pytest.raises(errors.NoEntry):
        xattrs(world.db, 999)


def test_they_go_with_the_inode(world: World) -> None:
    file = world.make(b"f")
    world.do(SetXattr(inode=file, name=b"user.a", value=b"1"))
    world.do(Unlink(parent=1, name=b"f"))
    world.purge(file)
    assert world.db.read("SELECT * FROM xattr") == []


def test_what_cannot_be_listed_or_sent_in_one_reply_is_refused(world: World) -> None:
    file = world.make(b"f")
    for number in range(15):
        world.do(SetXattr(inode=file, name=b"user.%d" % number, value=b"v" * 65_536))
    with pytest.raises(errors.NoSpace):
        world.do(SetXattr(inode=file, name=b"user.more", value=b"v" * 65_536))
    world.do(SetXattr(inode=file, name=b"user.1", value=b"w" * 65_536))
    world.do(SetXattr(inode=file, name=b"user.less", value=b""))
    other = world.make(b"g")
    for number in range(256):
        world.do(SetXattr(inode=other, name=b"user.%250d" % number, value=b""))
    with pytest.raises(errors.NoSpace):
        world.do(SetXattr(inode=other, name=b"user.x", value=b""))


def test_both_flags_at_once_can_only_fail(world: World) -> None:
    file = world.make(b"f")
    op = SetXattr(inode=file, name=b"user.a", value=b"", flags=XATTR_CREATE | XATTR_REPLACE)
    with pytest.raises(errors.NoAttribute):
        world.do(op)
    world.do(SetXattr(inode=file, name=b"user.a", value=b""))
    with pytest.raises(errors.Exists):
        world.do(op)
