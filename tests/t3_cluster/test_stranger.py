"""A metad of another cluster answers for a while, for it was started without its database: what
programs have written meanwhile, or before, is kept by the mount until the right one is back."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from dfswire.errors import InputOutput, Unavailable
from dfswire.messages import ROOT_INODE
from tests.t3_cluster.cluster import Cluster, running_cluster
from tests.t3_cluster.files import find, names, opened, read_file, write_file
from tests.t3_cluster.test_metadata_lost import until_in_step

ExpectLog = Callable[[str], None]


@pytest.fixture(autouse=True)
def told(expect_log: ExpectLog, tolerate_log: ExpectLog) -> None:
    """What all say of the stranger, who may stay for more than a lease."""
    expect_log("waiting for the right one")
    expect_log("belongs to another cluster")
    tolerate_log("the lease ended")


async def stranger(cluster: Cluster, stays_s: float) -> None:
    """metad's disk is lost, an empty cluster is begun at its address; then the right one is
    restored."""
    await cluster.lose_metadata()
    await cluster.start_stranger()
    await trio.sleep(stays_s)
    await cluster.lose_metadata()
    assert (await cluster.restore_metadata()).warnings == []
    await cluster.start_metad()


@pytest.mark.parametrize("stays_s", [2.0, 300.0])  # within a lease, and after many
async def test_what_was_not_stored_is_kept(
    autojump_clock: MockClock, rng: random.Random, tmp_path: Path, stays_s: float
) -> None:
    before, while_away = rng.randbytes(200_000), rng.randbytes(70_000)
    async with running_cluster(rng, directory=tmp_path) as cluster, cluster.client() as client:
        await write_file(client.vfs, "old", b"old", sync=True)
        await until_in_step(cluster)
        session = await client.session.current()
        async with opened(client.vfs, "old") as handle, trio.open_nursery() as nursery:
            await client.vfs.write(handle, 0, before)
            nursery.start_soon(stranger, cluster, stays_s)
            await trio.sleep(1)
            await client.vfs.write(handle, len(before), while_away)
            await client.vfs.fsync(handle)
        assert await client.session.current() == session
        assert client.session.losses == 0
        async with cluster.client("other") as other:
            assert await read_file(other.vfs, "old") == before + while_away


async def test_operations_wait_and_happen_once(
    autojump_clock: MockClock, rng: random.Random, tmp_path: Path
) -> None:
    async with running_cluster(rng, directory=tmp_path) as cluster, cluster.client() as client:
        await write_file(client.vfs, "old", b"old", sync=True)
        await until_in_step(cluster)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stranger, cluster, 60.0)
            await trio.sleep(1)
            for number in range(5):
                nursery.start_soon(write_file, client.vfs, f"f{number}", b"new")
            nursery.start_soon(client.vfs.unlink, ROOT_INODE, b"old")
        assert sorted(await names(client.vfs, "")) == [f"f{number}".encode() for number in range(5)]
        assert client.session.losses == 0


async def test_a_session_that_ends_meanwhile_loses_what_was_not_stored(
    autojump_clock: MockClock, rng: random.Random, tmp_path: Path, expect_log: ExpectLog
) -> None:
    """The right metad is back and does not hear this client: that ends its session."""
    expect_log("metad ended this client's session")
    expect_log("3 written bytes are lost")
    async with running_cluster(rng, directory=tmp_path) as cluster, cluster.client() as client:
        await write_file(client.vfs, "old", b"old", sync=True)
        await until_in_step(cluster)
        async with opened(client.vfs, "old") as handle:
            await client.vfs.write(handle, 0, b"new")
            await cluster.lose_metadata()
            await cluster.start_stranger()
            await trio.sleep(30)
            await cluster.lose_metadata()
            with cluster.cut_off(client):
                await cluster.restore_metadata()
                await cluster.start_metad()
                await cluster.until(lambda s: not s.sessions, 300)
            with pytest.raises(InputOutput):
                await client.vfs.fsync(handle)
            await client.vfs.fsync(handle)  # told once
        assert await read_file(client.vfs, "old") == b"old"
        assert client.session.losses == 1


async def test_a_soft_mount_waits_no_longer_than_it_may(
    autojump_clock: MockClock, rng: random.Random, tmp_path: Path
) -> None:
    async with (
        running_cluster(rng, directory=tmp_path) as cluster,
        cluster.client(soft_s=10.0) as client,
    ):
        await write_file(client.vfs, "old", b"old", sync=True)
        await until_in_step(cluster)
        await cluster.lose_metadata()
        await cluster.start_stranger()
        began = trio.current_time()
        with pytest.raises(Unavailable):
            await find(client.vfs, "new")
        assert trio.current_time() - began < 30
        await cluster.lose_metadata()
        await cluster.restore_metadata()
        await cluster.start_metad()
        await client.session.stream.opened()
        assert await read_file(client.vfs, "old") == b"old"
