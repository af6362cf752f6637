"""Rebalancing in a whole cluster: even in the end, never fewer copies, restarts survived."""

from __future__ import annotations

import random

import pytest
import trio
from trio.testing import MockClock

from dfswire.info import InfoReply, InfoRequest
from dfswire.jobs import JobStatus, StartJob
from dfswire.messages import ROOT_INODE
from dfswire.moving import RebalancePlan, RebalanceRequest
from dfswire.policies import PolicyTerms, SetPolicy
from dfswire.status import ClusterStatus
from metad.config import MetadConfig
from metad.jobs.rebalance import Move
from metad.operators import moves
from tests.t3_cluster.cluster import CHUNK_SIZE_BYTES, Cluster, fully_replicated, running_cluster
from tests.t3_cluster.files import write_file
from tests.t3_cluster.test_leaving import Watch, ask, check, job_ends


def fractions(status: ClusterStatus) -> list[float]:
    disks = [disk for server in status.servers for disk in server.disks]
    return [1 - disk.free_bytes / disk.total_bytes for disk in disks]


def is_even(status: ClusterStatus) -> bool:
    used = fractions(status)
    return max(used) - min(used) < 0.11


async def fill_three_of_four(
    cluster: Cluster, files: dict[str, bytes], *, size_bytes: int = 160 * CHUNK_SIZE_BYTES
) -> None:
    """The fourth server comes when the others, of this size, are about half full."""
    for store in cluster.stores:
        store.capacity_bytes = size_bytes
    await cluster.kill_chunkd(3)
    await cluster.until(lambda s: {"down"} <= {each.state for each in s.servers}, 60)
    async with cluster.client() as client:
        for path, data in files.items():
            await write_file(client.vfs, path, data, sync=True)
    await cluster.start_chunkd(3)
    await cluster.until(lambda s: {each.state for each in s.servers} == {"up"}, 60)
    await cluster.until(fully_replicated, 600)
    await trio.sleep(3)  # heartbeats with the new figures


@pytest.mark.parametrize("restarts", [0, 2])
async def test_a_new_server_gets_its_share(
    autojump_clock: MockClock, rng: random.Random, restarts: int
) -> None:
    files = {f"f{number}": rng.randbytes(4 * CHUNK_SIZE_BYTES) for number in range(30)}
    async with running_cluster(rng, servers=4) as cluster:
        await fill_three_of_four(cluster, files)
        before = fractions(await cluster.status())
        assert max(before) - min(before) > 0.3
        plan: RebalancePlan = await ask(cluster, "cluster.rebalance_plan", RebalanceRequest())
        assert plan.moves and max(abs(each.after - each.before) for each in plan.disks) > 0.2
        assert fractions(await cluster.status()) == before
        async with trio.open_nursery() as nursery:
            nursery.start_soon(Watch(cluster, 2).run)
            job: JobStatus = await ask(
                cluster, "job.start", StartJob(kind="rebalance", name="mine")
            )
            for _ in range(restarts):
                await trio.sleep(rng.uniform(0, 20))
                await cluster.kill_metad()
                await cluster.start_metad()
            assert (await job_ends(cluster, job.job, 3600)).state == "done"
            nursery.cancel_scope.cancel()
        await cluster.until(is_even, 600)
        await check(cluster, files)
        again: RebalancePlan = await ask(cluster, "cluster.rebalance_plan", RebalanceRequest())
        assert again.moves == 0


async def test_what_is_under_way_is_not_planned_again_and_keeps_nobody(
    autojump_clock: MockClock, rng: random.Random, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(moves, "MOVES_MAX", 8)
    files = {f"f{number}": rng.randbytes(4 * CHUNK_SIZE_BYTES) for number in range(30)}
    async with running_cluster(rng, servers=4) as cluster:
        await fill_three_of_four(cluster, files)
        plan: RebalancePlan = await ask(cluster, "cluster.rebalance_plan", RebalanceRequest())
        began_s = trio.current_time()
        begun: JobStatus = await ask(cluster, "job.start", StartJob(kind="rebalance"))
        job = await job_ends(cluster, begun.job, 3600)
        took_s = trio.current_time() - began_s
        assert job.done < 1.1 * plan.bytes, "copies went back and forth"
        batches = plan.moves // moves.MOVES_MAX
        settled_s = MetadConfig(url="").trim_after_s  # the new server is relied on from then on
        assert batches >= 5
        assert took_s < settled_s + 10 * batches, "a move takes some heartbeats"


async def test_small_chunks_move_many_at_once(
    autojump_clock: MockClock, rng: random.Random, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each takes some heartbeats; no disk has more to do than its transfers."""
    files = {f"f{number}": rng.randbytes(CHUNK_SIZE_BYTES // 16) for number in range(800)}
    settings = {"transfers_per_disk": 8, "trim_after_s": 1.0, "inline_max_bytes": 0}
    most, elsewhere = watch_transfers(monkeypatch)
    async with running_cluster(rng, servers=4, metad_settings=settings) as cluster:
        await fill_three_of_four(cluster, files, size_bytes=70 * CHUNK_SIZE_BYTES)
        plan: RebalancePlan = await ask(cluster, "cluster.rebalance_plan", RebalanceRequest())
        assert plan.moves > 200
        began_s = trio.current_time()
        begun: JobStatus = await ask(cluster, "job.start", StartJob(kind="rebalance"))
        assert (await job_ends(cluster, begun.job, 3600)).state == "done"
        took_s = trio.current_time() - began_s
        assert took_s < 20, f"{plan.moves} moves"
        assert 4 < max(most) <= 8 and not elsewhere


def watch_transfers(monkeypatch: pytest.MonkeyPatch) -> tuple[list[float], list[Move]]:
    """What the busiest disk has to do after each move that is begun; and moves whose copy is not
    ordered from the disk that is to give it up, though it is counted there."""
    most: list[float] = []
    elsewhere: list[Move] = []
    begin = moves.Moves.begin

    def watched(self: moves.Moves, move: Move, *, to_label: bool = False) -> int:
        ordered = begin(self, move, to_label=to_label)
        transfers = self.transfers()
        most.append(max(transfers.of(disk) for disk in move.disks))
        for order in self._state.servers.orders.copies():
            if order.chunk == move.chunk and order.sources[0].disk != move.source:
                elsewhere.append(move)
        return ordered

    monkeypatch.setattr(moves.Moves, "begin", watched)
    return most, elsewhere


async def test_moves_that_have_become_needless_end(
    autojump_clock: MockClock, rng: random.Random
) -> None:
    """Files are deleted, and a server is lost, while copies wait for the old ones to go."""
    files = {f"f{number}": rng.randbytes(4 * CHUNK_SIZE_BYTES) for number in range(30)}
    settings = {"reclaim_grace_s": 100_000.0}
    async with running_cluster(rng, servers=4, metad_settings=settings) as cluster:
        await fill_three_of_four(cluster, files)
        begun: JobStatus = await ask(cluster, "job.start", StartJob(kind="rebalance"))
        await trio.sleep(20)  # the new server is not relied on yet: nothing goes
        async with cluster.client() as client:
            for name in [name for name in files if rng.random() < 0.5]:
                await client.vfs.unlink(ROOT_INODE, name.encode())
                del files[name]
        await cluster.kill_chunkd(0)
        await cluster.until(lambda s: {"down"} <= {each.state for each in s.servers}, 60)
        await cluster.until(fully_replicated, 600)
        assert (await job_ends(cluster, begun.job, 3600)).state == "done"
        await cluster.start_chunkd(0)
        await check(cluster, files)


async def test_it_happens_by_itself(autojump_clock: MockClock, rng: random.Random) -> None:
    files = {f"f{number}": rng.randbytes(4 * CHUNK_SIZE_BYTES) for number in range(30)}
    async with running_cluster(rng, servers=4) as cluster:
        await fill_three_of_four(cluster, files)
        await cluster.until(is_even, 3600)
        await check(cluster, files)


async def test_copies_go_where_the_label_wants_them(
    autojump_clock: MockClock, rng: random.Random
) -> None:
    async with running_cluster(rng, servers=4) as cluster:
        for number in (2, 3):
            cluster.labels[number] = ["ssd"]
            await cluster.kill_chunkd(number)
            await cluster.start_chunkd(number)
        await trio.sleep(3)
        data = rng.randbytes(10 * CHUNK_SIZE_BYTES)
        async with cluster.client() as client:
            await write_file(client.vfs, "f", data, sync=True)
        terms = PolicyTerms(replicas=2, label="ssd")
        assert (await ask(cluster, "policy.set", SetPolicy(path=b"/", terms=terms))).applied
        wanted = {"disk2", "disk3"}
        with trio.fail_after(900):
            while await places(cluster, b"/f") != [wanted] * 10:  # noqa: ASYNC110 - virtual time
                await trio.sleep(5)
        await check(cluster, {"f": data})


async def places(cluster: Cluster, path: bytes) -> list[set[str]]:
    """The disks with good copies of each chunk of a file."""
    reply: InfoReply = await ask(cluster, "cluster.info", InfoRequest(path=path))
    return [
        {each.disk for each in chunk.replicas if each.state == "good"} for chunk in reply.chunks
    ]


async def test_copies_in_one_rack_are_visible_and_moved_apart(
    autojump_clock: MockClock, rng: random.Random
) -> None:
    data = rng.randbytes(12 * CHUNK_SIZE_BYTES)
    async with running_cluster(rng, servers=3, racks=["a", "a", ""]) as cluster:
        await cluster.kill_chunkd(2)
        await trio.sleep(15)
        async with cluster.client() as client:
            await write_file(client.vfs, "f", data, sync=True)
        terms = PolicyTerms(replicas=2, domain="rack")
        request = SetPolicy(path=b"/", terms=terms, force=True)
        assert (await ask(cluster, "policy.set", request)).applied
        await trio.sleep(60)
        assert (await cluster.status()).chunks.misplaced == 0, "there is no other rack"
        await cluster.start_chunkd(2)
        await cluster.until(lambda status: status.chunks.misplaced > 0, 60)
        status = await cluster.status()
        assert status.chunks.misplaced == 12 and status.chunks.under_replicated == 0
        await cluster.until(lambda status: status.chunks.misplaced == 0, 900)
        assert all("disk2" in each for each in await places(cluster, b"/f"))
        await cluster.until(lambda status: status.chunks.by_replicas == [0, 0, 12], 300)
        assert all("disk2" in each for each in await places(cluster, b"/f"))
        await check(cluster, {"f": data})


async def test_moves_keep_to_the_rates_of_repair(
    autojump_clock: MockClock, rng: random.Random
) -> None:
    data = rng.randbytes(40 * CHUNK_SIZE_BYTES)
    per_s = 2 * CHUNK_SIZE_BYTES
    settings = {"repair_bytes_per_s": per_s}
    async with running_cluster(rng, servers=4, metad_settings=settings) as cluster:
        for number in (2, 3):
            cluster.labels[number] = ["ssd"]
            await cluster.kill_chunkd(number)
        await trio.sleep(15)
        async with cluster.client() as client:
            await write_file(client.vfs, "f", data, sync=True)
        for number in (2, 3):
            await cluster.start_chunkd(number)
        await trio.sleep(3)
        began = trio.current_time()
        terms = PolicyTerms(replicas=2, label="ssd")
        assert (await ask(cluster, "policy.set", SetPolicy(path=b"/", terms=terms))).applied
        told = set()
        with trio.fail_after(900):
            while await places(cluster, b"/f") != [{"disk2", "disk3"}] * 40:
                told |= {job.message for job in (await cluster.status()).jobs}
                await trio.sleep(1)
        assert trio.current_time() - began > 2 * len(data) / per_s - 5
        assert any("at 0.131072 MB/s in all" in each for each in told)
