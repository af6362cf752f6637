"""One fault at a time, in a cluster under a virtual clock: the application sees nothing, or the
truth."""

from __future__ import annotations

import os
import random
from collections.abc import Callable

import pytest
import trio
from trio.testing import MockClock

from dfswire.errors import DFSError, InputOutput, Unavailable
from dfswire.messages import ROOT_INODE
from tests.fakes import Faults
from tests.t3_cluster.cluster import CHUNK_SIZE_BYTES, Cluster, fully_replicated, running_cluster
from tests.t3_cluster.files import find, names, read_file, write_file

ExpectLog = Callable[[str], None]


async def check(cluster: Cluster, files: dict[str, bytes]) -> None:
    """Every file is right for a client without caches, redundancy is full, fsck finds nothing."""
    await cluster.until(fully_replicated, 300)
    async with cluster.client("checker") as client:
        for path, data in files.items():
            assert await read_file(client.vfs, path) == data, path
    assert (await cluster.fsck()).findings == []


@pytest.mark.parametrize("victim", [0, 1, 2])
@pytest.mark.parametrize("power_cut", [False, True])
async def test_a_chunkd_dies_while_files_are_written_and_read(
    autojump_clock: MockClock, rng: random.Random, victim: int, power_cut: bool
) -> None:
    files = {f"f{number}": rng.randbytes(4 * CHUNK_SIZE_BYTES) for number in range(20)}
    async with running_cluster(rng) as cluster:
        async with cluster.client() as client:
            for number, (path, data) in enumerate(files.items()):
                if number == 10:
                    await cluster.kill_chunkd(victim, power_cut=power_cut)
                await write_file(client.vfs, path, data, sync=True)
        async with cluster.client() as client:
            for path, data in files.items():
                assert await read_file(client.vfs, path) == data
        took_s = await cluster.until(lambda s: s.chunks.under_replicated > 0, 15)
        assert took_s <= 12
        await cluster.until(fully_replicated, 120)
        await cluster.start_chunkd(victim)
        await check(cluster, files)


async def test_metad_restarts_under_load(
    autojump_clock: MockClock, rng: random.Random, expect_log: ExpectLog
) -> None:
    expect_log("metad at metad:1 does not answer")
    files = {f"f{number}": rng.randbytes(100 + 1000 * number) for number in range(40)}
    async with running_cluster(rng) as cluster, cluster.client() as client:

        async def restart() -> None:
            for _ in range(5):
                await trio.sleep(rng.uniform(0.0, 0.02))
                await cluster.kill_metad()
                await trio.sleep(rng.uniform(0.0, 3.0))
                await cluster.start_metad()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(restart)
            for path, data in files.items():
                await write_file(client.vfs, path, data)
                await client.vfs.rename(
                    ROOT_INODE, path.encode(), ROOT_INODE, b"r" + path.encode(), 0
                )
                await trio.sleep(0.2)
        await check(cluster, {"r" + path: data for path, data in files.items()})


async def test_a_metad_that_has_just_started_does_not_call_the_disks_full(
    autojump_clock: MockClock, rng: random.Random, tolerate_log: ExpectLog
) -> None:
    tolerate_log("metad at metad:1 does not answer")
    async with running_cluster(rng) as cluster, cluster.client() as client:
        inode = await write_file(client.vfs, "f", b"data")
        handle = await client.vfs.open(inode, os.O_RDWR)
        await cluster.kill_metad()
        await cluster.start_metad()
        await client.vfs.fallocate(handle, 0, 0, 1 << 20)
        assert (await client.vfs.getattr(inode)).size == 1 << 20
        await client.vfs.release(handle)


async def test_lost_and_doubled_messages_do_everything_once(
    autojump_clock: MockClock, rng: random.Random
) -> None:
    async with running_cluster(rng) as cluster:
        async with cluster.client("a") as one, cluster.client("b") as other:
            cluster.set_faults(Faults(lost_request=0.1, lost_reply=0.15, duplicate=0.2, delay=0.05))
            for number in range(60):
                client = (one, other)[number % 2]
                await client.vfs.mkdir(ROOT_INODE, b"d%d" % number, 0o755, 0, 0)
                if number % 3 == 0:
                    await client.vfs.rmdir(ROOT_INODE, b"d%d" % number)
            cluster.set_faults(Faults())
            left = [b"d%d" % number for number in range(60) if number % 3]
            assert await names(one.vfs, "") == left
        await check(cluster, {})


async def test_fsynced_data_survives_a_power_cut_of_everything(
    autojump_clock: MockClock, rng: random.Random
) -> None:
    files = {f"f{number}": rng.randbytes(3 * CHUNK_SIZE_BYTES) for number in range(10)}
    async with running_cluster(rng) as cluster:
        async with cluster.client() as client:
            for path, data in files.items():
                await write_file(client.vfs, path, data, sync=True)
            for number in range(3):
                await cluster.kill_chunkd(number, power_cut=True)
            await cluster.kill_metad()
            await cluster.start_all()
        await check(cluster, files)


@pytest.mark.parametrize("harm", ["corrupt", "truncate", "drop"])
async def test_a_bad_replica_is_never_served_and_is_replaced(
    autojump_clock: MockClock, rng: random.Random, expect_log: ExpectLog, harm: str
) -> None:
    files = {f"f{number}": rng.randbytes(2 * CHUNK_SIZE_BYTES) for number in range(8)}
    if harm != "drop":
        expect_log("chunk")
    async with running_cluster(rng) as cluster:
        async with cluster.client() as client:
            for path, data in files.items():
                await write_file(client.vfs, path, data, sync=True)
        store = cluster.stores[0]
        for chunk in list(store.files):
            getattr(store, harm)(chunk)
        async with cluster.client() as client:
            for path, data in files.items():
                assert await read_file(client.vfs, path) == data
        await check(cluster, files)


async def test_no_good_copy_is_an_error_never_wrong_bytes(
    autojump_clock: MockClock, rng: random.Random, expect_log: ExpectLog
) -> None:
    expect_log("chunk")
    async with running_cluster(rng) as cluster:
        async with cluster.client() as client:
            await write_file(client.vfs, "bad", rng.randbytes(2 * CHUNK_SIZE_BYTES), sync=True)
            good = rng.randbytes(CHUNK_SIZE_BYTES)
            inode = (await find(client.vfs, "bad")).inode
            bad = (await client.data.layouts.slices(inode, 0, 1))[0].value
            assert bad is not None and not isinstance(bad, bytes)
            await write_file(client.vfs, "good", good, sync=True)
        for store in cluster.stores:
            if bad.chunk in store.files:
                store.corrupt(bad.chunk)
        async with cluster.client() as client:
            handle = await client.vfs.open(inode, os.O_RDONLY)
            with pytest.raises(InputOutput):
                await client.vfs.read(handle, 0, CHUNK_SIZE_BYTES)
            assert len(await client.vfs.read(handle, CHUNK_SIZE_BYTES, 100)) == 100
            assert await read_file(client.vfs, "good") == good
        await cluster.until(lambda s: s.chunks.lost == 1, 30)


async def test_a_soft_mount_gives_up(
    autojump_clock: MockClock, rng: random.Random, expect_log: ExpectLog
) -> None:
    expect_log("metad at metad:1 does not answer")
    async with running_cluster(rng) as cluster, cluster.client(soft_s=15) as client:
        await cluster.kill_metad()
        began = trio.current_time()
        with pytest.raises(Unavailable):
            await client.vfs.mkdir(ROOT_INODE, b"d", 0o755, 0, 0)
        assert 15 <= trio.current_time() - began <= 25
        await cluster.start_metad()


async def test_a_dead_client_delays_others_no_longer_than_its_lease(
    autojump_clock: MockClock, rng: random.Random, expect_log: ExpectLog
) -> None:
    expect_log("the lease ended")
    async with running_cluster(rng) as cluster:
        async with cluster.client("dead") as dead, cluster.client("living") as living:
            await names(dead.vfs, "")
            began = trio.current_time()
            with cluster.cut_off(dead):
                await write_file(living.vfs, "f", b"new")  # the dead client never confirms
                assert 20 <= trio.current_time() - began <= 35
                assert await read_file(living.vfs, "f") == b"new"
                await write_file(living.vfs, "f", b"newer")  # nobody waits twice
                assert trio.current_time() - began <= 36
        await check(cluster, {"f": b"newer"})


async def test_a_client_that_was_cut_off_is_fenced(
    autojump_clock: MockClock, rng: random.Random, expect_log: ExpectLog
) -> None:
    """Its uncommitted data is lost, and it says so; what it cached is not served any more."""
    expect_log("the lease ended")
    expect_log("metad ended this client's session")
    expect_log("written bytes are lost")
    async with running_cluster(rng) as cluster:
        async with cluster.client("cut") as cut, cluster.client("other") as other:
            await write_file(other.vfs, "f", b"old")
            assert await read_file(cut.vfs, "f") == b"old"
            handle, _ = await cut.vfs.create(ROOT_INODE, b"g", 0o644, os.O_RDWR, 0, 0)
            with cluster.cut_off(cut):
                await cut.vfs.write(handle, 0, b"never committed")
                await write_file(other.vfs, "f", b"new")
                await trio.sleep(60)
            assert await read_file(cut.vfs, "f") == b"new"
            with pytest.raises(DFSError):
                await cut.vfs.fsync(handle)
            await cut.vfs.fsync(handle)  # told once
            await cut.vfs.release(handle)
        await check(cluster, {"f": b"new", "g": b""})
