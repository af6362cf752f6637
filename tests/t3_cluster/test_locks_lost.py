"""What a client is still able to do that has lost its session, and with it its locks."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
import trio
from trio.testing import MockClock

from dfswire.errors import InputOutput, Unavailable, WouldBlock
from dfswire.operations import SetAttr
from tests.t3_cluster.cluster import running_cluster
from tests.t3_cluster.files import read_file, write_file
from tests.t3_cluster.lockers import READ, UNLOCK, WRITE, Waiter, open_file, two_openers

ExpectLog = Callable[[str], None]


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
        await one.client.session.stream.opened()
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
        await one.client.session.stream.opened()
        await other.lock(UNLOCK)
        with trio.fail_after(10):
            await waiter.done.wait()
        assert waiter.error is None
        with pytest.raises(WouldBlock):
            await other.lock(READ, wait=False)


async def test_a_soft_mount_does_not_wait_for_ever_for_a_session_to_lock_under(
    autojump_clock: MockClock, rng: random.Random, expect_log: ExpectLog
) -> None:
    expect_log("metad ended this client's session")
    async with running_cluster(rng) as cluster, cluster.client(soft_s=3.0) as client:
        await write_file(client.vfs, "f", b"x")
        file = await open_file(client)
        with cluster.cut_off(client):
            client.session.lost(await client.session.current())
            with trio.fail_after(60), pytest.raises(Unavailable):
                await file.lock(WRITE)
