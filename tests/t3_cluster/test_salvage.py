"""Chunks of which every copy is damaged: what is right somewhere is read, made whole, or else the
lost ranges are known exactly."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
import trio
from trio.testing import MockClock

from chunkd import chunkfile
from dfsmount.client import FileSystem
from dfswire.errors import CorruptChunk, InputOutput
from dfswire.messages import BLOCK_SIZE_BYTES as BLOCK
from dfswire.verify import LostRange, LostReply
from tests.memorystore import MemoryChunkStore
from tests.t3_cluster.cluster import Cluster, fully_replicated, running_cluster
from tests.t3_cluster.files import find, read_file, write_file

ExpectLog = Callable[[str], None]

BLOCKS = 8
CHUNK = BLOCKS * BLOCK


async def write(cluster: Cluster, data: bytes) -> tuple[bytes, list[MemoryChunkStore]]:
    """A file of one chunk; the chunk, and the disks that have it."""
    async with cluster.client("writer") as client:
        await write_file(client.vfs, "f", data, sync=True)
    await cluster.until(fully_replicated, 30)
    (chunk,) = {chunk for store in cluster.stores for chunk in store.files}
    return chunk, [store for store in cluster.stores if chunk in store.files]


async def readable_blocks(client: FileSystem, data: bytes) -> list[int]:
    """Which blocks of the file are read; they are right."""
    inode = (await find(client.vfs, "f")).inode
    handle = await client.vfs.open(inode, 0)
    found = []
    try:
        for block in range(-(-len(data) // BLOCK)):
            wanted = data[block * BLOCK : (block + 1) * BLOCK]
            try:
                got = await client.vfs.read(handle, block * BLOCK, BLOCK)
            except InputOutput:
                continue
            assert bytes(got) == wanted
            found.append(block)
    finally:
        await client.vfs.release(handle)
    return found


async def test_two_rotten_copies_make_a_whole_one(
    autojump_clock: MockClock, rng: random.Random, expect_log: ExpectLog
) -> None:
    expect_log("is bad")
    expect_log("has no good replica left")
    data = rng.randbytes(CHUNK)
    async with running_cluster(rng, chunk_size_bytes=CHUNK) as cluster:
        chunk, stores = await write(cluster, data)
        for block, store in zip([2, 5], stores, strict=True):
            store.corrupt(chunk, block * BLOCK + 7)
        async with cluster.client("reader") as client:
            assert await read_file(client.vfs, "f") == data  # while both are still believed
        await cluster.until(lambda status: status.chunks.lost == 1, 10)
        await cluster.until(fully_replicated, 60)
        assert (await cluster.lost()).files == []
        async with cluster.client("checker") as client:
            assert await read_file(client.vfs, "f") == data
        assert (await cluster.fsck()).findings == []


async def test_a_lost_block_is_all_that_is_lost(
    autojump_clock: MockClock, rng: random.Random, expect_log: ExpectLog
) -> None:
    expect_log("is bad")
    expect_log("has no good replica left")
    data = rng.randbytes(CHUNK - 100)
    async with running_cluster(rng, chunk_size_bytes=CHUNK) as cluster:
        chunk, stores = await write(cluster, data)
        for store in stores:
            for block in (3, BLOCKS - 1):
                store.corrupt(chunk, block * BLOCK + 7)
        stores[0].corrupt(chunk, 7)  # the other has this one
        intact = [block for block in range(BLOCKS) if block not in (3, BLOCKS - 1)]
        async with cluster.client("reader") as client:
            assert await readable_blocks(client, data) == intact
        await cluster.until(lambda status: status.chunks.lost == 1, 60)
        async with cluster.client("another") as client:
            assert await readable_blocks(client, data) == intact
        await trio.sleep(5)  # by then a server was told to rebuild it, and could not
        (found,) = ranges_of(await cluster.lost())
        assert found == [
            LostRange(offset=3 * BLOCK, length=BLOCK, sure=True),
            LostRange(offset=(BLOCKS - 1) * BLOCK, length=BLOCK - 100, sure=True),
        ]


async def has_it_whole(cluster: Cluster, data: bytes) -> None:
    """All copies are there again, and who has cached nothing reads them."""
    await cluster.until(fully_replicated, 60)
    async with cluster.client("checker") as client:
        assert await read_file(client.vfs, "f") == data


def ranges_of(reply: LostReply) -> list[list[LostRange]]:
    """Of all files."""
    return [file.ranges for file in reply.files]


@pytest.mark.parametrize("place", ["footer", "index", "end"])
async def test_a_damaged_end_loses_nothing(
    autojump_clock: MockClock, rng: random.Random, expect_log: ExpectLog, place: str
) -> None:
    """The payload is whole, and metad's digest says so."""
    expect_log("is bad")
    expect_log("has no good replica left")
    data = rng.randbytes(CHUNK)
    async with running_cluster(rng, chunk_size_bytes=CHUNK) as cluster:
        chunk, stores = await write(cluster, data)
        for store in stores:
            if place == "end":
                store.truncate(chunk, CHUNK)
            else:
                tail = chunkfile.tail_bytes(CHUNK)
                store.corrupt(chunk, CHUNK + (8 if place == "index" else tail - 40))
            with pytest.raises(CorruptChunk):
                store.verify(chunk)
        await cluster.until(lambda status: status.chunks.lost == 1, 10)
        await has_it_whole(cluster, data)


@pytest.mark.parametrize("away_s", [2.0, 6.0, 7.0, 120.0])
async def test_a_server_that_dies_under_a_rebuild_is_asked_when_it_is_back(
    autojump_clock: MockClock,
    rng: random.Random,
    expect_log: ExpectLog,
    tolerate_log: ExpectLog,
    away_s: float,
) -> None:
    """It counted as there when the rebuild was ordered, and not when it was asked."""
    expect_log("is bad")
    expect_log("has no good replica left")
    tolerate_log("rebuild")
    data = rng.randbytes(CHUNK)
    async with running_cluster(rng, chunk_size_bytes=CHUNK) as cluster:
        chunk, stores = await write(cluster, data)
        away = cluster.stores.index(stores[0])
        for store, block in zip(stores, (5, 3), strict=True):
            store.corrupt(chunk, block * BLOCK)
            with pytest.raises(CorruptChunk):
                store.verify(chunk)
        await cluster.until(lambda status: status.chunks.lost == 1, 10)
        await cluster.kill_chunkd(away)
        await trio.sleep(away_s)
        assert (await cluster.status()).chunks.lost == 1
        await cluster.start_chunkd(away)
        await has_it_whole(cluster, data)


async def test_what_an_absent_server_has_is_not_called_lost(
    autojump_clock: MockClock, rng: random.Random, expect_log: ExpectLog, tolerate_log: ExpectLog
) -> None:
    expect_log("is bad")
    tolerate_log("has no good replica left")
    data = rng.randbytes(CHUNK)
    async with running_cluster(rng, chunk_size_bytes=CHUNK) as cluster:
        chunk, stores = await write(cluster, data)
        away = cluster.stores.index(stores[0])
        await cluster.kill_chunkd(away)
        stores[1].corrupt(chunk, 3 * BLOCK)
        with pytest.raises(CorruptChunk):
            stores[1].verify(chunk)
        await cluster.until(lambda status: status.chunks.lost == 1, 60)
        async with cluster.client("reader") as client:
            assert await readable_blocks(client, data) == [0, 1, 2, 4, 5, 6, 7]
        await trio.sleep(120)  # by now it was tried to make it whole without that server
        (ranges,) = ranges_of(await cluster.lost())
        assert not any(each.sure for each in ranges)
        await cluster.start_chunkd(away)
        await has_it_whole(cluster, data)
        assert (await cluster.lost()).files == []
