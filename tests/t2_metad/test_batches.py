"""Batches: each operation stands alone, and the whole happens exactly once."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

import pytest

from dfswire import errors
from dfswire.batches import Batch
from dfswire.messages import Attr, Extent, Invalidated
from dfswire.operations import (
    AnyOperation,
    Commit,
    Create,
    Link,
    Release,
    RemoveXattr,
    Rename,
    RmDir,
    SetAttr,
    SetXattr,
    Unlink,
)
from metad.clients import batches
from metad.sessions import rows as sessions
from metad.storage.opening import open_database

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from metad.storage.database import Database
    from tests.t2_metad.conftest import World

ROOT = 1


def execute(
    world: World,
    sequence: int,
    *operations: AnyOperation,
    acknowledged: int = 0,
    session: str = "s",
) -> batches.Executed:
    batch = Batch(
        session=session,
        sequence=sequence,
        operations=list(operations),
        acknowledged=acknowledged,
    )
    world.now_ns += 1
    with world.db.transaction():
        return batches.execute(world.db, batch, world.now_ns)


def create(name: bytes, kind: int = stat.S_IFREG) -> Create:
    return Create(parent=ROOT, name=name, mode=kind | 0o755, uid=0, gid=0)


def test_every_operation_is_known(world: World) -> None:
    chunk = world.written(5)
    made = execute(world, 1, create(b"f"), create(b"d", stat.S_IFDIR), create(b"e", stat.S_IFDIR))
    file = made.reply.results[0].attrs[0].inode
    done = execute(
        world,
        2,
        Link(inode=file, parent=ROOT, name=b"g"),
        Rename(parent=ROOT, name=b"g", new_parent=ROOT, new_name=b"h"),
        RmDir(parent=ROOT, name=b"d"),
        SetAttr(inode=file, mode=0o600),
        SetXattr(inode=file, name=b"user.a", value=b"1"),
        RemoveXattr(inode=file, name=b"user.a"),
        Commit(
            inode=file,
            extents=[Extent(offset=0, length=5, chunk=chunk.chunk)],
            size=5,
            mtime_ns=6,
            chunks=[chunk],
        ),
        Unlink(parent=ROOT, name=b"h"),
        Release(inode=file),
    )
    assert [result.fault for result in done.reply.results] == [None] * 9
    assert done.effects.released == [file]
    assert done.reply.results[-2].attrs[0] == world.attr(file)
    assert world.attr(file).size == 5


def test_attributes_come_with_a_commit(world: World) -> None:
    file = world.make(b"f")
    commit = Commit(
        inode=file,
        extents=[Extent(offset=0, length=1, data=b"x")],
        size=1,
        mtime_ns=6,
        attributes=SetAttr(inode=file, mode=0o600, mtime_ns=5),
    )
    done = execute(world, 1, commit)
    (result,) = done.reply.results
    assert result.fault is None and result.attrs == [world.attr(file)]
    attr = world.attr(file)
    assert (attr.mode, attr.size, attr.mtime_ns) == (0o100600, 1, 5)
    changed = {(one.inode, one.what) for one in done.effects.invalidations}
    assert (ROOT, Invalidated.NAME) in changed


def test_a_failed_operation_is_undone_alone(world: World) -> None:
    done = execute(
        world,
        1,
        create(b"a"),
        create(b"a"),
        Rename(parent=ROOT, name=b"none", new_parent=ROOT, new_name=b"x"),
        create(b"b"),
    )
    codes = [result.fault.code if result.fault else "" for result in done.reply.results]
    assert codes == ["", "exists", "no_entry", ""]
    assert done.reply.results[1].attrs == []
    assert world.names().keys() == {b"a", b"b"}
    changed = [(one.inode, one.name, one.what) for one in done.effects.invalidations]
    assert changed == [
        (ROOT, b"", Invalidated.ATTR),
        (ROOT, b"a", Invalidated.NAME),
        (ROOT, b"b", Invalidated.NAME),
    ]


def test_what_a_failed_operation_began_is_undone(world: World) -> None:
    file = world.make(b"f")
    good, unknown = world.written(5), b"u" * 16
    commit = Commit(
        inode=file,
        extents=[Extent(offset=0, length=5, chunk=good.chunk)],
        size=5,
        mtime_ns=6,
        chunks=[good, type(good)(chunk=unknown, length=5, digest=good.digest, disks=["d1"])],
    )
    (result,) = execute(world, 1, commit).reply.results
    assert result.fault is not None
    assert result.fault.code == "unknown_chunk"
    assert world.chunk(good.chunk).state == "granted"


def test_a_repeated_batch_gets_the_same_reply_and_does_nothing(world: World) -> None:
    first = execute(world, 1, create(b"a"), create(b"a"))
    execute(world, 2, Unlink(parent=ROOT, name=b"a"))
    again = execute(world, 1, create(b"a"), create(b"a"))
    assert (first.repeated, again.repeated) == (False, True)
    assert again.reply == first.reply
    assert not again.effects.invalidations and not again.effects.orphaned
    assert world.names() == {}


def test_a_batch_of_faults_does_not_succeed_later(world: World) -> None:
    world.make(b"a")
    first = execute(world, 1, create(b"a"))
    execute(world, 2, Unlink(parent=ROOT, name=b"a"))
    assert execute(world, 1, create(b"a")).reply == first.reply
    assert world.names() == {}


def test_sequences_may_arrive_in_any_order(world: World) -> None:
    for sequence in (3, 1, 2):
        assert not execute(world, sequence, create(b"%d" % sequence)).repeated
    assert len(world.names()) == 3


def test_late_copies_of_acknowledged_batches_are_refused(world: World) -> None:
    for sequence in range(1, batches.PRUNE_EVERY + 1):
        execute(world, sequence, create(b"%d" % sequence), acknowledged=sequence - 1)
    stored = world.db.read("SELECT sequence FROM applied")
    assert stored == [(batches.PRUNE_EVERY,)]
    with pytest.raises(errors.Stale):
        execute(world, 1, create(b"late"))
    assert execute(world, batches.PRUNE_EVERY, create(b"x")).repeated
    execute(world, 100, create(b"skip"), acknowledged=90)
    with pytest.raises(errors.Stale):
        execute(world, 80, create(b"never executed"))
    execute(world, 101, create(b"older news"), acknowledged=5)
    assert sessions.acknowledged(world.db, "s") == 90


def test_only_sessions_that_exist(world: World) -> None:
    with pytest.raises(errors.SessionLost):
        execute(world, 1, create(b"a"), session="other")
    execute(world, 1, create(b"a"))
    with world.db.transaction():
        sessions.close_session(world.db, "s", world.now_ns)
    for sequence in (1, 2):
        with pytest.raises(errors.SessionLost):
            execute(world, sequence, create(b"b"))
    assert world.names().keys() == {b"a"}


def test_orphans_of_a_batch(world: World) -> None:
    files = [world.make(name) for name in (b"a", b"b")]
    done = execute(
        world, 1, Unlink(parent=ROOT, name=b"a", held=True), Unlink(parent=ROOT, name=b"b")
    )
    assert done.effects.orphaned == files
    assert done.effects.held == {files[0]}


async def test_exactly_once_across_a_restart(
    tmp_path: Path, findings: Callable[[Database], list[str]]
) -> None:
    url = f"sqlite://{tmp_path}/db"
    batch = Batch(session="s", sequence=1, operations=[create(b"a")])
    replies = []
    for attempt in range(2):
        db = open_database(url)
        if attempt == 0:
            stored = sessions.StoredSession("s", "h", "/mnt", 1, "0", 5)
            await db.write(lambda db=db, stored=stored: sessions.open_session(db, stored))
        done = await db.write(lambda db=db, at=attempt: batches.execute(db, batch, 100 + at))
        assert done.repeated == bool(attempt)
        replies.append(done.reply)
        assert findings(db) == []
        db.close()
    assert replies[0] == replies[1]
    attr = replies[0].results[0].attrs[0]
    assert isinstance(attr, Attr)
    assert attr.ctime_ns == 100
