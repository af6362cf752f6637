"""Locks when metad restarts: kept, not granted twice, and late grants not believed."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
import trio
from trio.testing import MockClock

from dfswire.errors import WouldBlock
from tests.t3_cluster.cluster import running_cluster
from tests.t3_cluster.files import write_file
from tests.t3_cluster.gate import gated
from tests.t3_cluster.lockers import READ, UNLOCK, WRITE, Waiter, open_file, two_openers

ExpectLog = Callable[[str], None]


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
        await trio.sleep(4)  # two heartbeats of a chunkd, which is told of at the second
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
            await client.session.stream.opened()
            await trio.sleep(1)
            await other.session.stream.opened()
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
        await one.client.session.stream.opened()
        await trio.sleep(10)
