"""The metadata is restored to earlier moments of an hour in which files were deleted, overwritten
and truncated: all bytes of each moment are still there."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from dfsmount.client import FileSystem
from dfswire.errors import InputOutput, NoEntry, UsageError
from dfswire.messages import ROOT_INODE
from dfswire.operations import SetAttr
from metad.recovery.restore import Wish
from tests.t3_cluster.cluster import Cluster, running_cluster
from tests.t3_cluster.files import find, names, opened, read_file, write_file
from tests.t3_cluster.test_metadata_lost import until_in_step

HOUR_S = 3600.0
AFTER_S = 400.0  # a restore is asked for, the disk replaced
NAMES = 12
# As delivered, but for the frequency of what only says that nothing happens.
SETTINGS: dict[str, Any] = {
    "reclaim_grace_s": 60.0,
    "restore_window_s": 7200.0,
    "snapshot_interval_s": 900.0,
    "heartbeat_s": 10.0,
    "suspect_s": 30.0,
    "down_s": 60.0,
    "maintenance_s": 10.0,
    "renew_s": 15.0,
    "sign_of_life_s": 15.0,
    "lease_s": 60.0,
    "fence_s": 90.0,
}
Content = dict[str, bytes]


async def change(client: FileSystem, files: Content, rng: random.Random) -> None:
    """One change of one file; `files` is what must be there afterwards."""
    vfs, name = client.vfs, f"f{rng.randrange(NAMES)}"
    data = rng.randbytes(rng.choice([100, 20_000, 90_000, 200_000]))
    if name not in files:
        await write_file(vfs, name, data, sync=True)
        files[name] = data
        return
    match rng.choice(["delete", "replace", "overwrite", "truncate", "append"]):
        case "delete":
            await vfs.unlink(ROOT_INODE, name.encode())
            del files[name]
        case "replace":
            await write_file(vfs, "new", data, sync=True)
            await vfs.rename(ROOT_INODE, b"new", ROOT_INODE, name.encode(), 0)
            files[name] = data
        case "overwrite":
            files[name] = await write_at(client, name, files[name], 0, data)
        case "append":
            files[name] = await write_at(client, name, files[name], len(files[name]), data)
        case "truncate":
            size = rng.randrange(max(1, len(files[name])))
            await vfs.setattr(SetAttr(inode=(await find(vfs, name)).inode, size=size))
            files[name] = files[name][:size]


async def write_at(client: FileSystem, name: str, before: bytes, offset: int, data: bytes) -> bytes:
    """The content afterwards."""
    async with opened(client.vfs, name) as handle:
        await client.vfs.write(handle, offset, data)
        await client.vfs.fsync(handle)
    return before[:offset] + data + before[offset + len(data) :]


async def an_hour(cluster: Cluster, rng: random.Random) -> list[tuple[int, Content]]:
    """Changes all the time; what was there at each moment between two of them."""
    files: Content = {}
    moments: list[tuple[int, Content]] = []
    began_s = trio.current_time()
    async with cluster.client() as client:
        while trio.current_time() - began_s < HOUR_S:
            await change(client, files, rng)
            await trio.sleep(0.1)
            moments.append((cluster.now_ns(), dict(files)))
            await trio.sleep(rng.uniform(5, 40))
        # Nothing of it is left at the end, so every chunk is dead.
        for name in sorted(files):
            await client.vfs.unlink(ROOT_INODE, name.encode())
    await trio.sleep(AFTER_S)
    return moments


async def check(cluster: Cluster, expected: Content) -> None:
    """With a new client; and the servers come to an agreement with metad."""
    await until_in_step(cluster)
    async with cluster.client() as client:
        assert sorted(await names(client.vfs, "")) == sorted(name.encode() for name in expected)
        for name, data in expected.items():
            assert await read_file(client.vfs, name) == data, name
    assert (await cluster.fsck()).findings == []
    await cluster.until(lambda status: status.chunks.lost == 0, 120)


async def test_every_moment_of_the_last_hour(
    autojump_clock: MockClock, rng: random.Random, tmp_path: Path
) -> None:
    async with running_cluster(rng, directory=tmp_path, metad_settings=SETTINGS) as cluster:
        await until_in_step(cluster)
        moments = await an_hour(cluster, rng)
        first = moments[0]
        for at_ns, expected in [first, *rng.sample(moments, 4), moments[-1]]:
            await cluster.lose_metadata()
            done = await cluster.restore_metadata(Wish(at_ns=at_ns, epoch=1))
            assert done.warnings == []
            await cluster.start_metad()
            await check(cluster, expected)


async def test_a_moment_whose_bytes_are_gone_is_refused(
    autojump_clock: MockClock, rng: random.Random, tmp_path: Path
) -> None:
    settings = {**SETTINGS, "restore_window_s": 0.0}
    async with running_cluster(rng, directory=tmp_path, metad_settings=settings) as cluster:
        await until_in_step(cluster)
        async with cluster.client() as client:
            await write_file(client.vfs, "f", rng.randbytes(100_000), sync=True)
            await trio.sleep(1)
            at_ns = cluster.now_ns()
            await trio.sleep(1)
            await client.vfs.unlink(ROOT_INODE, b"f")
            await trio.sleep(200)
        await cluster.lose_metadata()
        with pytest.raises(UsageError, match=r"2 chunks \(100000 bytes\) .* deleted since"):
            await cluster.restore_metadata(Wish(at_ns=at_ns))
        done = await cluster.restore_metadata(Wish(at_ns=at_ns, accept_loss=True))
        assert len(done.warnings) == 1
        await cluster.start_metad()


async def test_mounts_go_on_after_a_step_back(
    autojump_clock: MockClock,
    rng: random.Random,
    tmp_path: Path,
    expect_log: Callable[[str], None],
    tolerate_log: Callable[[str], None],
) -> None:
    """A client that has files open which are no more must not meet new ones in their place."""
    expect_log("ended this client's session")
    tolerate_log("written bytes are lost")
    async with (
        running_cluster(rng, directory=tmp_path, metad_settings=SETTINGS) as cluster,
        cluster.client("old") as client,
    ):
        await until_in_step(cluster)
        vfs = client.vfs
        await write_file(vfs, "kept", b"kept", sync=True)
        await trio.sleep(1)
        at_ns = cluster.now_ns()
        await trio.sleep(1)
        handle, attr = await vfs.create(ROOT_INODE, b"later", 0o644, 2, 0, 0)
        await vfs.write(handle, 0, b"later")
        await vfs.fsync(handle)
        await write_file(vfs, "kept", b"changed", sync=True)
        await cluster.lose_metadata()
        await cluster.restore_metadata(Wish(at_ns=at_ns))
        await cluster.start_metad()
        async with cluster.client("new") as other:
            fresh = await write_file(other.vfs, "fresh", b"fresh", sync=True)
            assert fresh > attr.inode
        with pytest.raises((InputOutput, NoEntry)):
            await vfs.write(handle, 0, b"wrong")
            await vfs.fsync(handle)
        await vfs.release(handle)
        assert sorted(await names(vfs, "")) == [b"fresh", b"kept"]
        assert await read_file(vfs, "kept") == b"kept"
        assert await read_file(vfs, "fresh") == b"fresh"
        await write_file(vfs, "kept", b"goes on", sync=True)
        assert await read_file(vfs, "kept") == b"goes on"
