"""Servers that go away and come back: redundancy is restored, and nothing too much stays."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable

import pytest
import trio
from trio.testing import MockClock

from chunkd.identity import ServerIdentity
from dfswire.errors import IdentityTaken
from dfswire.messages import ROOT_INODE
from dfswire.status import ClusterStatus, ServerStatus
from tests.t3_cluster.cluster import (
    CHUNK_SIZE_BYTES,
    METAD,
    Cluster,
    fully_replicated,
    running_cluster,
)
from tests.t3_cluster.files import read_file, write_file
from tests.t3_cluster.test_faults import check

ExpectLog = Callable[[str], None]


async def fill(cluster: Cluster, rng: random.Random, count: int = 10) -> dict[str, bytes]:
    """Files of two chunks each, by their names."""
    files = {f"f{number}": rng.randbytes(2 * CHUNK_SIZE_BYTES) for number in range(count)}
    async with cluster.client("filler") as client:
        for path, data in files.items():
            await write_file(client.vfs, path, data, sync=True)
    return files


def copied_bytes(cluster: Cluster) -> int:
    return sum(store.figures().written_bytes for store in cluster.stores)


async def server(cluster: Cluster, number: int) -> ServerStatus:
    (found,) = [
        each for each in (await cluster.status()).servers if each.server_id == f"server{number}"
    ]
    return found


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


async def test_a_server_that_flaps_sets_off_no_copying(
    autojump_clock: MockClock, rng: random.Random
) -> None:
    async with running_cluster(rng) as cluster:
        files = await fill(cluster, rng)
        before = copied_bytes(cluster)
        for _ in range(60):
            await cluster.kill_chunkd(0)
            await trio.sleep(rng.uniform(0.5, 3.5))
            await cluster.start_chunkd(0)
            await trio.sleep(rng.uniform(0.5, 3.5))
        assert copied_bytes(cluster) == before
        await check(cluster, files)


async def test_a_server_that_is_away_again_and_again_moves_little_more_than_once(
    autojump_clock: MockClock, rng: random.Random
) -> None:
    """Always for long enough that repair begins, at a rate at which it does not end."""
    settings = {"repair_bytes_per_s": CHUNK_SIZE_BYTES // 4}
    async with running_cluster(rng, metad_settings=settings) as cluster:
        files = await fill(cluster, rng)
        before = copied_bytes(cluster)
        lost = len(cluster.stores[0].files) * CHUNK_SIZE_BYTES
        for _ in range(4):
            await cluster.kill_chunkd(0)
            await trio.sleep(55)
            await cluster.start_chunkd(0)
            await trio.sleep(20)
        assert copied_bytes(cluster) - before <= 1.2 * lost
        await check(cluster, files)
        await cluster.until(exactly_two, 300)


@pytest.mark.parametrize("direction", ["both", "to metad", "from metad"])
async def test_a_server_that_metad_does_not_hear_goes_on_serving(
    autojump_clock: MockClock, rng: random.Random, tolerate_log: ExpectLog, direction: str
) -> None:
    tolerate_log("metad at metad:1 does not answer")
    async with running_cluster(rng) as cluster:
        files = await fill(cluster, rng)
        address = cluster.address(0)
        ends = (METAD, address) if direction == "from metad" else (address, METAD)
        async with cluster.client() as client:
            with cluster.links.cut(*ends, one_way=direction != "both"):
                for number in range(30):
                    for path, data in files.items():
                        assert await read_file(client.vfs, path) == data
                    more = rng.randbytes(CHUNK_SIZE_BYTES)
                    await write_file(client.vfs, f"m{number}", more, sync=True)
                    files[f"m{number}"] = more
                    await trio.sleep(2)
                if direction != "from metad":  # it is heard, and just does not know
                    assert (await server(cluster, 0)).state == "down"
                    await cluster.until(fully_replicated, 60)
                    assert len(cluster.stores[0].files) > 0
            await cluster.until(
                lambda status: sum(e.state == "up" for e in status.servers) == 3, 20
            )
        held = sum(len(store.files) for store in cluster.stores)
        await trio.sleep(50)
        assert sum(len(store.files) for store in cluster.stores) >= held, "for a while"
        await check(cluster, files)
        await cluster.until(exactly_two, 120)


async def test_a_copy_that_one_path_does_not_allow_takes_another(
    autojump_clock: MockClock, rng: random.Random
) -> None:
    async with running_cluster(rng, servers=4) as cluster:
        files = await fill(cluster, rng)
        with cluster.links.cut(cluster.address(1), cluster.address(2)):
            await cluster.kill_chunkd(0)
            await cluster.until(lambda status: status.chunks.under_replicated > 0, 12)
            took_s = await cluster.until(fully_replicated, 90)
            assert took_s <= 30 + 30
            await check(cluster, files)


async def test_a_slow_server_is_noticed_by_its_clients_and_recovers(
    autojump_clock: MockClock, rng: random.Random
) -> None:
    async with running_cluster(rng, servers=4) as cluster:
        files = await fill(cluster, rng, count=5)
        stop = trio.Event()

        async def read(name: str) -> None:
            async with cluster.client(name, options="nocache") as client:
                while not stop.is_set():
                    for path, data in files.items():
                        assert await read_file(client.vfs, path) == data
                    await trio.sleep(1)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read, "one")
            nursery.start_soon(read, "other")
            await trio.sleep(10)
            cluster.links.delays_s[cluster.address(0)] = 1.0
            took_s = await cluster.until(
                lambda status: any(each.state == "suspect" for each in status.servers), 30
            )
            assert took_s <= 12, "its clients go elsewhere at once; this is for all others"
            found = await server(cluster, 0)
            assert found.state == "suspect"
            assert "that call it" in found.reason
            held = len(cluster.stores[0].files)
            async with cluster.client("writer") as client:
                for number in range(10):
                    data = rng.randbytes(CHUNK_SIZE_BYTES)
                    await write_file(client.vfs, f"new{number}", data, sync=True)
            assert len(cluster.stores[0].files) == held, "nothing new is put there"
            cluster.links.delays_s.clear()
            await cluster.until(
                lambda status: all(each.state == "up" for each in status.servers), 120
            )
            stop.set()
        await check(cluster, files)


async def test_a_copied_data_directory_is_refused_and_said_aloud(
    autojump_clock: MockClock, rng: random.Random, expect_log: ExpectLog
) -> None:
    expect_log("clone:1 is refused: server server0 is already up")
    expect_log("clone:1 is refused: disk disk0 is in use by server server0")
    async with running_cluster(rng) as cluster:
        files = await fill(cluster, rng)
        for identity in (ServerIdentity("server0", 2), ServerIdentity("another", 1)):
            clone = cluster.make_chunkd(0, "clone:1", identity)
            began_s = trio.current_time()
            with pytest.RaisesGroup(IdentityTaken):
                await clone.run()
            assert trio.current_time() - began_s < 5, "more than a few heartbeats"
        assert (await server(cluster, 0)).address == cluster.address(0)
        assert len((await cluster.status()).servers) == 3
        await check(cluster, files)


async def test_what_was_deleted_meanwhile_stays_deleted(
    autojump_clock: MockClock, rng: random.Random, expect_log: ExpectLog
) -> None:
    expect_log("is unknown to metad")
    async with running_cluster(
        rng,
        metad_settings={"gone_after_s": 120.0},
        chunkd_settings={"unknown_min_age_s": 60.0, "unknown_kept_s": 600.0},
    ) as cluster:
        files = await fill(cluster, rng)
        await cluster.kill_chunkd(0)
        async with cluster.client() as client:
            for number in range(5):
                await client.vfs.unlink(ROOT_INODE, b"f%d" % number)
                del files[f"f{number}"]
        await cluster.until(
            lambda status: status.chunks.pending_delete == 0 and status.chunks.total == 10, 400
        )
        await cluster.start_chunkd(0)
        await trio.sleep(30)
        assert len(cluster.stores[0].aside) > 0
        await check(cluster, files)
        await trio.sleep(1300)  # two inventories
        assert cluster.stores[0].aside == {}, "expired"
        await check(cluster, files)
        assert (await cluster.status()).chunks.total == 10


async def test_a_disk_that_was_set_back_to_yesterday_is_brought_up_to_date(
    autojump_clock: MockClock, rng: random.Random, expect_log: ExpectLog, tolerate_log: ExpectLog
) -> None:
    expect_log("server server0 comes with incarnation 1, which was used before")
    expect_log("disk disk0 lacks")
    tolerate_log("is refused")
    tolerate_log("is unknown to metad")
    async with running_cluster(rng) as cluster:
        files = await fill(cluster, rng)
        store = cluster.stores[0]
        await cluster.kill_chunkd(0)
        await cluster.start_chunkd(0)
        yesterday = copy.deepcopy(store.files)
        async with cluster.client() as client:
            for number in range(5):
                await client.vfs.unlink(ROOT_INODE, b"f%d" % number)
                del files[f"f{number}"]
                data = rng.randbytes(2 * CHUNK_SIZE_BYTES)
                await write_file(client.vfs, f"new{number}", data, sync=True)
                files[f"new{number}"] = data
        await trio.sleep(200)  # they are reclaimed, the new ones are not so new any more
        await cluster.kill_chunkd(0, power_cut=True)
        store.files = yesterday
        cluster.set_back(0, 2)
        await cluster.start_chunkd(0)
        await cluster.until(lambda status: all(e.state == "up" for e in status.servers), 30)
        await trio.sleep(10)
        await check(cluster, files)


async def test_the_loss_of_a_rack_loses_nothing(
    autojump_clock: MockClock, rng: random.Random
) -> None:
    async with running_cluster(rng, servers=6, racks=["a", "a", "b", "b", "c", "c"]) as cluster:
        files = await fill(cluster, rng)
        await cluster.kill_chunkd(0)
        await cluster.kill_chunkd(1)
        async with cluster.client() as client:
            for path, data in files.items():
                assert await read_file(client.vfs, path) == data
        await cluster.until(lambda status: status.chunks.under_replicated > 0, 12)
        await check(cluster, files)
