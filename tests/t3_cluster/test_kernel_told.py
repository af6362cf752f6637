"""What the kernel must forget, it is told, whatever comes in between."""

from __future__ import annotations

import random
import threading
import time

import pytest
import trio
from trio.testing import MockClock

from dfsmount.leases.kernel import Notices
from dfswire.errors import NotDirectory
from dfswire.messages import ROOT_INODE
from dfswire.operations import RENAME_EXCHANGE
from tests.t3_cluster.cluster import running_cluster
from tests.t3_cluster.files import names, read_file, write_file
from tests.t3_cluster.gate import gated, gated_pair
from tests.t3_cluster.kernel import Kernel, kernel_of


async def test_the_kernel_forgets_names_that_do_not_exist_when_the_stream_breaks(
    autojump_clock: MockClock, rng: random.Random, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running_cluster(rng) as cluster, gated(cluster) as (client, gate):
        with kernel_of(client, monkeypatch) as kernel:
            directory = (await client.vfs.mkdir(ROOT_INODE, b"d", 0o755, 0, 0)).inode
            assert await client.vfs.lookup(directory, b"none") is None
            assert client.vfs.name_timeout_s(directory, b"none", None) > 0  # so the kernel keeps it
            gate.break_streams()
            await trio.sleep(1)
            assert (directory, b"none") in kernel.names


async def test_the_kernel_forgets_names_whose_second_answer_came_late(
    autojump_clock: MockClock, rng: random.Random, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with gated_pair(rng) as (_, one, gate, other):
        with kernel_of(one, monkeypatch) as kernel:
            directory = (await other.vfs.mkdir(ROOT_INODE, b"d", 0o755, 0, 0)).inode
            await write_file(other.vfs, "d/x", b"")
            found = await one.vfs.lookup(directory, b"x")
            assert found is not None
            assert one.vfs.name_timeout_s(directory, b"x", found.inode) > 0
            late = gate.reply("meta/readdir")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(names, one.vfs, "d")
                await late.arrived.wait()
                await write_file(other.vfs, "d/y", b"")
                late.release()
            assert (directory, b"x") not in kernel.names
            gate.break_streams()
            await trio.sleep(1)
            assert (directory, b"x") in kernel.names


async def test_the_kernel_forgets_names_after_an_exchange_and_a_failure(
    autojump_clock: MockClock, rng: random.Random, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It moves its entries, or leaves them; nothing here would tell it of them later."""
    async with running_cluster(rng) as cluster, gated(cluster) as (client, _gate):
        with kernel_of(client, monkeypatch) as kernel:
            await write_file(client.vfs, "f", b"f")
            await write_file(client.vfs, "g", b"g")
            await client.vfs.rename(ROOT_INODE, b"f", ROOT_INODE, b"g", RENAME_EXCHANGE)
            await trio.sleep(0.1)
            assert sorted(kernel.names) == [(ROOT_INODE, b"f"), (ROOT_INODE, b"g")]
            assert await read_file(client.vfs, "f") == b"g"
            kernel.names.clear()
            with pytest.raises(NotDirectory):
                await client.vfs.rmdir(ROOT_INODE, b"f")
            await trio.sleep(0.1)
            assert kernel.names == [(ROOT_INODE, b"f")]


async def test_the_kernel_forgets_the_new_name_of_a_rename_that_was_overtaken(
    autojump_clock: MockClock, rng: random.Random, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with gated_pair(rng) as (_, one, gate, other):
        with kernel_of(one, monkeypatch) as kernel:
            await write_file(one.vfs, "f", b"f")
            late = gate.reply("meta/batch")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(one.vfs.rename, ROOT_INODE, b"f", ROOT_INODE, b"g", 0)
                await late.arrived.wait()
                await write_file(other.vfs, "h", b"h")
                late.release()
            await trio.sleep(0.1)
            assert (ROOT_INODE, b"g") in kernel.names


async def test_slow_answers_of_the_kernel_do_not_keep_later_ones_from_being_asked(
    autojump_clock: MockClock, rng: random.Random
) -> None:
    """Forty threads wait for pages that are being read: the next invalidation needs one more."""
    told: list[int] = []
    go_on = threading.Event()

    class Slow(Kernel):
        def forget_inode(self, inode: int, data: bool) -> bool:
            if not go_on.is_set() and len(told) < 60:
                told.append(inode)
                go_on.wait(10)
            return True

    async with trio.open_nursery() as nursery:
        notices = Notices(nursery)
        notices.kernel = Slow()
        try:
            for inode in range(1, 51):
                await notices.tell({inode: True}, [])
            await trio.to_thread.run_sync(time.sleep, 0.2, limiter=trio.CapacityLimiter(1))
            assert sorted(told) == list(range(1, 51))
        finally:
            go_on.set()
