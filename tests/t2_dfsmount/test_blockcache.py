"""The block cache: bounded, single flight, honest about what it holds."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from dfsmount.files.blockcache import BlockCache
from dfswire.errors import CorruptChunk, Unavailable
from dfswire.messages import BLOCK_SIZE_BYTES, ChunkLocation

BLOCK = BLOCK_SIZE_BYTES
DATA = bytes(range(251)) * 1200  # four blocks and a part of a fifth


def location(name: bytes = b"a") -> ChunkLocation:
    return ChunkLocation(chunk=name * 16, length=len(DATA), replicas=[])


class Source:
    """Where the cache fetches from."""

    def __init__(self) -> None:
        self.fetched: list[tuple[int, int]] = []
        self.problem: Unavailable | None = None

    async def fetch(self, location: ChunkLocation, offset: int, length: int) -> memoryview:
        self.fetched.append((offset, length))
        await trio.sleep(1)
        if self.problem:
            raise self.problem
        return memoryview(bytearray(DATA[offset : offset + length]))


async def test_hit_and_miss(autojump_clock: MockClock) -> None:
    source = Source()
    cache = BlockCache(source.fetch, 1 << 20)
    assert cache.peek(location().chunk, 0, 10) is None
    views = await cache.read(location(), 100_000, 10_000)
    assert b"".join(views) == DATA[100_000:110_000] and views[0].readonly
    assert source.fetched == [(BLOCK, BLOCK)], "no more than the block that is needed"
    assert b"".join(cache.peek(location().chunk, 100_000, 10) or []) == DATA[100_000:100_010]
    whole = await cache.read(location(), 0, len(DATA))
    assert b"".join(whole) == DATA
    assert source.fetched[1:] == [(0, BLOCK), (2 * BLOCK, len(DATA) - 2 * BLOCK)]
    assert cache.held_bytes == len(DATA)
    assert (cache.hits, cache.misses) == (1, 3)
    assert b"".join(await cache.read(location(), 5, len(DATA) - 5)) == DATA[5:]
    assert len(source.fetched) == 3


async def test_tasks_that_want_the_same_share_a_fetch(autojump_clock: MockClock) -> None:
    source = Source()
    cache = BlockCache(source.fetch, 1 << 20)

    async def read() -> None:
        assert b"".join(await cache.read(location(), 10, 200_000)) == DATA[10:200_010]

    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(read)
    assert source.fetched == [(0, 4 * BLOCK)]


async def test_a_failed_fetch_fails_all_who_wait_and_is_forgotten(
    autojump_clock: MockClock,
) -> None:
    source = Source()
    source.problem = Unavailable("away")
    cache = BlockCache(source.fetch, 1 << 20)
    failed = 0

    async def read() -> None:
        nonlocal failed
        with pytest.raises(Unavailable, match="away"):
            await cache.read(location(), 0, 10)
        failed += 1

    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(read)
    assert failed == 5 and len(source.fetched) == 1 and cache.held_bytes == 0
    source.problem = None
    assert await cache.read(location(), 0, 10) == [DATA[:10]]


async def test_a_cancelled_fetch_is_taken_over(autojump_clock: MockClock) -> None:
    source = Source()
    cache = BlockCache(source.fetch, 1 << 20)

    async def read() -> None:
        assert await cache.read(location(), 0, 10) == [DATA[:10]]

    async with trio.open_nursery() as nursery:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as first:
                first.start_soon(read)
                await wait_all_tasks_blocked(0.01)
                nursery.start_soon(read)
                await wait_all_tasks_blocked(0.01)
                scope.cancel()
    assert len(source.fetched) == 2 and cache.held_bytes == BLOCK


async def test_the_least_recently_used_run_goes_first(autojump_clock: MockClock) -> None:
    source = Source()
    cache = BlockCache(source.fetch, 2 * BLOCK)
    await cache.read(location(b"a"), 0, 10)
    await cache.read(location(b"b"), 0, 10)
    assert cache.peek(b"a" * 16, 0, 10)
    await cache.read(location(b"c"), 0, 10)
    assert cache.peek(b"b" * 16, 0, 10) is None
    assert cache.peek(b"a" * 16, 0, 10) and cache.peek(b"c" * 16, 0, 10)
    assert cache.held_bytes == 2 * BLOCK


async def test_more_than_fits_is_served_and_not_kept(autojump_clock: MockClock) -> None:
    source = Source()
    cache = BlockCache(source.fetch, BLOCK)
    assert b"".join(await cache.read(location(), 0, len(DATA))) == DATA
    await cache.read(location(b"b"), 0, 10)
    assert cache.peek(b"a" * 16, 0, 10) is None and cache.held_bytes == BLOCK


def test_missing() -> None:
    cache = BlockCache(Source().fetch, BLOCK)
    assert cache.missing(location(), 10, BLOCK + 1) == [(0, 2 * BLOCK)]
    assert cache.missing(location(), 4 * BLOCK, len(DATA)) == [(4 * BLOCK, len(DATA))]


async def test_who_waits_for_more_than_it_wants_does_not_fail_with_it(
    autojump_clock: MockClock,
) -> None:
    """A large fetch meets a rotten block; the others of it can be read."""

    async def fetch(where: ChunkLocation, offset: int, length: int) -> memoryview:
        await trio.sleep(1)
        if offset <= BLOCK < offset + length:
            raise CorruptChunk("block 1")
        return memoryview(DATA)[offset : offset + length]

    cache = BlockCache(fetch, 1 << 20)

    async def large() -> None:
        with pytest.raises(CorruptChunk):
            await cache.read(location(), 0, 3 * BLOCK)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(large)
        await trio.sleep(0.5)
        assert await cache.read(location(), 10, 10) == [DATA[10:20]]
        assert bytes((await cache.read(location(), 2 * BLOCK, 5))[0]) == DATA[2 * BLOCK :][:5]
        with pytest.raises(CorruptChunk):
            await cache.read(location(), BLOCK, 1)
