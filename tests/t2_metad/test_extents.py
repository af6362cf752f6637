"""Random commits and truncations against a plain bytearray, read back through layout."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hypothesis import given, settings
from hypothesis import strategies as st

from dfswire.messages import Extent
from dfswire.operations import SetAttr, Unlink
from metad.names import chunkmap

if TYPE_CHECKING:
    from collections.abc import Callable

    from metad.storage.database import Database
    from tests.t2_metad.conftest import World

FILE_BYTES = 64

ranges = st.tuples(st.integers(0, FILE_BYTES), st.integers(1, 16))
writes = st.tuples(st.just("chunk"), st.lists(ranges, min_size=1, max_size=4))
inline_writes = st.tuples(st.just("inline"), st.lists(ranges, min_size=1, max_size=4))
truncations = st.tuples(st.just("truncate"), st.integers(0, FILE_BYTES + 20))
steps = st.lists(st.one_of(writes, inline_writes, truncations), max_size=12)


class Model:
    """A file in a World beside the bytes it should have."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.file = world.make(b"f")
        self.expected = bytearray()
        self.contents: dict[bytes, bytes] = {}
        self._next = 0

    def write(self, ranges: list[tuple[int, int]], inline: bool) -> None:
        """Commit the ranges, packed into one chunk or inline."""
        payload, extents = b"", []
        chunk = None if inline else self.world.written(sum(length for _at, length in ranges))
        for offset, length in ranges:
            data = self._fresh(length)
            where = (
                {"chunk": chunk.chunk, "chunk_offset": len(payload)} if chunk else {"data": data}
            )
            extents.append(Extent(offset=offset, length=length, **where))
            payload += data
            self.expected.extend(bytes(max(offset + length - len(self.expected), 0)))
            self.expected[offset : offset + length] = data
        if chunk:
            self.contents[chunk.chunk] = payload
        self.world.commit(self.file, *extents, chunks=[chunk] if chunk else [])

    def truncate(self, size: int) -> None:
        """Cut, or grow by a hole."""
        self.world.do(SetAttr(inode=self.file, size=size))
        del self.expected[size:]
        self.expected.extend(bytes(size - len(self.expected)))

    def read(self) -> bytearray:
        """The file as a client would read it."""
        size = self.world.attr(self.file).size
        found, _located = chunkmap.layout(self.world.db, self.file, 0, size + 1)
        data = bytearray(size)
        for extent in found:
            source = self.contents[extent.chunk] if extent.chunk else extent.data
            part = source[extent.chunk_offset : extent.chunk_offset + extent.length]
            assert len(part) == extent.length
            data[extent.offset : extent.offset + extent.length] = part
        return data

    def _fresh(self, length: int) -> bytes:
        self._next += 1
        return bytes(self._next * 31 + at & 0xFF or 1 for at in range(length))


@settings(max_examples=60, deadline=None)
@given(steps=steps)
def test_a_file_reads_as_it_was_written(
    steps: list[tuple[str, Any]],
    new_world: Callable[[], World],
    findings: Callable[[Database], list[str]],
) -> None:
    world = new_world()
    model = Model(world)
    for kind, what in steps:
        if kind == "truncate":
            model.truncate(what)  # the strategies give what each kind needs
        else:
            model.write(what, inline=kind == "inline")
        assert model.read() == model.expected
    assert findings(world.db) == []
    world.do(Unlink(parent=1, name=b"f"))
    world.purge(model.file)
    assert findings(world.db) == []
    assert world.db.read("SELECT * FROM chunk WHERE state <> 'dead'") == []
    world.db.close()
