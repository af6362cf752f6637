"""Errors, full disks and changes that were given up: what a client says and believes afterwards."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import pytest
import trio
from trio.testing import MockClock

from dfsmount.adapter.fuse import Handlers
from dfsmount.adapter.kernelcaches import KernelCaches
from dfsmount.lowlevel.requests import NoLibrary, Requests
from dfswire.errors import DFSError, NoSpace, Unavailable
from dfswire.messages import ROOT_INODE
from dfswire.operations import SetAttr
from tests.t3_cluster.cluster import Cluster, pair, running_cluster
from tests.t3_cluster.files import find, read_file, write_file
from tests.t3_cluster.gate import gated

ExpectLog = Callable[[str], None]


@pytest.mark.parametrize("time_ns", [10**23, -(10**23)])
async def test_times_beyond_what_can_be_kept_are_the_nearest_that_can(
    autojump_clock: MockClock, rng: random.Random, time_ns: int
) -> None:
    """utimensat(2) takes seconds of 64 bits; Linux's own file systems take the nearest time."""
    async with running_cluster(rng) as cluster, cluster.client() as client:
        inode = await write_file(client.vfs, "f", b"f")
        await client.vfs.setattr(SetAttr(inode=inode, mtime_ns=time_ns, atime_ns=5))
        attr = await client.vfs.getattr(inode)
        assert (attr.mtime_ns > 2**62) == (time_ns > 0) and attr.atime_ns == 5


async def test_a_mount_survives_a_metad_that_cannot_write(
    autojump_clock: MockClock, rng: random.Random, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its disk is full: nothing can be changed, but the mount lives on, and so it ends later."""
    async with pair(rng) as (cluster, one, other):
        inode = await write_file(other.vfs, "f", b"f")
        assert (await find(one.vfs, "f")).inode == inode
        handle = await one.vfs.open(inode, os.O_RDONLY)
        await other.vfs.unlink(ROOT_INODE, b"f")
        with full_disk(cluster, monkeypatch):
            await one.vfs.release(handle)
            await trio.sleep(10)
            with pytest.raises(DFSError):
                await one.vfs.mkdir(ROOT_INODE, b"d", 0o755, 0, 0)
        await cluster.until(lambda s: s.inodes == 1, 60)


async def test_a_session_is_opened_anew_once_metad_can_write_again(
    autojump_clock: MockClock,
    rng: random.Random,
    monkeypatch: pytest.MonkeyPatch,
    expect_log: ExpectLog,
) -> None:
    expect_log("metad ended this client's session")
    async with running_cluster(rng) as cluster, cluster.client() as client:
        await write_file(client.vfs, "f", b"f")
        assert client.session.grant is not None
        client.session.lost(client.session.grant.session)
        with full_disk(cluster, monkeypatch):
            await trio.sleep(10)
        assert await read_file(client.vfs, "f") == b"f"


async def test_a_session_that_metad_cannot_close_ends_with_its_lease(
    autojump_clock: MockClock, rng: random.Random, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running_cluster(rng) as cluster, cluster.client() as client:
        await write_file(client.vfs, "f", b"f")
        monkeypatch.setattr(cluster.database, "write", no_space)


async def no_space(work: Callable[[], object]) -> object:
    raise NoSpace("the metadata database failed: disk full (injected)")


@contextmanager
def full_disk(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setattr(cluster.database, "write", no_space)
        yield


async def test_a_file_that_cannot_be_told_of_after_its_creation_is_not_left_open(
    autojump_clock: MockClock, rng: random.Random
) -> None:
    async with (
        running_cluster(rng) as cluster,
        gated(cluster, soft_s=1.0) as (one, gate),
        cluster.client("b") as other,
    ):
        inode = await write_file(one.vfs, "f", b"f")
        created, first = gate.reply("meta/batch"), gate.reply("meta/getattr")

        async def create() -> None:
            with pytest.raises(Unavailable):
                await one.vfs.create(ROOT_INODE, b"f", 0o644, os.O_RDWR, 0, 0)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(create)
            for held in (created, first):  # neither answer may be kept
                await held.arrived.wait()
                await other.vfs.setattr(SetAttr(inode=inode, mode=0o600))
                if held is first:
                    gate.request("meta/getattr")  # never answered
                held.release()
        assert one.files.open_inodes() == []


@pytest.mark.parametrize("change", ["mode", "name"])
async def test_a_change_that_happens_after_it_was_given_up_is_seen(
    autojump_clock: MockClock,
    rng: random.Random,
    monkeypatch: pytest.MonkeyPatch,
    change: str,
) -> None:
    """A soft mount: the application was told ETIMEDOUT, and metad's disk got to it later."""
    async with running_cluster(rng) as cluster, gated(cluster, soft_s=1.0) as (client, _gate):
        inode = await write_file(client.vfs, "f", b"f")
        write, slow = cluster.database.write, trio.Event()

        async def slow_write(work: Callable[[], Any]) -> Any:
            await slow.wait()
            return await write(work)

        monkeypatch.setattr(cluster.database, "write", slow_write)
        with pytest.raises(Unavailable):
            if change == "mode":
                await client.vfs.setattr(SetAttr(inode=inode, mode=0o600))
            else:
                await client.vfs.unlink(ROOT_INODE, b"f")
        assert (await find(client.vfs, "f")).mode & 0o777 == 0o644
        slow.set()
        await trio.sleep(10)
        # It has happened or it never will; either way this client sees what others see.
        async with cluster.client("b") as other:
            truth = await other.vfs.lookup(ROOT_INODE, b"f")
        assert await client.vfs.lookup(ROOT_INODE, b"f") == truth


async def test_df_counts_inodes_once(autojump_clock: MockClock, rng: random.Random) -> None:
    async with running_cluster(rng) as cluster, cluster.client() as client:
        requests = Requests(NoLibrary(), client.coherence.drop_all)
        figures = await Handlers(client.vfs, KernelCaches(), requests).statfs(cast(Any, None))
        assert figures.f_files - figures.f_ffree == 1  # the root
