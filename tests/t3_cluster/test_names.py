"""Names and open files that another client changes meanwhile."""

from __future__ import annotations

import os
import random
from contextlib import suppress

import pytest
import trio
from trio.testing import MockClock

from dfswire.errors import NoEntry, Unavailable
from dfswire.messages import ROOT_INODE
from dfswire.operations import SetAttr
from tests.t3_cluster.cluster import pair, running_cluster
from tests.t3_cluster.files import find, read_file, write_file
from tests.t3_cluster.gate import gated, gated_pair, reconnect


async def test_a_name_that_was_given_away_meanwhile_is_asked_for_again(
    autojump_clock: MockClock, rng: random.Random
) -> None:
    """rename(2) promises that the replaced name is always there."""
    async with gated_pair(rng) as (cluster, one, gate, other):
        old = await write_file(other.vfs, "f", b"old")
        new = await write_file(other.vfs, "tmp", b"new")
        assert (await find(one.vfs, "f")).inode == old
        await other.vfs.setattr(SetAttr(inode=old, mtime_ns=1))  # the name stays known
        found = []

        async def look() -> None:
            found.append(await one.vfs.lookup(ROOT_INODE, b"f"))

        late = gate.request("meta/getattr")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(look)
            await late.arrived.wait()
            await other.vfs.rename(ROOT_INODE, b"tmp", ROOT_INODE, b"f", 0)
            await cluster.until(lambda s: s.inodes == 2, 10)  # the old one is purged
            late.release()
        assert found[0] is not None and found[0].inode == new


async def test_an_answer_about_a_name_that_means_something_else_by_now_is_not_for_keeps(
    autojump_clock: MockClock, rng: random.Random
) -> None:
    """A page of a directory, for one, may be given to the kernel long after it came."""
    async with running_cluster(rng) as cluster, gated(cluster) as (client, _gate):
        vfs = client.vfs
        old = await write_file(vfs, "f", b"old")
        new = await write_file(vfs, "tmp", b"new")
        handle = await vfs.opendir(ROOT_INODE)
        page = await vfs.readdir(handle, 0)
        await vfs.rename(ROOT_INODE, b"tmp", ROOT_INODE, b"f", 0)
        entry = next(entry for entry in page if entry.name == b"f")
        assert entry.attr.inode == old
        assert vfs.name_timeout_s(ROOT_INODE, b"f", entry.attr.inode) == 0
        assert vfs.name_timeout_s(ROOT_INODE, b"f", None) == 0
        assert vfs.name_timeout_s(ROOT_INODE, b"f", new) > 0
        vfs.releasedir(handle)


async def test_a_directory_that_is_new_here_shows_what_others_make_in_it(
    autojump_clock: MockClock, rng: random.Random
) -> None:
    """Who made it knows that it is empty, without a question."""
    async with pair(rng) as (_, one, other):
        await trio.sleep(1)  # until its stream of events is open nothing is kept
        made = await one.vfs.mkdir(ROOT_INODE, b"d", 0o755, 0, 0)
        assert one.vfs.name_timeout_s(made.inode, b"x", None) > 0
        await other.vfs.mkdir(made.inode, b"x", 0o755, 0, 0)
        assert await one.vfs.lookup(made.inode, b"x") is not None


async def test_dot_and_dotdot_of_a_directory_whose_names_are_all_known(
    autojump_clock: MockClock, rng: random.Random
) -> None:
    async with running_cluster(rng) as cluster, gated(cluster) as (client, _gate):
        directory = (await client.vfs.mkdir(ROOT_INODE, b"d", 0o755, 0, 0)).inode
        parent = await client.vfs.lookup(directory, b"..")
        itself = await client.vfs.lookup(directory, b".")
        assert parent is not None and parent.inode == ROOT_INODE
        assert itself is not None and itself.inode == directory


async def test_dot_of_a_file_is_the_file(autojump_clock: MockClock, rng: random.Random) -> None:
    """The kernel asks so for what it has only a file handle of (open_by_handle_at, NFS)."""
    async with running_cluster(rng) as cluster, cluster.client() as client:
        inode = await write_file(client.vfs, "f", b"f")
        found = await client.vfs.lookup(inode, b".")
        assert found is not None and found.inode == inode


async def test_a_file_is_not_opened_after_it_was_given_up(
    autojump_clock: MockClock, rng: random.Random
) -> None:
    """An open that succeeds is an open that lasts."""
    async with gated_pair(rng) as (_, one, gate, other):
        inode = await write_file(other.vfs, "f", b"data")
        assert (await find(one.vfs, "f")).inode == inode
        release = gate.request("meta/batch")
        await other.vfs.unlink(ROOT_INODE, b"f")
        await release.arrived.wait()  # "not open here" is on its way
        try:
            handle = await one.vfs.open(inode, os.O_RDONLY)
        except NoEntry:
            release.release()
            return
        release.release()
        await trio.sleep(5)
        assert bytes(await one.vfs.read(handle, 0, 10)) == b"data"


@pytest.mark.parametrize("first", ["open", "unlink"])
async def test_a_file_opened_while_the_stream_is_being_opened_again(
    autojump_clock: MockClock, rng: random.Random, first: str
) -> None:
    """Too late to be named in the request for the stream, too early to be told of the unlink."""
    async with gated_pair(rng) as (cluster, one, gate, other):
        inode = await write_file(other.vfs, "f", b"data")
        assert (await find(one.vfs, "f")).inode == inode
        handles = []

        async def open_it() -> None:
            with suppress(NoEntry):
                handles.append(await one.vfs.open(inode, os.O_RDONLY))

        async def unlink_it() -> None:
            await other.vfs.unlink(ROOT_INODE, b"f")

        held = await reconnect(gate)
        async with trio.open_nursery() as nursery:
            for task in (open_it, unlink_it) if first == "open" else (unlink_it, open_it):
                nursery.start_soon(task)
                await trio.sleep(1)
            held.release()
        await trio.sleep(5)
        for handle in handles:
            assert bytes(await one.vfs.read(handle, 0, 10)) == b"data"
            await one.vfs.release(handle)
        await cluster.until(lambda s: s.inodes == 1, 10)


async def test_an_open_on_a_soft_mount_does_not_wait_for_ever(
    autojump_clock: MockClock, rng: random.Random
) -> None:
    async with running_cluster(rng) as cluster, gated(cluster, soft_s=3.0) as (client, gate):
        inode = await write_file(client.vfs, "f", b"f")
        held = await reconnect(gate)
        began = trio.current_time()
        with pytest.raises(Unavailable):
            await client.vfs.open(inode, os.O_RDONLY)
        assert trio.current_time() - began < 5
        assert client.files.open_inodes() == []
        held.release()


async def test_removing_a_name_that_was_given_to_an_open_file_meanwhile(
    autojump_clock: MockClock, rng: random.Random
) -> None:
    async with gated_pair(rng) as (cluster, one, gate, other):
        await write_file(other.vfs, "f", b"old")
        inode = await write_file(other.vfs, "tmp", b"data")
        assert await read_file(one.vfs, "f") == b"old"
        handle = await one.vfs.open(inode, os.O_RDONLY)
        late = gate.request("meta/batch")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(one.vfs.unlink, ROOT_INODE, b"f")
            await late.arrived.wait()
            await other.vfs.rename(ROOT_INODE, b"tmp", ROOT_INODE, b"f", 0)
            late.release()
        await trio.sleep(5)
        assert bytes(await one.vfs.read(handle, 0, 10)) == b"data"
        await one.vfs.release(handle)
        await cluster.until(lambda s: s.inodes == 1, 10)


async def test_a_rename_over_a_name_that_was_given_to_an_open_file_meanwhile(
    autojump_clock: MockClock, rng: random.Random
) -> None:
    async with gated_pair(rng) as (cluster, one, gate, other):
        await write_file(one.vfs, "mine", b"mine")
        inode = await write_file(other.vfs, "tmp", b"data")
        handle = await one.vfs.open(inode, os.O_RDONLY)
        assert await one.vfs.lookup(ROOT_INODE, b"f") is None
        late = gate.request("meta/batch")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(one.vfs.rename, ROOT_INODE, b"mine", ROOT_INODE, b"f", 0)
            await late.arrived.wait()
            await other.vfs.rename(ROOT_INODE, b"tmp", ROOT_INODE, b"f", 0)
            late.release()
        await trio.sleep(5)
        assert bytes(await one.vfs.read(handle, 0, 10)) == b"data"
        await one.vfs.release(handle)
        await cluster.until(lambda s: s.inodes == 2, 10)
