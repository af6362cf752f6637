"""Locks of several clients of one cluster: who has them, what is seen under them, and what a client
is still able to do that has lost them."""

from __future__ import annotations

import os
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest
import trio
from trio.testing import MockClock

from dfsmount.client import FileSystem
from dfswire.errors import Deadlock, DFSError, InputOutput, Unavailable, WouldBlock
from dfswire.locks import LOCK_END_MAX, LockType, Range
from dfswire.operations import SetAttr
from tests.fakes import Faults
from tests.t3_cluster.cluster import Cluster, running_cluster
from tests.t3_cluster.files import find, read_file, write_file
from tests.t3_cluster.gate import gated

ExpectLog = Callable[[str], None]
READ, WRITE, UNLOCK = LockType.READ, LockType.WRITE, LockType.UNLOCK


@dataclass
class Opened:
    """One open(2) of a file by one process."""

    client: FileSystem
    inode: int
    handle: int
    owner: int
    pid: int = 1000

    async def lock(
        self, kind: LockType, start: int = 0, end: int = LOCK_END_MAX, *, wait: bool = True
    ) -> None:
        """fcntl(2)."""
        wanted = Range(type=kind, start=start, end=end)
        await self.client.vfs.set_lock(self.handle, self.owner, self.pid, wanted, wait)

    async def flock(self, kind: LockType, *, wait: bool = True) -> None:
        await self.client.vfs.flock(self.handle, self.owner, kind, wait, self.pid)

    async def who(self, kind: LockType = WRITE) -> Range | None:
        """F_GETLK."""
        return await self.client.vfs.get_lock(self.inode, self.owner, Range(type=kind))

    async def read(self, length: int = 1000) -> bytes:
        return bytes(await self.client.vfs.read(self.handle, 0, length))

    async def write(self, data: bytes, offset: int = 0) -> None:
        await self.client.vfs.write(self.handle, offset, data)

    async def close(self) -> None:
        await self.client.vfs.flush(self.handle, self.owner)
        await self.client.vfs.release(self.handle, self.owner)


async def open_file(client: FileSystem, path: str = "f", owner: int = 1) -> Opened:
    inode = (await find(client.vfs, path)).inode
    return Opened(client, inode, await client.vfs.open(inode, os.O_RDWR), owner)


@asynccontextmanager
async def two_openers(
    rng: random.Random,
) -> AsyncIterator[tuple[Cluster, Opened, Opened]]:
    async with (
        running_cluster(rng) as cluster,
        cluster.client("a") as one,
        cluster.client("b") as other,
    ):
        await write_file(one.vfs, "f", b"0")
        yield cluster, await open_file(one), await open_file(other)


class Waiter:
    """Something that may wait: `over` when it has ended, `done` when it was not cancelled."""

    def __init__(self, nursery: trio.Nursery, call: Callable[[], Awaitable[None]]) -> None:
        self.done, self.over = trio.Event(), trio.Event()
        self.error: DFSError | None = None
        self.scope = trio.CancelScope()
        self._call = call
        nursery.start_soon(self._run)

    async def _run(self) -> None:
        with self.scope:
            try:
                await self._call()
            except DFSError as problem:
                self.error = problem
            self.done.set()
        self.over.set()


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
        copies = []
        inner = gate.handle_async_request

        async def keep(request: object) -> object:
            if str(request.url).endswith("lock/set"):  # type: ignore[attr-defined]
                copies.append(request)
                await trio.sleep_forever()
            return await inner(request)  # type: ignore[arg-type]

        gate.handle_async_request = keep  # type: ignore[method-assign, assignment]
        with trio.move_on_after(1):
            await one.lock(WRITE)
        gate.handle_async_request = inner  # type: ignore[method-assign]
        await inner(copies[0])  # type: ignore[arg-type]
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


# metad restarts


async def test_locks_outlive_metad(
    autojump_clock: MockClock, rng: random.Random, expect_log: ExpectLog
) -> None:
    expect_log("metad at metad:1 does not answer")
    async with two_openers(rng) as (cluster, one, other), trio.open_nursery() as nursery:
        await one.lock(WRITE, 0, 9)
        await other.lock(READ, 10, 19)
        await one.flock(READ)
        waiter = Waiter(nursery, lambda: other.lock(WRITE, 5, 5))
        await trio.sleep(1)
        await cluster.kill_metad()
        await trio.sleep(2)
        await cluster.start_metad()
        with pytest.raises(WouldBlock):
            await other.flock(WRITE, wait=False)
        with pytest.raises(WouldBlock):
            await one.lock(WRITE, 19, 19, wait=False)
        assert not waiter.done.is_set()
        await one.lock(UNLOCK)
        with trio.fail_after(5):
            await waiter.done.wait()
        assert waiter.error is None
        with pytest.raises(WouldBlock):
            await one.lock(READ, 5, 5, wait=False)


async def test_a_grant_of_a_metad_that_died_is_not_believed(
    autojump_clock: MockClock, rng: random.Random
) -> None:
    """Its answer is late: the client has said to the next metad what it holds, without this."""
    async with running_cluster(rng) as cluster, gated(cluster) as (client, gate):
        await write_file(client.vfs, "f", b"0")
        one = await open_file(client)
        async with cluster.client("b") as other, trio.open_nursery() as nursery:
            second = await open_file(other)
            held = gate.reply("lock/set")
            waiter = Waiter(nursery, lambda: one.lock(WRITE))
            await held.arrived.wait()
            await cluster.kill_metad()
            await cluster.start_metad()
            await client.session.followed()
            await trio.sleep(1)
            await other.session.followed()
            await second.lock(WRITE, wait=False)
            held.release()
            await trio.sleep(4)
            assert not waiter.done.is_set()
            await second.lock(UNLOCK)
            await waiter.done.wait()


async def test_nothing_is_granted_while_a_client_may_hold_anything(
    autojump_clock: MockClock, rng: random.Random, expect_log: ExpectLog
) -> None:
    expect_log("the lease ended")
    expect_log("metad ended this client's session")
    async with two_openers(rng) as (cluster, one, other):
        await one.lock(WRITE)
        await cluster.kill_metad()
        began = trio.current_time()
        with cluster.cut_off(one.client):
            await cluster.start_metad()
            await other.lock(WRITE)
            assert 25 <= trio.current_time() - began <= 33
        await one.client.session.followed()
        await trio.sleep(10)


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


# A client that has lost its session


async def test_a_client_that_lost_its_locks_can_do_nothing_with_what_it_had_open(
    autojump_clock: MockClock, rng: random.Random, expect_log: ExpectLog
) -> None:
    expect_log("the lease ended")
    expect_log("metad ended this client's session")
    async with two_openers(rng) as (cluster, one, other), trio.open_nursery() as nursery:
        vfs = one.client.vfs
        second = await open_file(one.client, owner=2)
        await write_file(vfs, "g", b"free")
        elsewhere = await open_file(one.client, "g")
        await one.lock(WRITE)
        with cluster.cut_off(one.client):
            died = trio.current_time()
            await other.lock(WRITE)
            assert trio.current_time() - died <= 31
            await other.write(b"theirs")
            await other.client.vfs.fsync(other.handle)
            waiter = Waiter(nursery, lambda: one.write(b"mine?!"))  # until metad is heard again
            await trio.sleep(5)
        await one.client.session.followed()
        await waiter.done.wait()
        assert isinstance(waiter.error, InputOutput)
        for file in (one, second):
            with pytest.raises(InputOutput):
                await file.write(b"mine!!")
            with pytest.raises(InputOutput):
                await file.read()
            with pytest.raises(InputOutput):
                await vfs.fsync(file.handle)
            with pytest.raises(InputOutput):
                await file.lock(READ)
            with pytest.raises(InputOutput):
                await file.lock(UNLOCK)
            with pytest.raises(InputOutput):
                await file.flock(READ)
            with pytest.raises(InputOutput):
                await vfs.setattr(SetAttr(inode=file.inode, size=0), file.handle)
        assert await elsewhere.read() == b"free"
        fresh = await open_file(one.client)
        assert await fresh.read() == b"theirs"
        with pytest.raises(WouldBlock):
            await fresh.lock(WRITE, wait=False)
        for file in (one, second):
            with pytest.raises(InputOutput):
                await vfs.flush(file.handle, file.owner)
            await vfs.release(file.handle)
        await other.close()
        await fresh.lock(WRITE, wait=False)
        assert await read_file(other.client.vfs, "f") == b"theirs"


async def test_what_was_written_under_a_lost_lock_never_arrives(
    autojump_clock: MockClock, rng: random.Random, expect_log: ExpectLog
) -> None:
    """Writes before, while and after the session is lost; the file is small, so that no server has
    a say in it."""
    expect_log("the lease ended")
    expect_log("metad ended this client's session")
    expect_log("written bytes are lost")
    async with two_openers(rng) as (cluster, one, other):
        await one.lock(WRITE)
        refused = 0
        async with trio.open_nursery() as nursery:

            async def write_on() -> None:
                nonlocal refused
                for _ in range(600):
                    try:
                        await one.write(b"old holder")
                        if rng.random() < 0.3:
                            await one.client.vfs.fsync(one.handle)
                    except (InputOutput, Unavailable):
                        refused += 1
                    await trio.sleep(rng.uniform(0.01, 0.2))

            await one.write(b"old holder")  # buffered under its lease; what follows is refused
            with cluster.cut_off(one.client):
                nursery.start_soon(write_on)
                await other.lock(WRITE)
                for _ in range(20):
                    await other.write(b"new holder")
                    await other.client.vfs.fsync(other.handle)
                    await trio.sleep(rng.uniform(0, 0.2))
            for _ in range(100):
                assert await other.read() == b"new holder"
                await trio.sleep(rng.uniform(0, 0.5))
        assert refused
        async with cluster.client("c") as third:
            assert await read_file(third.vfs, "f") == b"new holder"


async def test_who_waits_when_the_session_is_lost_goes_on_waiting(
    autojump_clock: MockClock, rng: random.Random, expect_log: ExpectLog
) -> None:
    expect_log("the lease ended")
    expect_log("metad ended this client's session")
    async with two_openers(rng) as (cluster, one, other), trio.open_nursery() as nursery:
        await other.lock(WRITE)
        waiter = Waiter(nursery, lambda: one.lock(WRITE))
        await trio.sleep(1)
        with cluster.cut_off(one.client):
            await trio.sleep(60)
        await one.client.session.followed()
        await other.lock(UNLOCK)
        with trio.fail_after(10):
            await waiter.done.wait()
        assert waiter.error is None
        with pytest.raises(WouldBlock):
            await other.lock(READ, wait=False)
