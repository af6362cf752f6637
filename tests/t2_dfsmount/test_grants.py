"""The pool of grants: few questions, none expired, none on servers that just failed."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from dfsmount.remote.grants import BATCH, GrantPool
from dfsmount.remote.serverhealth import ServerHealth
from dfswire.errors import NoSpace, Unavailable
from dfswire.messages import ChunkGrant
from tests.t2_dfsmount.fakes_data import INODE, FakeCluster


async def test_a_batch_lasts_and_is_renewed_in_time(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    cluster = FakeCluster()
    pool = GrantPool(cluster, ServerHealth(), nursery, cluster.followed)
    taken = {(await pool.take(INODE)).chunk for _ in range(12)}
    assert len(taken) == 12 and cluster.calls["grant"] == 1
    for _ in range(3):
        taken.add((await pool.take(INODE)).chunk)
    await trio.sleep(1)
    assert cluster.calls["grant"] == 2
    started = trio.current_time()
    for _ in range(BATCH):
        taken.add((await pool.take(INODE)).chunk)
    assert len(taken) == 15 + BATCH and trio.current_time() == started, "nobody had to wait"


async def test_many_at_once_ask_once(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    cluster = FakeCluster()
    pool = GrantPool(cluster, ServerHealth(), nursery, cluster.followed)
    async with trio.open_nursery() as takers:
        for _ in range(10):
            takers.start_soon(pool.take, INODE)
    assert cluster.calls["grant"] == 1


async def test_expired_grants_are_dropped(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    cluster = FakeCluster()
    pool = GrantPool(cluster, ServerHealth(), nursery, cluster.followed)
    await pool.take(INODE)
    await trio.sleep(535)
    await pool.take(INODE)
    assert cluster.calls["grant"] == 1
    await trio.sleep(6)  # 541 of 600 s: too little is left for an upload and its commit
    await pool.take(INODE)
    assert cluster.calls["grant"] == 2


async def test_failed_servers_are_avoided_for_a_while(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    cluster = FakeCluster()
    health = ServerHealth()
    pool = GrantPool(cluster, health, nursery, cluster.followed)
    await pool.take(INODE)
    health.failed("h1:9500")
    for _ in range(10):
        grant = await pool.take(INODE)
        assert all(target.address != "h1:9500" for target in grant.targets)
    assert cluster.avoided[-1] == ["h1:9500"]
    await trio.sleep(11)
    pool.clear()
    await pool.take(INODE)
    assert cluster.avoided[-1] == []


async def test_avoiding_is_a_wish(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    cluster = FakeCluster(count=2)
    health = ServerHealth()
    health.failed("h1:9500")
    pool = GrantPool(cluster, health, nursery, cluster.followed)
    assert len((await pool.take(INODE)).targets) == 2
    assert cluster.avoided == [["h1:9500"], []]


async def test_no_space(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    cluster = FakeCluster(count=1, replicas=2)
    with pytest.raises(NoSpace):
        await GrantPool(cluster, ServerHealth(), nursery, cluster.followed).take(INODE)


async def test_a_refill_that_fails_disturbs_nobody(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    cluster = FakeCluster()
    pool = GrantPool(cluster, ServerHealth(), nursery, cluster.followed)
    for _ in range(BATCH - 3):
        await pool.take(INODE)
    cluster.grant_problem = Unavailable("metad is away")
    for _ in range(3):
        await pool.take(INODE)
        await trio.sleep(1)
    with pytest.raises(Unavailable):
        await pool.take(INODE)


async def test_grants_of_an_old_session_are_not_kept(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    cluster = FakeCluster()
    pool = GrantPool(cluster, ServerHealth(), nursery, cluster.followed)

    async def take() -> ChunkGrant | None:
        with pytest.raises(Unavailable):
            await pool.take(INODE)
        return None

    async with trio.open_nursery() as takers:
        takers.start_soon(take)
        await trio.sleep(0.0005)
        pool.clear()
    await pool.take(INODE)
    assert cluster.calls["grant"] == 2


async def test_each_policy_has_its_own_grants(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    cluster = FakeCluster()
    cluster.policies = {5: 1, 6: 1, 7: 2}
    pool = GrantPool(cluster, ServerHealth(), nursery, cluster.followed)
    await pool.take(5)
    cluster.followed.learn(6, 1, cluster.followed.edition)  # as the answer to its Create says
    await pool.take(6)
    assert cluster.asked_for == [5], "files of one policy share what was granted"
    await pool.take(7)
    assert cluster.asked_for == [5, 7]
    await pool.take(7)
    await pool.take(5)
    assert cluster.asked_for == [5, 7]


async def test_where_no_directory_has_a_policy_nobody_asks_for_each_file(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    cluster = FakeCluster()
    pool = GrantPool(cluster, ServerHealth(), nursery, cluster.followed)
    for inode in range(10):
        await pool.take(inode)
    assert cluster.asked_for == [0]
    cluster.policies = {3: 1}
    cluster.followed.forget()  # metad says so
    await pool.take(3)
    assert cluster.asked_for == [0, 3]


async def test_an_answer_that_is_older_than_a_change_is_not_remembered(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    cluster = FakeCluster()
    pool = GrantPool(cluster, ServerHealth(), nursery, cluster.followed)
    async with trio.open_nursery() as takers:
        takers.start_soon(pool.take, 3)
        await trio.sleep(0.0005)
        cluster.followed.forget()
    assert cluster.followed.of(3) is None
    await pool.take(3)
    assert cluster.asked_for == [3, 3]


async def test_a_new_file_is_prepared_for(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    cluster = FakeCluster()
    cluster.policies, cluster.policy_chunk_size_bytes = {5: 1}, 1 << 16
    pool = GrantPool(cluster, ServerHealth(), nursery, cluster.followed)
    cluster.followed.learn(5, 1, cluster.followed.edition)
    for _ in range(2):
        pool.prepare(5)
        await trio.sleep(1)
    assert cluster.asked_for == [5]
    assert cluster.followed.chunk_size_bytes(5) == 1 << 16
    assert cluster.followed.chunk_size_bytes(6) == 0, "it is not known what that follows"
