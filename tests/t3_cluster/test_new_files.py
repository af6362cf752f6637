"""Attributes of a file that is being made: told with its contents, seen by others in time."""

from __future__ import annotations

import os
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import MockClock

from dfsmount.client import FileSystem
from dfsmount.vfs import Vfs
from dfswire.messages import ROOT_INODE
from dfswire.operations import SetAttr
from tests.t3_cluster.cluster import Cluster, running_cluster
from tests.t3_cluster.files import find, write_file


@pytest.fixture
async def cluster(autojump_clock: MockClock, rng: random.Random) -> AsyncIterator[Cluster]:
    async with running_cluster(rng) as cluster:
        yield cluster
        assert (await cluster.fsck()).findings == []


@asynccontextmanager
async def being_made(vfs: Vfs, data: bytes = b"data") -> AsyncIterator[tuple[int, int]]:
    """A handle and the inode of a new file with dirty contents; closed at the end."""
    await trio.sleep(1)  # what is made before the event stream is there has no lease
    handle, attr = await vfs.create(ROOT_INODE, b"new", 0o644, os.O_RDWR, 0, 0)
    if data:
        await vfs.write(handle, 0, data)
    yield handle, attr.inode
    await vfs.flush(handle)
    await vfs.release(handle)


async def change(vfs: Vfs, inode: int) -> None:
    """As tar does."""
    await vfs.setattr(SetAttr(inode=inode, atime_ns=111, mtime_ns=222))
    await vfs.setattr(SetAttr(inode=inode, uid=7, gid=8))
    await vfs.setattr(SetAttr(inode=inode, mode=0o4750))


async def assert_changed(client: FileSystem) -> None:
    attr = await find(client.vfs, "new")
    assert (attr.mode, attr.uid, attr.gid) == (0o104750, 7, 8)
    assert (attr.atime_ns, attr.mtime_ns) == (111, 222)


@pytest.mark.parametrize("data", [b"", b"data", bytes(200_000)])
async def test_metad_hears_of_them_with_the_contents(cluster: Cluster, data: bytes) -> None:
    async with cluster.client("a") as one, cluster.client("b") as other:
        async with being_made(one.vfs, data) as (_, inode):
            with cluster.cut_off(one), trio.fail_after(1):
                await change(one.vfs, inode)
                await assert_changed(one)
        await assert_changed(one)
        await assert_changed(other)


async def test_who_looks_before_they_are_told_sees_them(cluster: Cluster) -> None:
    async with (
        cluster.client("a") as one,
        cluster.client("b") as other,
        being_made(one.vfs) as (_, inode),
    ):
        await change(one.vfs, inode)
        await assert_changed(other)
        before = (await find(other.vfs, "new")).ctime_ns
        await one.vfs.setattr(SetAttr(inode=inode, mode=0o600))
        attr = await find(other.vfs, "new")
        assert attr.mode == 0o100600 and attr.ctime_ns > before


async def test_what_others_may_know_is_told_at_once(cluster: Cluster) -> None:
    """Their kernels decide by it who may chmod, so nothing may be put off."""
    async with cluster.client("a") as one, cluster.client("b") as other:
        inode = await write_file(one.vfs, "old", b"data")
        await find(other.vfs, "old")
        handle = await one.vfs.open(inode, os.O_RDWR)
        await one.vfs.write(handle, 0, b"more")
        with cluster.cut_off(one), trio.move_on_after(1) as scope:
            await one.vfs.setattr(SetAttr(inode=inode, uid=7))
        assert scope.cancelled_caught
        await one.vfs.release(handle)


async def test_the_order_of_times(cluster: Cluster) -> None:
    async with cluster.client("a") as one, cluster.client("b") as other:
        vfs = one.vfs
        async with being_made(vfs) as (handle, inode):
            await vfs.setattr(SetAttr(inode=inode, mtime_ns=5))
            await vfs.write(handle, 0, b"later")
            written = (await vfs.getattr(inode)).mtime_ns
            assert written > 5
        assert (await find(other.vfs, "new")).mtime_ns == written
        await vfs.unlink(ROOT_INODE, b"new")
        async with being_made(vfs) as (handle, inode):
            await vfs.setattr(SetAttr(inode=inode, mtime_ns=5))
            await vfs.setattr(SetAttr(inode=inode, size=2))
            truncated = (await vfs.getattr(inode)).mtime_ns
            assert truncated > 5
        assert (await find(other.vfs, "new")).mtime_ns == truncated


async def test_a_reading_after_utimens_is_a_later_atime(cluster: Cluster) -> None:
    async with cluster.client("a") as one, cluster.client("b") as other:
        async with being_made(one.vfs) as (handle, inode):
            await one.vfs.setattr(SetAttr(inode=inode, atime_ns=1, mtime_ns=2))
            await one.vfs.read(handle, 0, 4)
            assert (await one.vfs.getattr(inode)).atime_ns > 2
        await trio.sleep(30)
        assert (await find(other.vfs, "new")).atime_ns > 2


async def test_chown_takes_privileges_away(cluster: Cluster) -> None:
    async with cluster.client("a") as one, cluster.client("b") as other:
        async with being_made(one.vfs) as (_, inode):
            await one.vfs.setattr(SetAttr(inode=inode, mode=0o6755))
            await one.vfs.setattr(SetAttr(inode=inode, uid=7))
            assert (await one.vfs.getattr(inode)).mode == 0o100755
        assert (await find(other.vfs, "new")).mode == 0o100755
