"""Reading a file: splits a range by extents, takes what is cached, fetches the rest at once.

One `Reader` belongs to one open handle, because read-ahead follows one stream of reads; everything
behind it is shared.  It promises bytes of a legal version of the file or an error: holes are zeros
only where the layout says that there is a hole.  Dirty data of this client is laid over by the
caller.
"""

from __future__ import annotations

from dataclasses import dataclass

import trio

from dfsmount.files.blockcache import BlockCache
from dfsmount.files.extents import Range
from dfsmount.files.layouts import Layouts, Source
from dfsmount.files.readahead import ReadAhead
from dfswire.errors import CorruptChunk, DFSError, InputOutput, Unavailable, UnknownChunk
from dfswire.messages import ChunkLocation

OPERATION_DEADLINE_S = 30.0
PAUSE_S = 0.5  # between attempts while no replica can be reached
PREFETCHES_MAX = 16  # at once, over all files
ZEROS = memoryview(bytes(1 << 20))

Octets = bytes | bytearray | memoryview
Slice = Range[Source | None]


@dataclass(frozen=True)
class ReadContext:
    """What all readers share.  Read-ahead runs in `nursery`."""

    layouts: Layouts
    cache: BlockCache
    nursery: trio.Nursery
    prefetches: trio.Semaphore


class Reader:
    """One stream of reads of one inode."""

    def __init__(self, inode: int, context: ReadContext) -> None:
        self._inode = inode
        self._context = context
        self._ahead = ReadAhead()

    async def read(self, offset: int, length: int, size: int) -> Octets:
        """Bytes [offset, offset+length) of a file of `size` bytes; less only at its end.

        The result may be a view of cached bytes, which never change.  Raises InputOutput when the
        bytes can't be had, and what `Layouts.slices` raises.
        """
        length = min(length, size - offset)
        if length <= 0:
            return b""
        layouts = self._context.layouts
        slices = layouts.known_slices(self._inode, offset, length)
        if not slices:
            slices = await layouts.slices(self._inode, offset, length)
        self._read_ahead(offset, length, size)
        views = self._cached(slices)
        if views is None:
            views = await self._fetched(slices)
        return views[0] if len(views) == 1 else b"".join(views)

    def _cached(self, slices: list[Slice]) -> list[memoryview] | None:
        """The views of all slices, if no fetch is needed."""
        views: list[memoryview] = []
        for piece in slices:
            found = self._at_hand(piece)
            if found is None:
                return None
            views += found
        return views

    def _at_hand(self, piece: Slice) -> list[memoryview] | None:
        source = piece.value
        if source is None:
            return _zeros(piece.length)
        if isinstance(source, bytes):
            return [memoryview(source)[piece.value_offset : piece.value_offset + piece.length]]
        return self._context.cache.peek(source.chunk, piece.value_offset, piece.length)

    async def _fetched(self, slices: list[Slice]) -> list[memoryview]:
        """The views of all slices, those of different chunks fetched at the same time."""
        if len(slices) == 1:
            return await self._fetch(slices[0])
        parts: list[list[memoryview]] = [[] for _ in slices]
        problems: list[DFSError] = []

        async def fill(index: int, piece: Slice) -> None:
            try:
                parts[index] = await self._fetch(piece)
            except DFSError as problem:
                problems.append(problem)

        async with trio.open_nursery() as nursery:
            for index, piece in enumerate(slices):
                nursery.start_soon(fill, index, piece)
        if problems:
            raise problems[0]
        return [view for part in parts for view in part]

    async def _fetch(self, piece: Slice) -> list[memoryview]:
        """The views of one slice, from wherever they can be had.

        When no replica gives them the layout is asked again, for the replicas may have moved: once
        if all answered that they do not have it, for as long as an operation may take if some could
        not be reached.
        """
        give_up_at = trio.current_time() + OPERATION_DEADLINE_S
        attempt = 0
        while True:
            attempt += 1
            try:
                return await self._fetch_once(piece)
            except (UnknownChunk, CorruptChunk, Unavailable) as problem:
                reachable = not isinstance(problem, Unavailable)
                if trio.current_time() >= give_up_at or (reachable and attempt > 1):
                    raise InputOutput(f"inode {self._inode}: {problem}") from problem
            if attempt > 1:
                await trio.sleep(PAUSE_S)
            asked_at = trio.current_time()
            self._context.layouts.invalidate(self._inode)
            fresh = await self._context.layouts.slices(self._inode, piece.offset, piece.length)
            # That waits for metad, as long as the mount allows: no server has failed meanwhile.
            give_up_at += trio.current_time() - asked_at
            if len(fresh) > 1:
                return await self._fetched(fresh)
            piece = fresh[0]

    async def _fetch_once(self, piece: Slice) -> list[memoryview]:
        found = self._at_hand(piece)
        if found is not None:
            return found
        assert isinstance(piece.value, ChunkLocation)
        return await self._context.cache.read(piece.value, piece.value_offset, piece.length)

    # Read-ahead

    def _read_ahead(self, offset: int, length: int, size: int) -> None:
        wanted = self._ahead.advance(offset, length, size)
        if wanted is not None:
            self._context.nursery.start_soon(self._prefetch, *wanted)

    async def _prefetch(self, start: int, end: int) -> None:
        """Fetch a range into the cache.  An error is no error: the read itself will meet it."""
        context = self._context
        try:
            slices = await context.layouts.slices(self._inode, start, end - start)
        except DFSError:
            return
        for piece in slices:
            if isinstance(piece.value, ChunkLocation):
                self._prefetch_chunk(piece.value, piece.value_offset, piece.length)

    def _prefetch_chunk(self, location: ChunkLocation, offset: int, length: int) -> None:
        for start, stop in self._context.cache.missing(location, offset, offset + length):
            self._context.nursery.start_soon(self._prefetch_run, location, start, stop)

    async def _prefetch_run(self, location: ChunkLocation, start: int, stop: int) -> None:
        try:
            async with self._context.prefetches:
                await self._context.cache.read(location, start, stop - start)
        except DFSError:
            return  # see _prefetch


def _zeros(length: int) -> list[memoryview]:
    """Zeros without memory of their own."""
    whole, rest = divmod(length, len(ZEROS))
    return [ZEROS] * whole + ([ZEROS[:rest]] if rest else [])
