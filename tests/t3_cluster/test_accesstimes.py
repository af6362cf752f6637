"""Times of reading through whole clients."""

from __future__ import annotations

import os
import random
from collections.abc import AsyncIterator

import pytest
import trio
from trio.testing import MockClock

from dfsmount.names.accesstimes import SEND_EVERY_S
from dfsmount.vfs import Vfs
from dfswire.operations import FS_NOATIME, SetAttr
from tests.t3_cluster.cluster import Cluster, running_cluster
from tests.t3_cluster.files import find, names, read_file, write_file


@pytest.fixture
async def cluster(autojump_clock: MockClock) -> AsyncIterator[Cluster]:
    async with running_cluster(random.Random(1)) as cluster:
        yield cluster
        report = await cluster.fsck()
        assert report.findings == []


async def atime(vfs: Vfs, path: str = "f") -> int:
    return (await find(vfs, path)).atime_ns


async def test_a_reading_is_seen_here_at_once_and_elsewhere_soon(
    cluster: Cluster, autojump_clock: MockClock
) -> None:
    async with cluster.client("one") as one, cluster.client("two") as two:
        await write_file(one.vfs, "f", b"abc")
        before = await find(two.vfs, "f")
        await trio.sleep(1)
        await read_file(one.vfs, "f")
        read_at = await atime(one.vfs)
        assert read_at > before.atime_ns + 9 * 10**8
        assert await atime(two.vfs) == before.atime_ns
        await trio.sleep(SEND_EVERY_S + 1)
        after = await find(two.vfs, "f")
        assert after.atime_ns == read_at == await atime(one.vfs)
        assert (after.mtime_ns, after.ctime_ns) == (before.mtime_ns, before.ctime_ns)
        await read_file(two.vfs, "f")
        assert await atime(two.vfs) == read_at, "relatime"


async def test_directories_and_links_are_read_too(
    cluster: Cluster, autojump_clock: MockClock
) -> None:
    async with cluster.client() as client:
        vfs = client.vfs
        directory = await vfs.mkdir(1, b"d", 0o755, 0, 0)
        link = await vfs.symlink(1, b"l", b"d", 0, 0)
        await trio.sleep(1)
        await find(vfs, "l")
        assert await names(vfs, "d") == []
        assert await vfs.readlink(link.inode) == b"d"
        assert await atime(vfs, "d") > directory.atime_ns
        assert await atime(vfs, "l") > link.atime_ns


@pytest.mark.parametrize("options", ["noatime", "ro", "ro,strictatime"])
async def test_mounts_that_leave_no_trace(
    cluster: Cluster, options: str, autojump_clock: MockClock
) -> None:
    async with cluster.client("writer") as writer:
        await write_file(writer.vfs, "f", b"abc")
        before = await atime(writer.vfs)
    async with cluster.client("reader", options=options) as reader:
        await trio.sleep(1)
        await read_file(reader.vfs, "f")
        assert await atime(reader.vfs) == before
        await trio.sleep(SEND_EVERY_S + 1)
        assert await atime(reader.vfs) == before


async def test_files_and_handles_that_leave_no_trace(
    cluster: Cluster, autojump_clock: MockClock
) -> None:
    async with cluster.client(options="strictatime") as client:
        vfs = client.vfs
        inode = await write_file(vfs, "f", b"abc")
        before = await atime(vfs)
        await trio.sleep(1)
        handle = await vfs.open(inode, os.O_RDONLY | os.O_NOATIME)
        assert await vfs.read(handle, 0, 10) == b"abc"
        await vfs.release(handle)
        assert await atime(vfs) == before
        await vfs.set_flags(inode, FS_NOATIME)
        await read_file(vfs, "f")
        assert await atime(vfs) == before
        await vfs.set_flags(inode, 0)
        await read_file(vfs, "f")
        assert await atime(vfs) > before


async def test_a_time_that_is_set_is_not_overwritten_by_late_news(
    cluster: Cluster, autojump_clock: MockClock
) -> None:
    async with cluster.client("one") as one, cluster.client("two") as two:
        inode = await write_file(one.vfs, "f", b"abc")
        await read_file(one.vfs, "f")
        await two.vfs.setattr(SetAttr(inode=inode, atime_ns=12345))
        assert await atime(one.vfs) == 12345
        await trio.sleep(SEND_EVERY_S + 1)
        assert await atime(one.vfs) == await atime(two.vfs) == 12345
