"""Verified bytes of chunks, kept in memory: runs of whole blocks, least recently used first out.

Chunks never change, so nothing here is ever invalid.  A run is exactly one fetched buffer, and goes
as a whole, so the bytes counted are the bytes held; runs being fetched count already.  Tasks that
want the same block share one fetch.  The reader uses it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable

import trio

from dfswire.errors import CorruptChunk, DFSError
from dfswire.messages import BLOCK_SIZE_BYTES, ChunkLocation

Fetch = Callable[[ChunkLocation, int, int], Awaitable[memoryview]]


class _Run:
    """Blocks that came, or are coming, in one fetch."""

    def __init__(self, chunk: bytes, offset: int, length: int) -> None:
        self.chunk = chunk
        self.offset = offset
        self.length = length
        self.data: memoryview | None = None
        self.problem: DFSError | None = None
        self.ended = trio.Event()

    @property
    def end(self) -> int:
        return self.offset + self.length

    def blocks(self) -> range:
        return _blocks(self.offset, self.end)


class BlockCache:
    """`fetch(location, offset, length)` gets verified bytes; `capacity_bytes` bounds what is
    held."""

    def __init__(self, fetch: Fetch, capacity_bytes: int) -> None:
        self._fetch = fetch
        self._capacity_bytes = capacity_bytes
        self._chunks: dict[bytes, dict[int, _Run]] = {}  # chunk -> block index -> run
        self._used: OrderedDict[_Run, None] = OrderedDict()  # complete runs, oldest use first
        self.held_bytes = 0
        self.hits = 0
        self.misses = 0

    def peek(self, chunk: bytes, offset: int, length: int) -> list[memoryview] | None:
        """The bytes as views in order, or None when not all of them are here."""
        views = []
        blocks = self._chunks.get(chunk, {})
        end = offset + length
        while offset < end:
            run = blocks.get(offset // BLOCK_SIZE_BYTES)
            if run is None or run.data is None:
                return None
            self._used.move_to_end(run)
            stop = min(end, run.end)
            views.append(run.data[offset - run.offset : stop - run.offset])
            offset = stop
        self.hits += 1
        return views

    async def read(self, location: ChunkLocation, offset: int, length: int) -> list[memoryview]:
        """The bytes as views in order; what is missing is fetched.  Raises what `fetch` raises."""
        views: list[memoryview] = []
        end = offset + length
        while offset < end:
            run = self._chunks.get(location.chunk, {}).get(offset // BLOCK_SIZE_BYTES)
            if run is None:
                self.misses += 1
                run = await self._load(location, offset, end)
            elif run.data is None:
                await run.ended.wait()
                # Where more was fetched than is wanted here, only the rest may be bad: try alone.
                if run.problem is not None and not (
                    isinstance(run.problem, CorruptChunk)
                    and set(run.blocks()) - set(_blocks(offset, end))
                ):
                    raise type(run.problem)(str(run.problem)) from run.problem
            else:
                self._used.move_to_end(run)
            if run.data is not None:
                stop = min(end, run.end)
                views.append(run.data[offset - run.offset : stop - run.offset])
                offset = stop
        return views

    def missing(self, location: ChunkLocation, offset: int, end: int) -> list[tuple[int, int]]:
        """The (offset, end) of the block runs in a range that are neither here nor on their way."""
        blocks = self._chunks.get(location.chunk, {})
        found: list[tuple[int, int]] = []
        for block in range(offset // BLOCK_SIZE_BYTES, -(-end // BLOCK_SIZE_BYTES)):
            if block not in blocks:
                start = block * BLOCK_SIZE_BYTES
                stop = min(start + BLOCK_SIZE_BYTES, location.length)
                if found and found[-1][1] == start:
                    found[-1] = (found[-1][0], stop)
                else:
                    found.append((start, stop))
        return found

    async def _load(self, location: ChunkLocation, offset: int, end: int) -> _Run:
        """Fetch the first missing run of a range."""
        start, stop = self.missing(location, offset, end)[0]
        run = _Run(location.chunk, start, stop - start)
        blocks = self._chunks.setdefault(location.chunk, {})
        blocks.update(dict.fromkeys(run.blocks(), run))
        self._make_room(run.length)
        try:
            data = await self._fetch(location, start, run.length)
            run.data = data.toreadonly()
            self._used[run] = None
            self._make_room(0)  # several may have come at once, or nothing at all be kept
        except DFSError as problem:
            run.problem = problem
            raise
        finally:
            if run.data is None:
                self._forget(run)
            run.ended.set()
        return run

    def _make_room(self, length: int) -> None:
        self.held_bytes += length
        while self.held_bytes > self._capacity_bytes and self._used:
            oldest, _ = self._used.popitem(last=False)
            self._forget(oldest)

    def _forget(self, run: _Run) -> None:
        self.held_bytes -= run.length
        blocks = self._chunks[run.chunk]
        for block in run.blocks():
            del blocks[block]
        if not blocks:
            del self._chunks[run.chunk]


def _blocks(offset: int, end: int) -> range:
    return range(offset // BLOCK_SIZE_BYTES, -(-end // BLOCK_SIZE_BYTES))
