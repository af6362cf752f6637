"""fallocate, copy_file_range and SEEK_DATA: sizes, times, what is shared, what is refused."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

import pytest

from dfswire import errors
from dfswire.messages import FILE_MAX_BYTES, Extent, Invalidated
from dfswire.metadata import SEEK_DATA
from dfswire.operations import (
    FALLOC_KEEP_SIZE,
    FALLOC_PUNCH_HOLE,
    FALLOC_ZERO_RANGE,
    CopyRange,
    Fallocate,
    Unlink,
)
from metad.copies import replicas
from metad.names import ranges

if TYPE_CHECKING:
    from tests.t2_metad.conftest import World

PUNCH = FALLOC_PUNCH_HOLE | FALLOC_KEEP_SIZE


def copy(source: int, inode: int, length: int, *, at: int = 0, offset: int = 0) -> CopyRange:
    return CopyRange(source=source, source_offset=at, inode=inode, offset=offset, length=length)


@pytest.mark.parametrize(
    ("mode", "size"),
    [(0, 250), (FALLOC_KEEP_SIZE, 100), (PUNCH, 100), (FALLOC_ZERO_RANGE, 250)],
)
def test_every_mode_changes_the_times_and_some_the_size(world: World, mode: int, size: int) -> None:
    file = world.make(b"f")
    world.live_chunk(file, 0, 100)
    (attr,) = world.do(Fallocate(inode=file, mode=mode, offset=50, length=200))
    assert (attr.size, attr.mtime_ns, attr.ctime_ns) == (size, world.now_ns, world.now_ns)
    assert attr.allocated_bytes == (50 if mode & ~FALLOC_KEEP_SIZE else 100)
    assert [(each.inode, each.what) for each in world.effects.invalidations] == [
        (file, Invalidated.ATTR | Invalidated.DATA)
    ]


def test_preallocation_needs_room_for_what_is_missing(world: World) -> None:
    file = world.make(b"f")
    world.live_chunk(file, 0, 100)
    world.free_bytes = 50
    for mode in (0, FALLOC_KEEP_SIZE):
        world.do(Fallocate(inode=file, mode=mode, offset=0, length=150))
        with pytest.raises(errors.NoSpace):
            world.do(Fallocate(inode=file, mode=mode, offset=0, length=151))
    world.do(Fallocate(inode=file, mode=FALLOC_ZERO_RANGE, offset=0, length=1000))


def test_fallocations_that_cannot_be(world: World) -> None:
    file, directory = world.make(b"f"), world.mkdir(b"d")
    fifo = world.make(b"p", mode=stat.S_IFIFO | 0o600)
    for mode in (FALLOC_PUNCH_HOLE, 8, 32, 64):
        with pytest.raises(errors.NotSupported):
            world.do(Fallocate(inode=file, mode=mode, offset=0, length=1))
    for mode in (0, FALLOC_KEEP_SIZE, PUNCH, FALLOC_ZERO_RANGE):
        with pytest.raises(errors.FileTooBig):
            world.do(Fallocate(inode=file, mode=mode, offset=FILE_MAX_BYTES, length=1))
    with pytest.raises(errors.IsDirectory):
        world.do(Fallocate(inode=directory, mode=0, offset=0, length=1))
    with pytest.raises(errors.Invalid):
        world.do(Fallocate(inode=fifo, mode=0, offset=0, length=1))
    with pytest.raises(errors.NoEntry):
        world.do(Fallocate(inode=999, mode=0, offset=0, length=1))


def test_a_copy_shares_chunks_and_survives_its_source(world: World) -> None:
    source, target = world.make(b"s"), world.make(b"t")
    chunk = world.live_chunk(source, 0, 100)
    world.commit(source, Extent(offset=100, length=4, data=b"abcd"))
    (attr,) = world.do(copy(source, target, 1000, at=40, offset=7))
    assert (attr.inode, attr.size, attr.allocated_bytes) == (target, 7 + 64, 64)
    assert attr.mtime_ns == attr.ctime_ns == world.now_ns
    assert [each.inode for each in world.effects.invalidations] == [target]
    assert world.chunk(chunk).refs == 2
    world.do(Unlink(parent=1, name=b"s"))
    world.purge(source)
    assert (world.chunk(chunk).refs, world.chunk(chunk).state) == (1, "live")
    assert replicas.dead_chunks(world.db, 1 << 62, 10) == []
    world.do(Fallocate(inode=target, mode=PUNCH, offset=0, length=67))
    assert world.chunk(chunk).state == "dead"


def test_a_copy_replaces_what_was_there_and_copies_holes(world: World) -> None:
    source, target = world.make(b"s"), world.make(b"t")
    old = [world.live_chunk(target, at, 10) for at in (0, 10, 20)]
    world.live_chunk(source, 20, 10)
    world.do(copy(source, target, 24))
    assert [world.chunk(each).state for each in old] == ["dead", "dead", "live"]
    with pytest.raises(errors.NoData):
        ranges.seek(world.db, target, 30, SEEK_DATA)
    assert ranges.seek(world.db, target, 0, SEEK_DATA) == 20


def test_copies_that_cannot_be(world: World) -> None:
    file, directory = world.make(b"f"), world.mkdir(b"d")
    fifo = world.make(b"p", mode=stat.S_IFIFO | 0o600)
    world.live_chunk(file, 0, 100)
    before = world.attr(file)
    for source, target, error in (
        (directory, file, errors.IsDirectory),
        (file, directory, errors.IsDirectory),
        (fifo, file, errors.Invalid),
        (file, fifo, errors.Invalid),
        (file, 999, errors.NoEntry),
        (999, file, errors.NoEntry),
    ):
        with pytest.raises(error):
            world.do(copy(source, target, 1))
    with pytest.raises(errors.Invalid):
        world.do(copy(file, file, 60, offset=50))
    with pytest.raises(errors.FileTooBig):
        world.do(copy(file, file, 60, offset=FILE_MAX_BYTES - 59))
    for at, length in ((100, 5), (5000, 5), (0, 0)):
        assert world.do(copy(file, file, length, at=at)) == [before]
    assert world.attr(file) == before
    assert not world.effects.invalidations


def test_a_copy_of_very_many_extents_is_short(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranges, "COPY_EXTENTS_MAX", 3)
    source, target = world.make(b"s"), world.make(b"t")
    for at in range(5):
        world.live_chunk(source, at * 10, 10)
    with world.db.transaction():
        _, length = ranges.copy_range(world.db, copy(source, target, 50), 1, world.effects)
    assert length == 30
    with world.db.transaction():
        _, length = ranges.copy_range(
            world.db, copy(source, target, 50, at=30, offset=30), 1, world.effects
        )
    assert length == 20


def test_seeks_that_cannot_be(world: World) -> None:
    file, directory = world.make(b"f"), world.mkdir(b"d")
    world.live_chunk(file, 0, 10)
    with pytest.raises(errors.Invalid):
        ranges.seek(world.db, file, 0, 0)
    with pytest.raises(errors.NoData):
        ranges.seek(world.db, file, 10, SEEK_DATA)
    with pytest.raises(errors.IsDirectory):
        ranges.seek(world.db, directory, 0, SEEK_DATA)
