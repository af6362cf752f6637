"""Servers that go away and come back: redundancy is restored, and nothing too much stays."""

from __future__ import annotations

import random

import trio
from trio.testing import MockClock

from dfswire.cluster import ClusterStatus
from tests.t3_cluster.cluster import CHUNK_SIZE_BYTES, fully_replicated, running_cluster
from tests.t3_cluster.files import write_file
from tests.t3_cluster.test_faults import check


def exactly_two(status: ClusterStatus) -> bool:
    counts = status.chunks.by_replicas
    return fully_replicated(status) and counts[2] == sum(counts)


async def test_a_server_that_returns_leaves_no_copies_too_many(
    autojump_clock: MockClock, rng: random.Random
) -> None:
    files = {f"f{number}": rng.randbytes(4 * CHUNK_SIZE_BYTES) for number in range(10)}
    async with running_cluster(rng) as cluster:
        async with cluster.client() as client:
            for path, data in files.items():
                await write_file(client.vfs, path, data, sync=True)
        await cluster.kill_chunkd(0)
        await cluster.until(lambda status: status.chunks.under_replicated > 0, 15)
        took_s = await cluster.until(fully_replicated, 60)
        assert took_s >= 28, "a reboot moves nothing"
        await cluster.start_chunkd(0)
        await cluster.until(lambda status: sum(status.chunks.by_replicas[3:]) > 0, 10)
        took_s = await cluster.until(exactly_two, 120)
        assert took_s >= 58, "it may go away again"
        await trio.sleep(5)
        stored = sum(len(store.files) for store in cluster.stores)
        assert stored == 2 * sum((await cluster.status()).chunks.by_replicas)
        await check(cluster, files)
