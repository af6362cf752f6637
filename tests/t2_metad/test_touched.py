"""Whatever an operation tells or changes is among the parts for which leases are settled first.

All operations but Access: its atime interrupts nobody.
"""

from __future__ import annotations

import stat
from collections.abc import Callable
from typing import TYPE_CHECKING

from hypothesis import given, settings
from hypothesis import strategies as st

from dfswire.batches import Batch
from dfswire.messages import Extent, Invalidated
from dfswire.operations import (
    ACL_ACCESS,
    AnyOperation,
    Commit,
    CopyRange,
    Create,
    CreateUnnamed,
    Fallocate,
    Link,
    Release,
    RemoveXattr,
    Rename,
    RmDir,
    SetAttr,
    SetFlags,
    SetXattr,
    Unlink,
)
from metad.clients import batches
from metad.clients.touched import touched
from metad.leases.table import ATTR, DATA, NAMES

if TYPE_CHECKING:
    from tests.t2_metad.conftest import World

NAMES_USED = (b"a", b"b")
inodes = st.sampled_from([1, 1, 2, 3, 4])  # the root, and what is made first
names = st.sampled_from(NAMES_USED)
modes = st.sampled_from([0o100644, 0o040755, 0o120777])
operations: st.SearchStrategy[AnyOperation] = st.one_of(
    st.builds(
        lambda parent, name, mode, exclusive: Create(
            parent=parent,
            name=name,
            mode=mode,
            uid=0,
            gid=0,
            target=b"t" if stat.S_ISLNK(mode) else b"",
            exclusive=exclusive,
        ),
        inodes,
        names,
        modes,
        st.booleans(),
    ),
    st.builds(
        lambda parent: CreateUnnamed(parent=parent, mode=0o100600, uid=0, gid=0, umask=0), inodes
    ),
    st.builds(
        lambda inode, parent, name: Link(inode=inode, parent=parent, name=name),
        inodes,
        inodes,
        names,
    ),
    st.builds(lambda parent, name: Unlink(parent=parent, name=name), inodes, names),
    st.builds(lambda parent, name: RmDir(parent=parent, name=name), inodes, names),
    st.builds(
        lambda parent, name, other, new, flags: Rename(
            parent=parent, name=name, new_parent=other, new_name=new, flags=flags
        ),
        inodes,
        names,
        inodes,
        names,
        st.sampled_from([0, 1, 2]),
    ),
    st.builds(lambda inode, mode: SetAttr(inode=inode, mode=mode), inodes, st.just(0o600)),
    st.builds(lambda inode: SetAttr(inode=inode, size=3), inodes),
    st.builds(lambda inode: SetFlags(inode=inode, flags=0), inodes),
    st.builds(lambda inode: SetXattr(inode=inode, name=b"user.x", value=b""), inodes),
    st.builds(
        lambda inode: SetXattr(
            inode=inode,
            name=ACL_ACCESS,
            value=bytes.fromhex("0200000001000700ffffffff04000500ffffffff20000500ffffffff"),
        ),
        inodes,
    ),
    st.builds(lambda inode: RemoveXattr(inode=inode, name=b"user.x"), inodes),
    st.builds(lambda inode: RemoveXattr(inode=inode, name=ACL_ACCESS), inodes),
    st.builds(
        lambda inode: Commit(
            inode=inode, extents=[Extent(offset=0, length=1, data=b"x")], size=1, mtime_ns=1
        ),
        inodes,
    ),
    st.builds(
        lambda inode: Commit(
            inode=inode,
            extents=[],
            size=0,
            mtime_ns=1,
            attributes=SetAttr(inode=inode, uid=7),
        ),
        inodes,
    ),
    st.builds(lambda inode: Fallocate(inode=inode, mode=3, offset=0, length=9), inodes),
    st.builds(
        lambda source, inode: CopyRange(
            source=source, source_offset=0, inode=inode, offset=4, length=2
        ),
        inodes,
        inodes,
    ),
    st.builds(lambda inode: Release(inode=inode), inodes),
)


class Before:
    """What `touched` said in the transaction, just before the operation was executed."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.parts: dict[int, int] = {}

    def look(self, op: AnyOperation) -> None:
        self.parts = touched(self._world.db, op)


@settings(max_examples=100)
@given(st.lists(operations, min_size=1, max_size=15))
def test_nothing_is_left_out(new_world: Callable[[], World], steps: list[AnyOperation]) -> None:
    world = new_world()
    for name, mode in ((b"a", 0o100644), (b"b", 0o040755)):
        made = world.make(name, mode=mode)
        if stat.S_ISREG(mode):
            world.commit(made, Extent(offset=0, length=9, data=b"123456789"))
    for number, op in enumerate(steps):
        before = Before(world)
        with world.db.transaction():
            executed = batches.execute(
                world.db,
                Batch(session=world.session, sequence=number + 1, operations=[op]),
                world.now_ns + number,
                before.look,
            )
        (result,) = executed.reply.results
        made = result.attrs[0].inode if result.attrs else 0
        if not isinstance(op, (Create, CreateUnnamed)):
            made = 0
        for attr in result.attrs:
            assert attr.inode == made or before.parts.get(attr.inode, 0) & ATTR, op
        for change in executed.effects.invalidations:
            parts = change.what & (ATTR | DATA | NAMES)
            if change.what & Invalidated.ALL_NAMES:
                parts |= NAMES
            assert change.inode == made or not parts & ~before.parts.get(change.inode, 0), (
                op,
                change,
            )
    world.db.close()
