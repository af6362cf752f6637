"""The pool of grants: few questions, none expired, none on servers that just failed."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from dfsmount.remote.grants import BATCH, GrantPool
from dfsmount.remote.serverhealth import ServerHealth
from dfswire.errors import NoSpace, Unavailable
from dfswire.messages import ChunkGrant
from tests.t2_dfsmount.fakes_data import FakeCluster


async def test_a_batch_lasts_and_is_renewed_in_time(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    cluster = FakeCluster()
    pool = GrantPool(cluster, ServerHealth(), nursery)
    taken = {(await pool.take()).chunk for _ in range(12)}
    assert len(taken) == 12 and cluster.calls["grant"] == 1
    for _ in range(3):
        taken.add((await pool.take()).chunk)
    await trio.sleep(1)
    assert cluster.calls["grant"] == 2
    started = trio.current_time()
    for _ in range(BATCH):
        taken.add((await pool.take()).chunk)
    assert len(taken) == 15 + BATCH and trio.current_time() == started, "nobody had to wait"


async def test_many_at_once_ask_once(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    cluster = FakeCluster()
    pool = GrantPool(cluster, ServerHealth(), nursery)
    async with trio.open_nursery() as takers:
        for _ in range(10):
            takers.start_soon(pool.take)
    assert cluster.calls["grant"] == 1


async def test_expired_grants_are_dropped(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    cluster = FakeCluster()
    pool = GrantPool(cluster, ServerHealth(), nursery)
    await pool.take()
    await trio.sleep(535)
    await pool.take()
    assert cluster.calls["grant"] == 1
    await trio.sleep(6)  # 541 of 600 s: too little is left for an upload and its commit
    await pool.take()
    assert cluster.calls["grant"] == 2


async def test_failed_servers_are_avoided_for_a_while(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    cluster = FakeCluster()
    health = ServerHealth()
    pool = GrantPool(cluster, health, nursery)
    await pool.take()
    health.failed("h1:9500")
    for _ in range(10):
        grant = await pool.take()
        assert all(target.address != "h1:9500" for target in grant.targets)
    assert cluster.avoided[-1] == ["h1:9500"]
    await trio.sleep(11)
    pool.clear()
    await pool.take()
    assert cluster.avoided[-1] == []


async def test_avoiding_is_a_wish(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    cluster = FakeCluster(count=2)
    health = ServerHealth()
    health.failed("h1:9500")
    pool = GrantPool(cluster, health, nursery)
    assert len((await pool.take()).targets) == 2
    assert cluster.avoided == [["h1:9500"], []]


async def test_no_space(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    cluster = FakeCluster(count=1, replicas=2)
    with pytest.raises(NoSpace):
        await GrantPool(cluster, ServerHealth(), nursery).take()


async def test_a_refill_that_fails_disturbs_nobody(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    cluster = FakeCluster()
    pool = GrantPool(cluster, ServerHealth(), nursery)
    for _ in range(BATCH - 3):
        await pool.take()
    cluster.grant_problem = Unavailable("metad is away")
    for _ in range(3):
        await pool.take()
        await trio.sleep(1)
    with pytest.raises(Unavailable):
        await pool.take()


async def test_grants_of_an_old_session_are_not_kept(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    cluster = FakeCluster()
    pool = GrantPool(cluster, ServerHealth(), nursery)

    async def take() -> ChunkGrant | None:
        with pytest.raises(Unavailable):
            await pool.take()
        return None

    async with trio.open_nursery() as takers:
        takers.start_soon(take)
        await trio.sleep(0.0005)
        pool.clear()
    await pool.take()
    assert cluster.calls["grant"] == 2
