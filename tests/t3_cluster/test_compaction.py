"""Fragmented files become few chunks, and nobody sees a difference, whatever happens meanwhile."""

from __future__ import annotations

import os
import random
from collections.abc import Callable

import pytest
import trio
from trio.testing import MockClock

from dfsmount.client import FileSystem
from dfswire.client import Client
from dfswire.info import InfoReply, InfoRequest
from dfswire.jobs import JobsReply, JobsRequest, StartJob
from dfswire.operations import SetAttr
from dfswire.policies import PolicyTerms, SetPolicy
from tests.t3_cluster.cluster import METAD, Cluster, fully_replicated, running_cluster
from tests.t3_cluster.files import read_file, write_file

ExpectLog = Callable[[str], None]

CHUNK = 256 << 10
IDLE_S = 310.0  # longer than metad waits after the last change


async def append(client: FileSystem, inode: int, pieces: list[bytes]) -> None:
    """Each piece fsynced."""
    handle = await client.vfs.open(inode, os.O_RDWR)
    offset = (await client.vfs.getattr(inode)).size
    for piece in pieces:
        await client.vfs.write(handle, offset, piece)
        await client.vfs.fsync(handle)
        offset += len(piece)
    await client.vfs.release(handle)


async def extents_of(cluster: Cluster, path: bytes = b"/f") -> int:
    reply: InfoReply = await Client(transport=cluster.network).call(
        "cluster.info", METAD, InfoRequest(path=path)
    )
    return len(reply.extents)


async def compact(cluster: Cluster, within_s: float = 200.0) -> str:
    """Run a job; how it ended."""
    client = Client(transport=cluster.network)
    status = await client.call("job.start", METAD, StartJob(kind="compact"))
    with trio.fail_after(within_s):
        while status.state == "running":
            await trio.sleep(1)
            reply: JobsReply = await client.call("job.list", METAD, JobsRequest(job=status.job))
            (status,) = reply.jobs
    return str(status.state)


async def test_a_file_below_a_directory_with_a_policy_is_compacted_too(
    autojump_clock: MockClock, rng: random.Random
) -> None:
    pieces = [rng.randbytes(10_000) for _ in range(60)]
    async with running_cluster(rng, chunk_size_bytes=CHUNK) as cluster:
        policy = SetPolicy(path=b"/", terms=PolicyTerms(replicas=3))
        await Client(transport=cluster.network).call("policy.set", METAD, policy)
        async with cluster.client() as writer:
            inode = await write_file(writer.vfs, "f", b"", sync=True)
            await append(writer, inode, pieces)
        await trio.sleep(IDLE_S)
        assert await compact(cluster) == "done"
        assert await extents_of(cluster) <= 12


@pytest.mark.parametrize("size", [3000, 10_000])  # partly inline, and in chunks
async def test_many_small_appends_become_few_extents(
    autojump_clock: MockClock, rng: random.Random, size: int
) -> None:
    pieces = [rng.randbytes(size) for _ in range(60)]
    async with running_cluster(rng, chunk_size_bytes=CHUNK) as cluster:
        async with cluster.client("reader") as reader:
            async with cluster.client("writer") as writer:
                inode = await write_file(writer.vfs, "f", b"", sync=True)
                await append(writer, inode, pieces)
            assert await read_file(reader.vfs, "f") == b"".join(pieces)
            before = await reader.vfs.getattr(inode)
            assert await extents_of(cluster) >= 60
            await trio.sleep(IDLE_S)
            assert await compact(cluster) == "done"
            assert await extents_of(cluster) <= 12  # what is too little for a run
            assert await reader.vfs.getattr(inode) == before
            assert await read_file(reader.vfs, "f") == b"".join(pieces)
        assert fully_replicated(await cluster.status())
        await trio.sleep(120)  # the old chunks are deleted
        async with cluster.client("another") as another:
            assert await read_file(another.vfs, "f") == b"".join(pieces)
            await append(another, inode, [b"more"])
            assert await read_file(another.vfs, "f") == b"".join(pieces) + b"more"
        live = (await cluster.status()).chunks.total
        assert sum(len(store.files) for store in cluster.stores) == 2 * live
        assert (await cluster.fsck()).findings == []


async def test_metad_begins_by_itself(autojump_clock: MockClock, rng: random.Random) -> None:
    async with running_cluster(rng, chunk_size_bytes=CHUNK) as cluster:
        async with cluster.client("writer") as writer:
            inode = await write_file(writer.vfs, "f", b"", sync=True)
            await append(writer, inode, [rng.randbytes(9000) for _ in range(20)])
        await trio.sleep(3700)
        assert await extents_of(cluster) == 1


async def test_a_file_that_is_written_is_left_alone(
    autojump_clock: MockClock, rng: random.Random
) -> None:
    async with (
        running_cluster(rng, chunk_size_bytes=CHUNK) as cluster,
        cluster.client("writer") as writer,
    ):
        inode = await write_file(writer.vfs, "f", b"", sync=True)
        await append(writer, inode, [rng.randbytes(9000) for _ in range(20)])
        assert await compact(cluster) == "done"
        assert await extents_of(cluster) >= 20


@pytest.mark.parametrize("change", ["overwrite", "truncate", "unlink"])
async def test_what_changes_meanwhile_is_not_lost(
    autojump_clock: MockClock, rng: random.Random, change: str
) -> None:
    """A change comes while servers assemble; the swap finds other extents, and does nothing."""
    pieces = [rng.randbytes(9000) for _ in range(24)]
    data = bytearray(b"".join(pieces))
    async with running_cluster(rng, chunk_size_bytes=CHUNK) as cluster:
        async with cluster.client("writer") as writer:
            inode = await write_file(writer.vfs, "f", b"", sync=True)
            await append(writer, inode, pieces)
            await trio.sleep(IDLE_S)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(compact, cluster)
                await trio.sleep(rng.uniform(0.5, 2.0))
                handle = await writer.vfs.open(inode, os.O_RDWR)
                if change == "overwrite":
                    data[5000:15_000] = patch = rng.randbytes(10_000)
                    await writer.vfs.write(handle, 5000, patch)
                    await writer.vfs.fsync(handle)
                elif change == "truncate":
                    del data[100_000:]
                    await writer.vfs.setattr(SetAttr(inode=inode, size=100_000))
                else:
                    await writer.vfs.unlink(1, b"f")
                await writer.vfs.release(handle)
        if change != "unlink":
            async with cluster.client("reader") as reader:
                assert await read_file(reader.vfs, "f") == data
        await trio.sleep(150)
        assert (await cluster.fsck()).findings == []


async def test_without_enough_servers_nothing_is_swapped(
    autojump_clock: MockClock, rng: random.Random
) -> None:
    """The new chunk would have fewer copies than the old ones."""
    pieces = [rng.randbytes(9000) for _ in range(24)]
    async with running_cluster(rng, servers=2, chunk_size_bytes=CHUNK) as cluster:
        async with cluster.client("writer") as writer:
            inode = await write_file(writer.vfs, "f", b"", sync=True)
            await append(writer, inode, pieces)
        await trio.sleep(IDLE_S)
        await cluster.kill_chunkd(1)
        await trio.sleep(15)
        await compact(cluster)
        assert await extents_of(cluster) >= 24
        await cluster.start_chunkd(1)
        await trio.sleep(5)
        await compact(cluster)
        assert await extents_of(cluster) == 1
        async with cluster.client("reader") as reader:
            assert await read_file(reader.vfs, "f") == b"".join(pieces)


async def test_a_restart_of_metad_in_the_middle(
    autojump_clock: MockClock, rng: random.Random, tolerate_log: ExpectLog
) -> None:
    tolerate_log("metad at metad:1 does not answer")
    pieces = [rng.randbytes(9000) for _ in range(200)]
    async with running_cluster(rng, chunk_size_bytes=CHUNK) as cluster:
        async with cluster.client("writer") as writer:
            inode = await write_file(writer.vfs, "f", b"", sync=True)
            await append(writer, inode, pieces)
        await trio.sleep(IDLE_S)
        await Client(transport=cluster.network).call(
            "job.start", METAD, StartJob(kind="compact", name="c")
        )
        for _ in range(3):
            await trio.sleep(rng.uniform(0.1, 1.5))
            await cluster.kill_metad()
            await cluster.start_metad()
        await trio.sleep(60)
        assert await extents_of(cluster) <= 24
        async with cluster.client("reader") as reader:
            assert await read_file(reader.vfs, "f") == b"".join(pieces)
        await trio.sleep(900)  # what was begun and not used expires, and is deleted
        live = (await cluster.status()).chunks.total
        assert sum(len(store.files) for store in cluster.stores) == 2 * live
        assert (await cluster.fsck()).findings == []
