"""A quiet cluster: what is written is read, here and elsewhere, and nothing is left over."""

from __future__ import annotations

import os
import random
import stat

import pytest
import trio
from trio.testing import MockClock

from dfswire.errors import Exists, IsDirectory, NoAttribute, NoEntry, NotEmpty
from dfswire.messages import ROOT_INODE
from dfswire.operations import SetAttr
from tests.t3_cluster.cluster import CHUNK_SIZE_BYTES, fully_replicated, pair, running_cluster
from tests.t3_cluster.files import find, names, read_file, write_file

SIZES = [0, 1, 8192, 8193, CHUNK_SIZE_BYTES, CHUNK_SIZE_BYTES + 1, 5 * CHUNK_SIZE_BYTES + 12345]


@pytest.mark.parametrize("size", SIZES)
async def test_written_here_read_there(
    autojump_clock: MockClock, rng: random.Random, size: int
) -> None:
    data = rng.randbytes(size)
    async with running_cluster(rng) as cluster:
        async with cluster.client("a") as one, cluster.client("b") as other:
            await write_file(one.vfs, "f", data)
            assert await read_file(one.vfs, "f") == data
            assert await read_file(other.vfs, "f") == data
            assert (await find(other.vfs, "f")).size == size
        assert fully_replicated(await cluster.status())
        assert (await cluster.fsck()).findings == []


async def test_names(autojump_clock: MockClock, rng: random.Random) -> None:
    async with running_cluster(rng) as cluster, cluster.client() as client:
        vfs = client.vfs
        directory = await vfs.mkdir(ROOT_INODE, b"d", 0o755, 1, 2)
        assert (directory.uid, directory.gid, stat.S_IMODE(directory.mode)) == (1, 2, 0o755)
        await write_file(vfs, "d/a", b"a")
        attr = await find(vfs, "d/a")
        assert (await vfs.link(attr.inode, directory.inode, b"b")).nlink == 2
        link = await vfs.symlink(directory.inode, b"s", b"a/b/c", 0, 0)
        assert await vfs.readlink(link.inode) == b"a/b/c"
        assert await names(vfs, "d") == [b"a", b"b", b"s"]
        await vfs.rename(directory.inode, b"a", ROOT_INODE, b"z", 0)
        assert (await find(vfs, "z")).inode == attr.inode
        with pytest.raises(NoEntry):
            await find(vfs, "d/a")
        with pytest.raises(NotEmpty):
            await vfs.rmdir(ROOT_INODE, b"d")
        with pytest.raises(IsDirectory):
            await vfs.unlink(ROOT_INODE, b"d")
        with pytest.raises(Exists):
            await vfs.mkdir(ROOT_INODE, b"d", 0o755, 0, 0)
        await vfs.unlink(directory.inode, b"b")
        await vfs.unlink(directory.inode, b"s")
        await vfs.rmdir(ROOT_INODE, b"d")
        assert (await find(vfs, "z")).nlink == 1
        assert await names(vfs, "") == [b"z"]


async def test_a_rename_between_two_names_of_one_file_does_nothing(
    autojump_clock: MockClock, rng: random.Random
) -> None:
    async with running_cluster(rng) as cluster, cluster.client() as client:
        vfs = client.vfs
        inode = await write_file(vfs, "a", b"a")
        await vfs.link(inode, ROOT_INODE, b"b")
        await vfs.rename(ROOT_INODE, b"a", ROOT_INODE, b"b", 0)
        assert (await find(vfs, "a")).inode == (await find(vfs, "b")).inode == inode
        assert await names(vfs, "") == [b"a", b"b"]


async def test_attributes_and_xattrs_on_both_clients(
    autojump_clock: MockClock, rng: random.Random
) -> None:
    async with pair(rng) as (_, one, other):
        inode = await write_file(one.vfs, "f", b"f")
        assert stat.S_IMODE((await find(other.vfs, "f")).mode) == 0o644
        await one.vfs.setattr(SetAttr(inode=inode, mode=0o600, uid=7, mtime_ns=5))
        seen = await find(other.vfs, "f")
        assert (stat.S_IMODE(seen.mode), seen.uid, seen.mtime_ns) == (0o600, 7, 5)
        assert await other.vfs.listxattr(inode) == []
        await one.vfs.setxattr(inode, b"user.x", b"1")
        assert await other.vfs.getxattr(inode, b"user.x") == b"1"
        await other.vfs.removexattr(inode, b"user.x")
        with pytest.raises(NoAttribute):
            await one.vfs.getxattr(inode, b"user.x")


async def test_times_set_while_data_is_dirty_stay(
    autojump_clock: MockClock, rng: random.Random
) -> None:
    async with running_cluster(rng) as cluster, cluster.client() as client:
        vfs = client.vfs
        handle, attr = await vfs.create(ROOT_INODE, b"f", 0o644, os.O_RDWR, 0, 0)
        await vfs.write(handle, 0, b"dirty")
        await vfs.setattr(SetAttr(inode=attr.inode, mtime_ns=42, atime_ns=41))
        await vfs.flush(handle)
        await vfs.release(handle)
        after = await find(vfs, "f")
        assert (after.mtime_ns, after.atime_ns, after.size) == (42, 41, 5)


async def test_truncation_in_the_middle_of_writing(
    autojump_clock: MockClock, rng: random.Random
) -> None:
    data = rng.randbytes(3 * CHUNK_SIZE_BYTES)
    async with running_cluster(rng) as cluster:
        async with cluster.client("a") as one, cluster.client("b") as other:
            vfs = one.vfs
            handle, attr = await vfs.create(ROOT_INODE, b"f", 0o644, os.O_RDWR, 0, 0)
            await vfs.write(handle, 0, data)
            await vfs.setattr(SetAttr(inode=attr.inode, size=100_000))
            await vfs.write(handle, 150_000, b"tail")
            expected = data[:100_000] + bytes(50_000) + b"tail"
            assert bytes(await vfs.read(handle, 0, 1 << 20)) == expected
            await vfs.flush(handle)
            assert await read_file(other.vfs, "f") == expected
            await vfs.release(handle)
        assert (await cluster.fsck()).findings == []


async def test_an_open_file_outlives_its_name_on_any_client(
    autojump_clock: MockClock, rng: random.Random
) -> None:
    data = rng.randbytes(CHUNK_SIZE_BYTES + 5)
    async with running_cluster(rng) as cluster:
        async with cluster.client("a") as one, cluster.client("b") as other:
            inode = await write_file(one.vfs, "f", data)
            handle = await other.vfs.open((await find(other.vfs, "f")).inode, os.O_RDWR)
            await one.vfs.unlink(ROOT_INODE, b"f")
            with pytest.raises(NoEntry):
                await find(other.vfs, "f")
            assert bytes(await other.vfs.read(handle, 0, 1 << 20)) == data
            await other.vfs.write(handle, 0, b"still")
            await other.vfs.fsync(handle)
            assert (await other.vfs.getattr(inode)).nlink == 0
            assert (await cluster.fsck()).orphans == 1
            await other.vfs.release(handle)
            await cluster.until(lambda s: s.inodes == 1, 10)
        await cluster.until(lambda s: s.chunks.total == 0, 300)
        await cluster.until(lambda s: s.chunks.pending_delete == 0, 300)
        assert [store.figures().chunks for store in cluster.stores] == [0, 0, 0]
        assert (await cluster.fsck()).findings == []


async def test_two_clients_make_names_in_one_directory(
    autojump_clock: MockClock, rng: random.Random
) -> None:
    async with running_cluster(rng) as cluster:
        async with cluster.client("a") as one, cluster.client("b") as other:

            async def make(client: str) -> None:
                vfs = one.vfs if client == "a" else other.vfs
                for number in range(50):
                    await write_file(vfs, f"{client}{number}", client.encode())

            async with trio.open_nursery() as nursery:
                nursery.start_soon(make, "a")
                nursery.start_soon(make, "b")
            assert len(await names(one.vfs, "")) == 100
            assert await names(one.vfs, "") == await names(other.vfs, "")
        assert (await cluster.fsck()).findings == []


async def test_a_new_file_has_no_xattrs_and_an_opened_one_has_its_own(
    autojump_clock: MockClock, rng: random.Random
) -> None:
    """The kernel asks for an xattr before the first write to a file; metad need not be asked."""
    async with pair(rng) as (cluster, one, other):
        inode = await write_file(one.vfs, "f", b"f")
        with cluster.cut_off(one), pytest.raises(NoAttribute):
            await one.vfs.getxattr(inode, b"security.capability")
        await other.vfs.setxattr(inode, b"user.x", b"1")
        handle, _ = await other.vfs.create(ROOT_INODE, b"f", 0o644, os.O_RDWR, 0, 0)
        assert await other.vfs.getxattr(inode, b"user.x") == b"1"
        assert await one.vfs.getxattr(inode, b"user.x") == b"1"
        await other.vfs.release(handle)


@pytest.mark.parametrize("options", ["", "nocache"])
async def test_a_client_without_caches_asks_for_everything_and_sees_the_same(
    autojump_clock: MockClock, rng: random.Random, options: str
) -> None:
    data = rng.randbytes(200_000)
    async with (
        running_cluster(rng) as cluster,
        cluster.client("a", options=options) as one,
        cluster.client("b") as other,
    ):
        await trio.sleep(1)  # until its stream of events is open nothing is kept
        inode = await write_file(one.vfs, "f", data)
        assert (await one.vfs.getattr(inode)).size == len(data)
        assert await one.vfs.lookup(ROOT_INODE, b"none") is None
        assert (one.vfs.attr_timeout_s(inode) > 0) == (not options)
        assert (one.vfs.name_timeout_s(ROOT_INODE, b"f", inode) > 0) == (not options)
        assert (one.vfs.name_timeout_s(ROOT_INODE, b"none", None) > 0) == (not options)
        for _ in range(2):
            assert await read_file(one.vfs, "f") == data
        assert (one.data.cache.held_bytes == 0) == bool(options)
        assert bool(one.data.layouts.known_slices(inode, 0, len(data))) == (not options)
        await write_file(other.vfs, "f", b"shorter")
        assert await read_file(one.vfs, "f") == b"shorter"


async def test_a_file_that_was_just_made_is_not_truncated(
    autojump_clock: MockClock, rng: random.Random
) -> None:
    """To open a new file is one change, to close it another; an old one is emptied."""
    async with pair(rng) as (_, one, other):
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        before = one.session.acknowledged
        handle, attr = await one.vfs.create(ROOT_INODE, b"f", 0o644, flags, 0, 0)
        assert attr.size == 0
        assert one.session.acknowledged == before + 1
        await one.vfs.write(handle, 0, b"data")
        await one.vfs.flush(handle)
        await one.vfs.release(handle)
        assert one.session.acknowledged == before + 2
        handle, attr = await other.vfs.create(ROOT_INODE, b"f", 0o644, flags, 0, 0)
        assert attr.size == 0
        await other.vfs.release(handle)
        assert await read_file(one.vfs, "f") == b""
