"""A client whose commit is executed, and whose answer is late: the lease has ended with it."""

from __future__ import annotations

import os
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from trio.testing import MockClock

from dfsmount.vfs import Vfs
from dfswire.messages import ROOT_INODE
from dfswire.operations import SetAttr
from tests.t3_cluster.files import read_file
from tests.t3_cluster.gate import gated_pair

OLD, NEW = b"old" * 3000, b"new" * 1000


@asynccontextmanager
async def unanswered(
    rng: random.Random, change: SetAttr | None = None
) -> AsyncIterator[tuple[Vfs, Vfs, int, int]]:
    """A client with a file that it has written (and changed), another client, inode and handle.

    The other one's first question has the file stored; the answer comes when the block ends.
    """
    async with gated_pair(rng) as (cluster, one, gate, other):
        handle, attr = await one.vfs.create(ROOT_INODE, b"f", 0o644, os.O_RDWR, 0, 0)
        inode = attr.inode
        await one.vfs.write(handle, 0, OLD)
        if change is not None:
            await one.vfs.setattr(change)
        late = gate.reply("meta/batch")
        yield one.vfs, other.vfs, inode, handle
        assert late.arrived.is_set()
        before = await _seen(one.vfs, inode)
        late.release()
        await one.vfs.fsync(handle)
        assert await _seen(one.vfs, inode) == before == await _seen(other.vfs, inode)
        await one.vfs.flush(handle)
        await one.vfs.release(handle)
        assert (await cluster.fsck()).findings == []


async def _seen(vfs: Vfs, inode: int) -> tuple[int, int, int]:
    attr = await vfs.getattr(inode)
    return attr.size, attr.mode, attr.mtime_ns


async def test_what_others_write_then_is_read(
    autojump_clock: MockClock, rng: random.Random
) -> None:
    async with unanswered(rng) as (one, other, inode, handle):
        theirs = await other.open(inode, os.O_RDWR)
        await other.write(theirs, 0, NEW)
        await other.release(theirs)
        after = NEW + OLD[len(NEW) :]
        assert bytes(await one.read(handle, 0, 10_000)) == after
    assert after.startswith(NEW)


async def test_a_file_that_others_cut_then_is_short(
    autojump_clock: MockClock, rng: random.Random
) -> None:
    async with unanswered(rng) as (one, other, inode, handle):
        await other.setattr(SetAttr(inode=inode, size=10))
        assert (await one.getattr(inode)).size == 10
        assert bytes(await one.read(handle, 0, 10_000)) == OLD[:10]


async def test_attributes_that_others_set_then_are_told(
    autojump_clock: MockClock, rng: random.Random
) -> None:
    change = SetAttr(inode=2, mode=0o600, mtime_ns=5, atime_ns=5)
    async with unanswered(rng, change) as (one, other, inode, _):
        assert inode == change.inode
        assert (await other.getattr(inode)).mtime_ns == 5
        await other.setattr(SetAttr(inode=inode, mode=0o640, mtime_ns=7, atime_ns=7))
        assert await _seen(one, inode) == (len(OLD), 0o100640, 7)


async def test_until_others_change_it_one_sees_what_one_wrote(
    autojump_clock: MockClock, rng: random.Random
) -> None:
    async with unanswered(rng) as (one, other, _, handle):
        assert await read_file(other, "f") == OLD
        assert bytes(await one.read(handle, 0, 10_000)) == OLD
