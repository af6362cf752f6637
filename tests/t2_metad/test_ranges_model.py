"""Random writes, holes, truncations and copies in two files, against plain bytearrays."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dfswire.errors import Invalid, NoData
from dfswire.messages import Extent
from dfswire.metadata import SEEK_DATA, SEEK_HOLE
from dfswire.operations import (
    FALLOC_KEEP_SIZE,
    FALLOC_PUNCH_HOLE,
    FALLOC_ZERO_RANGE,
    CopyRange,
    Fallocate,
    SetAttr,
    Unlink,
)
from metad.names import chunkmap, ranges

if TYPE_CHECKING:
    from collections.abc import Callable

    from metad.storage.database import Database
    from tests.t2_metad.conftest import World

FILE_BYTES = 24  # few, so that ranges meet

files = st.integers(0, 1)
offsets = st.integers(0, FILE_BYTES)
lengths = st.integers(1, 16)
modes = st.sampled_from(
    [
        0,
        FALLOC_KEEP_SIZE,
        FALLOC_PUNCH_HOLE | FALLOC_KEEP_SIZE,
        FALLOC_ZERO_RANGE,
        FALLOC_ZERO_RANGE | FALLOC_KEEP_SIZE,
    ]
)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("write"), files, offsets, lengths, st.booleans()),
        st.tuples(st.just("truncate"), files, offsets),
        st.tuples(st.just("fallocate"), files, modes, offsets, lengths),
        st.tuples(st.just("copy"), files, offsets, files, offsets, lengths),
    ),
    min_size=4,
    max_size=20,
)


class File:
    """What a file should be: its bytes, and which of them are data."""

    def __init__(self, inode: int) -> None:
        self.inode = inode
        self.content = bytearray()
        self.is_data = bytearray()

    def resize(self, size: int) -> None:
        for each in (self.content, self.is_data):
            del each[size:]
            each.extend(bytes(size - len(each)))

    def put(self, offset: int, content: bytes | bytearray, is_data: bytes | bytearray) -> None:
        self.resize(max(len(self.content), offset + len(content)))
        self.content[offset : offset + len(content)] = content
        self.is_data[offset : offset + len(content)] = is_data

    def seek(self, offset: int, whence: int) -> int:
        """As lseek(2); -1 for ENXIO."""
        if offset >= len(self.content):
            return -1
        if whence == SEEK_DATA:
            return self.is_data.find(1, offset)
        found = self.is_data.find(0, offset)
        return len(self.content) if found < 0 else found


class Model:
    """Two files in a World beside what they should be."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.files = [File(world.make(name)) for name in (b"0", b"1")]
        self.chunks: dict[bytes, bytes] = {}
        self._next = 0

    def write(self, number: int, offset: int, length: int, inline: bool) -> None:
        self._next += 1
        data = bytes((self._next * 31 + at) % 255 + 1 for at in range(length))
        file = self.files[number]
        if inline:
            self.world.commit(file.inode, Extent(offset=offset, length=length, data=data))
        else:
            chunk = self.world.written(length + 3)
            self.chunks[chunk.chunk] = b"xxx" + data
            extent = Extent(offset=offset, length=length, chunk=chunk.chunk, chunk_offset=3)
            self.world.commit(file.inode, extent, chunks=[chunk])
        file.put(offset, data, b"\1" * length)

    def truncate(self, number: int, size: int) -> None:
        self.world.do(SetAttr(inode=self.files[number].inode, size=size))
        self.files[number].resize(size)

    def fallocate(self, number: int, mode: int, offset: int, length: int) -> None:
        file = self.files[number]
        self.world.do(Fallocate(inode=file.inode, mode=mode, offset=offset, length=length))
        size, end = len(file.content), offset + length
        file.resize(max(size, end))
        if mode & ~FALLOC_KEEP_SIZE:
            file.put(offset, bytes(length), bytes(length))
        if mode & FALLOC_KEEP_SIZE:
            file.resize(size)

    def copy(self, number: int, start: int, other: int, offset: int, length: int) -> None:
        source, target = self.files[number], self.files[other]
        operation = CopyRange(
            source=source.inode,
            source_offset=start,
            inode=target.inode,
            offset=offset,
            length=length,
        )
        count = max(min(length, len(source.content) - start), 0)
        if source is target and abs(start - offset) < count:
            with pytest.raises(Invalid):
                self.world.do(operation)
            return
        self.world.do(operation)
        if count:
            end = start + count
            target.put(offset, source.content[start:end], source.is_data[start:end])

    def check(self) -> None:
        for file in self.files:
            assert self._read(file.inode) == file.content
            for whence in (SEEK_DATA, SEEK_HOLE):
                for offset in range(len(file.content) + 2):
                    found = self._seek(file.inode, offset, whence)
                    assert found == file.seek(offset, whence), (offset, whence)

    def _seek(self, inode: int, offset: int, whence: int) -> int:
        try:
            return ranges.seek(self.world.db, inode, offset, whence)
        except NoData:
            return -1

    def _read(self, inode: int) -> bytearray:
        """The file as a client would read it."""
        size = self.world.attr(inode).size
        data = bytearray(size)
        for extent in chunkmap.layout(self.world.db, inode, 0, size + 1)[0]:
            source = self.chunks[extent.chunk] if extent.chunk else extent.data
            part = source[extent.chunk_offset : extent.chunk_offset + extent.length]
            assert len(part) == extent.length
            data[extent.offset : extent.offset + extent.length] = part
        return data


def test_parts_of_inline_bytes_and_of_chunks_are_copied(world: World) -> None:
    """By hand what the random test below meets seldom."""
    model = Model(world)
    for inline in (True, False):
        model.write(0, 5, 10, inline)
        model.write(1, 0, 16, not inline)
        model.copy(0, 8, 1, 3, 4)
        model.check()
        model.fallocate(1, FALLOC_ZERO_RANGE, 1, 14)
        model.check()


@settings(max_examples=150, deadline=None)
@given(steps=steps)
def test_two_files_read_as_they_were_changed(
    steps: list[tuple[str, object]],
    new_world: Callable[[], World],
    findings: Callable[[Database], list[str]],
) -> None:
    world = new_world()
    model = Model(world)
    for kind, *what in steps:
        getattr(model, kind)(*what)
        assert findings(world.db) == []
    model.check()
    for file, name in zip(model.files, (b"0", b"1"), strict=True):
        world.do(Unlink(parent=1, name=name))
        world.purge(file.inode)
    assert findings(world.db) == []
    assert world.db.read("SELECT * FROM chunk WHERE state <> 'dead'") == []
    world.db.close()
