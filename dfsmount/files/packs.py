"""Packs: the chunks of the future, in memory.

A pack is a buffer to which writes are appended in the order in which they come, and a map that says
which range of the file each part of it is.  The writer fills, seals, uploads and commits packs.
Full-size buffers are reused, for memory that is touched for the first time is slow (measured,
copying 4 MiB in pieces of 1 MiB: 0.6 GB/s into new memory, 48 GB/s into a buffer just used); the
first pack of a file starts small and grows, so that thousands of small files do not take a chunk's
worth of memory each.
"""

from __future__ import annotations

from collections.abc import Iterable

import trio

from dfsmount.files.extents import RangeMap
from dfsmount.remote.chunkclient import Stored
from dfswire.errors import DFSError
from dfswire.messages import Extent

SMALL_BYTES = 16 << 10
IDLE_BUFFERS_MAX = 16
RANGES_MAX = 8192  # extents of one pack: bounds the size of a commit message

Octets = bytes | bytearray | memoryview


class BufferPool:
    """Buffers, of which those of `chunk_size_bytes` are reused."""

    def __init__(self, chunk_size_bytes: int) -> None:
        self.chunk_size_bytes = chunk_size_bytes
        self._idle: list[memoryview] = []

    def take(self, size_bytes: int) -> memoryview:
        """A buffer; what is in it may be left over from before."""
        if size_bytes == self.chunk_size_bytes and self._idle:
            return self._idle.pop()
        return memoryview(bytearray(size_bytes))

    def give(self, buffer: memoryview) -> None:
        """Nobody uses the buffer any more.  Those of other sizes are not kept."""
        if len(buffer) == self.chunk_size_bytes and len(self._idle) < IDLE_BUFFERS_MAX:
            self._idle.append(buffer)


class Pack:
    """Bytes on their way to one chunk (or, few ones, into metadata).

    `limit_bytes` is the size of chunks of its file, which may become known while it is filled.
    """

    def __init__(self, buffers: BufferPool, limit_bytes: int, *, small: bool) -> None:
        self._buffers = buffers
        self.limit_bytes = limit_bytes
        self._buffer = buffers.take(min(SMALL_BYTES, limit_bytes) if small else limit_bytes)
        self.used = 0
        self.ranges: RangeMap[Pack] = RangeMap()
        self.born_s = trio.current_time()
        self.durable = False  # upload it so that it is durable at once
        self.inline = False
        self.stored: Stored | None = None
        self.problem: DFSError | None = None
        self.ready = False  # stored, inline or failed: its turn to be committed may come
        self.finished = trio.Event()  # committed or lost

    @property
    def room(self) -> int:
        """How many bytes can still be appended."""
        full = len(self.ranges) >= RANGES_MAX
        return 0 if full else max(self.limit_bytes - self.used, 0)

    def append(self, offset: int, data: Octets) -> int:
        """Add bytes of the file from `offset`; they must fit.  Where they are in the pack."""
        start, self.used = self.used, self.used + len(data)
        if self.used > len(self._buffer):
            self._grow()
        self._buffer[start : self.used] = data
        self.ranges.lay(offset, len(data), self, start)
        return start

    def overwrite(self, pack_offset: int, data: Octets) -> None:
        """Replace bytes of a pack that is not sealed yet."""
        self._buffer[pack_offset : pack_offset + len(data)] = data

    def view(self, pack_offset: int, length: int) -> memoryview:
        """These bytes, until the pack is freed or they are overwritten."""
        return self._buffer[pack_offset : pack_offset + length]

    def free(self) -> None:
        """Give the memory back.  Views are worth nothing from here on."""
        self.ranges.clear()
        self._buffers.give(self._buffer)
        self._buffer = memoryview(b"")

    def _grow(self) -> None:
        size = len(self._buffer)
        while size < self.used:
            size *= 2
        larger = self._buffers.take(min(size, self.limit_bytes))
        larger[: len(self._buffer)] = self._buffer
        self._buffer = larger


def layered(packs: Iterable[Pack]) -> RangeMap[Pack]:
    """The ranges of several packs, later ones laid over earlier ones."""
    layers: RangeMap[Pack] = RangeMap()
    for pack in packs:
        for range_ in pack.ranges:
            layers.lay(*range_)
    return layers


def extents_of(layers: RangeMap[Pack]) -> list[Extent]:
    """What Commit says of each range of packs that are stored or inline."""
    extents = []
    for offset, length, pack, pack_offset in layers:
        if pack.stored is None:
            data = bytes(pack.view(pack_offset, length))
            extents.append(Extent(offset=offset, length=length, data=data))
        else:
            chunk = pack.stored.location.chunk
            extents.append(
                Extent(offset=offset, length=length, chunk=chunk, chunk_offset=pack_offset)
            )
    return extents


def span_of(extents: list[Extent], chunk: bytes) -> tuple[int, int]:
    """The range of the file in which a chunk's extents lie."""
    own = [extent for extent in extents if extent.chunk == chunk]
    return own[0].offset, own[-1].offset + own[-1].length
