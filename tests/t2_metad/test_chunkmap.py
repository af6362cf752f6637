"""How stored bytes join files, what readers are told, and what is refused."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

import pytest

from dfswire import errors
from dfswire.messages import INLINE_MAX_BYTES, Extent, Invalidated
from dfswire.operations import Unlink
from metad.copies import replicas
from metad.names import chunkmap
from metad.sessions import rows as sessions

if TYPE_CHECKING:
    from tests.t2_metad.conftest import World

ROOT = 1


def test_commit_makes_a_granted_chunk_part_of_the_file(world: World) -> None:
    file = world.make(b"f")
    chunk = world.written(100, ("d1", "d2"))
    assert world.chunk(chunk.chunk).state == "granted"
    extent = Extent(offset=10, length=50, chunk=chunk.chunk, chunk_offset=50)
    attr = world.commit(file, extent, size=200, mtime_ns=77, chunks=[chunk])
    assert (attr.size, attr.allocated_bytes, attr.mtime_ns) == (200, 50, 77)
    assert attr.ctime_ns == world.now_ns
    assert [(one.inode, one.what) for one in world.effects.invalidations] == [
        (file, Invalidated.ATTR | Invalidated.DATA)
    ]
    assert chunkmap.layout(world.db, file, 0, 1) == ([], {})
    located = {chunk.chunk: (100, ["d1", "d2"], 0)}
    assert chunkmap.layout(world.db, file, 0, 200) == ([extent], located)
    assert chunkmap.layout(world.db, file, 59, 1) == ([extent], located)
    assert chunkmap.layout(world.db, file, 60, 1) == ([], {})
    stored = world.chunk(chunk.chunk)
    assert stored == (chunk.chunk, 100, chunk.digest, 1, "live", 0)


def test_only_disks_that_acknowledged_are_good(world: World) -> None:
    file = world.make(b"f")
    chunk = world.granted("d1", "d2")
    answered = world.written(5, ("d3",))
    world.commit(
        file,
        Extent(offset=0, length=5, chunk=chunk),
        chunks=[type(answered)(chunk=chunk, length=5, digest=b"d" * 16, disks=["d1", "d3"])],
    )
    assert replicas.replicas_of(world.db, chunk) == [
        ("d1", "good"),
        ("d2", "granted"),
        ("d3", "good"),
    ]
    assert chunkmap.layout(world.db, file, 0, 5)[1] == {chunk: (5, ["d1", "d3"], 0)}


def test_a_file_shrinks_by_truncation_only(world: World) -> None:
    file = world.make(b"f")
    world.commit(file, Extent(offset=0, length=5, data=b"abcde"))
    assert world.commit(file, Extent(offset=0, length=1, data=b"x")).size == 5


def test_new_extents_trim_old_ones(world: World) -> None:
    file = world.make(b"f")
    chunk = world.live_chunk(file, 0, 100)
    world.commit(
        file, Extent(offset=20, length=3, data=b"abc"), Extent(offset=21, length=1, data=b"X")
    )
    found, _located = chunkmap.layout(world.db, file, 0, 100)
    assert found == [
        Extent(offset=0, length=20, chunk=chunk),
        Extent(offset=20, length=1, data=b"a"),
        Extent(offset=21, length=1, data=b"X"),
        Extent(offset=22, length=1, data=b"c"),
        Extent(offset=23, length=77, chunk=chunk, chunk_offset=23),
    ]
    assert world.chunk(chunk).refs == 2
    assert world.attr(file).allocated_bytes == 100


def test_a_chunk_that_loses_its_last_extent_is_dead(world: World) -> None:
    file = world.make(b"f")
    old = world.live_chunk(file, 0, 100)
    new = world.live_chunk(file, 0, 100)
    assert (world.chunk(old).state, world.chunk(new).state) == ("dead", "live")
    assert replicas.dead_chunks(world.db, world.now_ns + 1, 10) == [(old, ["d1", "d2"])]
    assert replicas.dead_chunks(world.db, world.now_ns, 10) == []


def test_extents_of_a_live_chunk_can_be_laid_again_in_its_file(world: World) -> None:
    file, other = world.make(b"f"), world.make(b"g")
    chunk = world.live_chunk(file, 0, 100)
    moved = Extent(offset=0, length=60, chunk=chunk, chunk_offset=40)
    world.commit(file, moved, Extent(offset=60, length=40, data=b"z" * 40))
    assert chunkmap.layout(world.db, file, 0, 10)[0] == [moved]
    with pytest.raises(errors.UnknownChunk):
        world.commit(other, moved)
    world.commit(file, Extent(offset=0, length=60, data=b"z" * 60))
    with pytest.raises(errors.UnknownChunk):
        world.commit(file, moved)


def test_a_chunk_that_no_extent_uses_is_garbage_at_once(world: World) -> None:
    file = world.make(b"f")
    unused, covered = world.written(), world.written()
    world.commit(
        file,
        Extent(offset=0, length=3, chunk=covered.chunk),
        Extent(offset=0, length=3, data=b"abc"),
        chunks=[unused, covered],
    )
    assert world.chunk(unused.chunk).state == world.chunk(covered.chunk).state == "dead"
    assert [chunk for chunk, _disks in replicas.dead_chunks(world.db, 1 << 62, 10)] == [
        unused.chunk,
        covered.chunk,
    ]


def test_chunks_that_cannot_be_committed(world: World) -> None:
    file = world.make(b"f")
    expired = world.written()
    world.now_ns += 10**9
    late = Extent(offset=0, length=1, chunk=expired.chunk)
    with pytest.raises(errors.UnknownChunk):
        world.commit(file, late, chunks=[expired])
    foreign = world.written()
    world.session = "another"
    with pytest.raises(errors.UnknownChunk):
        world.commit(file, Extent(offset=0, length=1, chunk=foreign.chunk), chunks=[foreign])
    world.session = "s"
    with pytest.raises(errors.UnknownChunk):
        world.commit(file, Extent(offset=0, length=1, chunk=foreign.chunk))
    with pytest.raises(errors.DiskFailed):
        world.commit(
            file,
            chunks=[type(foreign)(chunk=foreign.chunk, length=1, digest=b"d" * 16, disks=["none"])],
        )
    for chunk in (expired, foreign):
        assert world.chunk(chunk.chunk).state == "granted"
    chunk = world.written()
    world.commit(file, Extent(offset=0, length=1, chunk=chunk.chunk), chunks=[chunk])
    with pytest.raises(errors.UnknownChunk):
        world.commit(file, Extent(offset=0, length=1, chunk=chunk.chunk), chunks=[chunk])


def test_commits_that_make_no_sense(world: World) -> None:
    file, directory = world.make(b"f"), world.mkdir(b"d")
    fifo = world.make(b"p", mode=stat.S_IFIFO)
    chunk = world.written(10)
    one = Extent(offset=0, length=1, data=b"x")
    big = b"x" * (INLINE_MAX_BYTES + 1)
    for inode, extent, more, error in (
        (directory, one, {}, errors.IsDirectory),
        (fifo, one, {}, errors.Invalid),
        (999, one, {}, errors.NoEntry),
        (file, one, {"size": 0}, errors.Invalid),
        (file, one, {"mtime_ns": 1 << 63}, errors.Invalid),
        (file, Extent(offset=0, length=len(big), data=big), {}, errors.Invalid),
        (
            file,
            Extent(offset=0, length=6, chunk=chunk.chunk, chunk_offset=5),
            {"chunks": [chunk]},
            errors.Invalid,
        ),
    ):
        with pytest.raises(error):
            world.commit(inode, extent, **more)
    assert world.attr(file).size == 0


def test_grants_need_a_session_and_known_disks(world: World) -> None:
    with pytest.raises(errors.SessionLost), world.db.transaction():
        chunkmap.grant(world.db, "nobody", [(b"c" * 16, ["d1"])], 5)
    with pytest.raises(errors.DiskFailed), world.db.transaction():
        chunkmap.grant(world.db, "s", [(b"c" * 16, ["none"])], 5)
    assert replicas.chunk_info(world.db, b"c" * 16) is None


def test_a_purged_inode_leaves_its_chunks_dead(world: World) -> None:
    file = world.make(b"f")
    chunk = world.live_chunk(file)
    with pytest.raises(errors.NoEntry):
        world.purge(file)
    world.do(Unlink(parent=ROOT, name=b"f"))
    assert chunkmap.orphans(world.db) == [file]
    world.purge(file)
    assert chunkmap.orphans(world.db) == []
    assert world.chunk(chunk).state == "dead"
    assert chunkmap.layout(world.db, file, 0, 1000) == ([], {})


def test_the_end_of_a_session_ends_its_grants(world: World) -> None:
    file = world.make(b"f")
    live, granted = world.live_chunk(file), world.granted("d1")
    with world.db.transaction():
        assert sessions.close_session(world.db, "s", world.now_ns)
    assert (world.chunk(live).state, world.chunk(granted).state) == ("live", "dead")
