"""Locks of several clients of one cluster: who has them, who gives up, what is seen under them."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import nullcontext

import pytest
import trio
from trio.testing import MockClock

from dfsmount.client import FileSystem
from dfswire.errors import Deadlock, WouldBlock
from dfswire.locks import LockType, Range
from tests.fakes import Faults
from tests.t3_cluster.cluster import running_cluster
from tests.t3_cluster.files import read_file, write_file
from tests.t3_cluster.gate import gated
from tests.t3_cluster.lockers import READ, UNLOCK, WRITE, Opened, Waiter, open_file, two_openers

ExpectLog = Callable[[str], None]


# Who has it


async def test_a_lock_of_one_client_keeps_another_out(
    autojump_clock: MockClock, rng: random.Random
) -> None:
    async with two_openers(rng) as (_, one, other):
        await one.lock(WRITE, 0, 9)
        with pytest.raises(WouldBlock):
            await other.lock(READ, 5, 20, wait=False)
        await other.lock(WRITE, 10, 20, wait=False)
        with pytest.raises(WouldBlock):
            await one.lock(WRITE, wait=False)
        await one.lock(UNLOCK)
        await other.lock(WRITE, wait=False)


async def test_who_waits_gets_it_when_it_is_free(
    autojump_clock: MockClock, rng: random.Random
) -> None:
    """However long that takes: the call is asked again and again meanwhile."""
    async with two_openers(rng) as (_, one, other), trio.open_nursery() as nursery:
        await one.flock(WRITE)
        waiter = Waiter(nursery, lambda: other.flock(READ))
        await trio.sleep(100)
        assert not waiter.done.is_set()
        await one.flock(UNLOCK)
        with trio.fail_after(1):
            await waiter.done.wait()
        with pytest.raises(WouldBlock):
            await one.flock(WRITE, wait=False)


async def test_getlk_tells_the_pid_on_the_same_host_only(
    autojump_clock: MockClock, rng: random.Random
) -> None:
    async with two_openers(rng) as (cluster, one, other):
        one.pid = 4711
        await one.lock(WRITE, 3, 5)
        assert await other.who() == Range(type=WRITE, start=3, end=5)
        assert await one.who() is None
        async with cluster.client("a") as neighbour:
            assert await (await open_file(neighbour)).who() == Range(
                type=WRITE, start=3, end=5, pid=4711
            )


async def test_a_deadlock_over_two_clients_is_found(
    autojump_clock: MockClock, rng: random.Random
) -> None:
    async with two_openers(rng) as (_, one, other), trio.open_nursery() as nursery:
        await one.lock(WRITE, 0, 0)
        await other.lock(WRITE, 1, 1)
        waiter = Waiter(nursery, lambda: one.lock(WRITE, 1, 1))
        await trio.sleep(1)
        with pytest.raises(Deadlock):
            await other.lock(WRITE, 0, 0)
        await other.lock(UNLOCK)
        await waiter.done.wait()


async def test_closing_any_descriptor_releases_the_process_its_locks(
    autojump_clock: MockClock, rng: random.Random
) -> None:
    async with two_openers(rng) as (_, one, other):
        second = await open_file(one.client)
        await one.lock(WRITE)
        await second.close()
        await other.lock(WRITE, wait=False)


async def test_the_last_close_releases_flocks_and_locks_of_the_open_file(
    autojump_clock: MockClock, rng: random.Random
) -> None:
    """An OFD lock comes with an owner that no flush ever names."""
    async with two_openers(rng) as (_, one, other):
        await one.flock(WRITE)
        await one.lock(WRITE)
        await one.client.vfs.flush(one.handle, 99)
        with pytest.raises(WouldBlock):
            await other.flock(WRITE, wait=False)
        with pytest.raises(WouldBlock):
            await other.lock(WRITE, wait=False)
        await one.client.vfs.release(one.handle)
        await other.flock(WRITE, wait=False)
        await other.lock(WRITE, wait=False)


async def test_a_file_may_be_released_while_its_close_is_under_way(
    autojump_clock: MockClock, rng: random.Random
) -> None:
    """The kernel does that when the process was killed in its close(2)."""
    async with two_openers(rng) as (cluster, one, other), trio.open_nursery() as nursery:
        await one.lock(WRITE)
        await one.write(b"1")
        await cluster.kill_metad()
        closing = Waiter(nursery, lambda: one.client.vfs.flush(one.handle, one.owner))
        await trio.testing.wait_all_tasks_blocked()
        release = Waiter(nursery, lambda: one.client.vfs.release(one.handle, one.owner))
        await trio.testing.wait_all_tasks_blocked()
        assert not closing.over.is_set()
        await cluster.start_metad()
        await closing.over.wait()
        await release.over.wait()
        assert (closing.error, release.error) == (None, None)
        await other.lock(WRITE)
        assert await read_file(other.client.vfs, "f") == b"1"


async def test_a_close_without_locks_asks_nothing(
    autojump_clock: MockClock, rng: random.Random
) -> None:
    async with two_openers(rng) as (cluster, one, _):
        await one.lock(WRITE)
        await one.lock(UNLOCK)
        await one.lock(UNLOCK)
        with cluster.cut_off(one.client):
            with trio.fail_after(1):
                await one.close()


async def test_a_client_that_goes_away_releases_all(
    autojump_clock: MockClock, rng: random.Random
) -> None:
    async with two_openers(rng) as (cluster, one, _), cluster.client("c") as other:
        third = await open_file(other)
        await third.lock(WRITE)
        with pytest.raises(WouldBlock):
            await one.lock(WRITE, wait=False)
        await other.session.close()
        await one.lock(WRITE, wait=False)


# Giving up


async def test_who_is_interrupted_leaves_the_queue(
    autojump_clock: MockClock, rng: random.Random
) -> None:
    async with two_openers(rng) as (_, one, other), trio.open_nursery() as nursery:
        await one.lock(READ)
        waiter = Waiter(nursery, lambda: other.lock(WRITE))
        await trio.sleep(1)
        waiter.scope.cancel()
        third = await open_file(other.client, owner=2)
        with trio.fail_after(5):
            await third.lock(READ)  # a writer that still waited would be in its way
        assert not waiter.done.is_set()


async def test_an_interruption_that_comes_too_late_does_not_undo(
    autojump_clock: MockClock, rng: random.Random
) -> None:
    async with running_cluster(rng) as cluster, gated(cluster) as (client, gate):
        await write_file(client.vfs, "f", b"0")
        one = await open_file(client)
        async with trio.open_nursery() as nursery:
            held = gate.reply("lock/set")
            waiter = Waiter(nursery, lambda: one.lock(WRITE))
            await held.arrived.wait()
            waiter.scope.cancel()
            await waiter.over.wait()
            assert waiter.done.is_set() and waiter.error is None
        async with cluster.client("b") as other:
            with pytest.raises(WouldBlock):
                await (await open_file(other)).lock(READ, wait=False)


async def test_a_request_that_was_interrupted_never_happens_later(
    autojump_clock: MockClock, rng: random.Random
) -> None:
    """It is still on its way to metad when the caller gives up."""
    async with running_cluster(rng) as cluster, gated(cluster) as (client, gate):
        await write_file(client.vfs, "f", b"0")
        one = await open_file(client)
        with gate.losing("lock/set") as copies, trio.move_on_after(1):
            await one.lock(WRITE)
        await gate.handle_async_request(copies[0])
        async with cluster.client("b") as other:
            await (await open_file(other)).lock(WRITE, wait=False)


async def test_who_gives_up_while_metad_is_away_is_not_kept(
    autojump_clock: MockClock, rng: random.Random
) -> None:
    """The lock was granted, nobody knows it here; it is undone when metad can be reached."""
    async with running_cluster(rng) as cluster, gated(cluster) as (client, gate):
        await write_file(client.vfs, "f", b"0")
        one = await open_file(client)
        async with cluster.client("b") as second, trio.open_nursery() as nursery:
            other = await open_file(second)
            await one.lock(READ, 0, 4)
            await other.lock(READ, 3, 9)
            held = gate.reply("lock/set")
            waiter = Waiter(nursery, lambda: one.lock(WRITE, 2, 6))
            await trio.sleep(1)
            with cluster.cut_off(client):
                await other.lock(UNLOCK)
                await held.arrived.wait()
                began = trio.current_time()
                waiter.scope.cancel()
                await waiter.over.wait()
                assert trio.current_time() - began < 2 and not waiter.done.is_set()
                with pytest.raises(WouldBlock):
                    await other.lock(READ, 2, 2, wait=False)
            with trio.fail_after(10):
                await one.lock(READ, 20, 20)  # which waits until all is clear
            await other.lock(WRITE, 5, 9, wait=False)
            await other.lock(READ, 2, 9, wait=False)
            with pytest.raises(WouldBlock):  # what it had before it still has
                await other.lock(WRITE, 2, 2, wait=False)


@pytest.mark.parametrize("before", [READ, WRITE])
async def test_giving_up_while_metad_is_away_does_not_take_a_flock_that_was_there_before(
    autojump_clock: MockClock, rng: random.Random, before: LockType
) -> None:
    """Asking for what it has changes nothing, and neither does giving that up.  A conversion
    drops what it had."""
    async with running_cluster(rng) as cluster, gated(cluster) as (client, gate):
        await write_file(client.vfs, "f", b"0")
        one = await open_file(client)
        async with cluster.client("b") as second, trio.open_nursery() as nursery:
            other = await open_file(second)
            await one.flock(before)
            held = gate.reply("lock/set")
            waiter = Waiter(nursery, lambda: one.flock(WRITE))
            await held.arrived.wait()
            with cluster.cut_off(client):
                waiter.scope.cancel()
                await waiter.over.wait()
                assert not waiter.done.is_set()
            await trio.sleep(10)
            with pytest.raises(WouldBlock) if before == WRITE else nullcontext():
                await other.flock(READ, wait=False)


# What is seen under a lock


async def add_one(file: Opened, flock: bool) -> None:
    lock = file.flock if flock else file.lock
    await lock(WRITE)
    try:
        value = int(await file.read())
        await file.write(b"%d" % (value + 1))
    finally:
        await lock(UNLOCK)


@pytest.mark.parametrize("flock", [False, True])
@pytest.mark.parametrize("kills", [0, 4])
async def test_a_counter_under_a_lock_loses_nothing(
    autojump_clock: MockClock,
    rng: random.Random,
    tolerate_log: ExpectLog,
    flock: bool,
    kills: int,
) -> None:
    tolerate_log("metad at metad:1 does not answer")
    rounds = 25
    async with (
        running_cluster(rng) as cluster,
        cluster.client("a") as one,
        cluster.client("b") as two,
        cluster.client("c") as three,
    ):
        await write_file(one.vfs, "f", b"0")
        cluster.set_faults(Faults(lost_request=0.05, lost_reply=0.05, duplicate=0.2, delay=0.05))

        async def count(client: FileSystem, owner: int) -> None:
            file = await open_file(client, owner=owner)
            for _ in range(rounds):
                await add_one(file, flock)
            await file.close()

        async def kill() -> None:
            for _ in range(kills):
                await trio.sleep(rng.uniform(0.1, 5))
                await cluster.kill_metad()
                await trio.sleep(rng.uniform(0, 2))
                await cluster.start_metad()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(kill)
            for client in (one, two, three):
                for owner in (1, 2):
                    nursery.start_soon(count, client, owner)
        cluster.set_faults(Faults())
        assert await read_file(one.vfs, "f") == b"%d" % (6 * rounds)
