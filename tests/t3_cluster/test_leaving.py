"""Servers are drained and removed under load, with faults and restarts of metad in between.

The application sees no error, `status` never tells of fewer copies than before the drain, and a
removal that would lose something says what.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from dfswire.admin import AdminReply, RemoveTarget, Target
from dfswire.client import Client
from dfswire.errors import NoEntry, Removed, Unavailable, UsageError
from dfswire.hosts import DiskFigures, HostFigures, Register
from dfswire.jobs import JobsReply, JobsRequest, JobStatus, StartJob
from tests.fakes import Faults
from tests.t3_cluster.cluster import (
    CHUNK_SIZE_BYTES,
    METAD,
    Cluster,
    fully_replicated,
    running_cluster,
)
from tests.t3_cluster.files import read_file, write_file

ExpectLog = Callable[[str], None]


async def ask(cluster: Cluster, call: str, request: Any) -> Any:
    """An answer of metad, which may be away for a while."""
    with trio.fail_after(120):
        while True:
            try:
                return await Client(transport=cluster.network).call(call, METAD, request)
            except Unavailable:
                await trio.sleep(1)


async def job_ends(cluster: Cluster, number: int, within_s: float = 900) -> JobStatus:
    with trio.fail_after(within_s):
        while True:
            reply: JobsReply = await ask(cluster, "job.list", JobsRequest(job=number))
            if reply.jobs[0].state != "running":
                return reply.jobs[0]
            await trio.sleep(1)


class Load:
    """Writes and reads files until it is told to stop; what it wrote is in `files`."""

    def __init__(self, cluster: Cluster) -> None:
        self.files: dict[str, bytes] = {}
        self._cluster = cluster
        self._enough = False

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        rng = self._cluster.rng
        async with self._cluster.client("load") as client:
            number = 0
            while not self._enough:
                path, data = f"f{number}", rng.randbytes(rng.choice([300, 3 * CHUNK_SIZE_BYTES]))
                await write_file(client.vfs, path, data, sync=True)
                self.files[path] = data
                number += 1
                if number == 8:
                    task_status.started()
                path = rng.choice(list(self.files))
                assert await read_file(client.vfs, path) == self.files[path]
                await trio.sleep(1)

    async def end(self) -> None:
        self._enough = True
        await trio.sleep(5)


class Watch:
    """Looks at the status all the time: how many copies the worst chunk has."""

    def __init__(self, cluster: Cluster, least: int) -> None:
        self.seen = 0
        self._cluster = cluster
        self._least = least

    async def run(self) -> None:
        while True:
            try:
                status = await self._cluster.status()
            except Unavailable:
                await trio.sleep(1)
                continue
            if all(each.state == "up" for each in status.servers):
                assert sum(status.chunks.by_replicas[: self._least]) == 0, status.chunks
                self.seen += 1
            await trio.sleep(1)


async def check(cluster: Cluster, files: dict[str, bytes]) -> None:
    await cluster.until(fully_replicated, 300)
    async with cluster.client("checker") as client:
        for path, data in files.items():
            assert await read_file(client.vfs, path) == data, path
    assert (await cluster.fsck()).findings == []


async def removed(cluster: Cluster, server: str) -> AdminReply:
    """The answer; metad does not give one while servers with the other copies are suspect."""
    with trio.fail_after(60):
        while True:
            try:
                reply: AdminReply = await ask(cluster, "admin.remove", RemoveTarget(server=server))
                return reply
            except UsageError as problem:
                assert "suspect now" in str(problem)
                await trio.sleep(1)


@pytest.mark.parametrize("seed", range(4))
async def test_drained_and_removed_under_load(
    autojump_clock: MockClock, seed: int, tolerate_log: Callable[[str], None]
) -> None:
    """Odd seeds: metad is killed twice on the way, and messages of the client are lost."""
    tolerate_log("does not answer")
    rng = random.Random(seed)
    async with running_cluster(rng, servers=4) as cluster:
        async with trio.open_nursery() as nursery:
            load = Load(cluster)
            await nursery.start(load.run)
            watch = Watch(cluster, 2)
            nursery.start_soon(watch.run)
            if seed % 2:
                cluster.set_faults(Faults(lost_request=0.02, lost_reply=0.02))
            drain: AdminReply = await ask(cluster, "admin.drain", Target(server="server0"))
            again: AdminReply = await ask(cluster, "admin.drain", Target(server="server0"))
            assert drain.job is not None and again.job is not None
            assert drain.job.job == again.job.job
            with pytest.raises(UsageError, match="drain it first"):
                await ask(cluster, "admin.remove", RemoveTarget(server="server0"))
            if seed % 2:
                for _ in range(2):
                    await trio.sleep(rng.uniform(0, 5))
                    await cluster.kill_metad()
                    await trio.sleep(rng.uniform(0, 5))
                    await cluster.start_metad()
            ended = await job_ends(cluster, drain.job.job)
            assert (ended.state, ended.message) == ("done", "everything is elsewhere")
            assert watch.seen
            # It writes on with grants that it got before.
            reply = await removed(cluster, "server0")
            await cluster.kill_chunkd(0)
            assert (reply.admin, reply.losses.chunks) == ("removed", 0)
            assert reply.job is not None
            assert (await job_ends(cluster, reply.job.job)).state == "done"
            await load.end()
            cluster.set_faults(Faults())
            nursery.cancel_scope.cancel()
        await check(cluster, load.files)
        with pytest.raises(Removed, match="was removed"):
            await register(cluster, 0)


async def register(cluster: Cluster, number: int) -> None:
    """As a chunkd does that is started again."""
    figures = DiskFigures(
        disk=f"disk{number}", path="/", total_bytes=1, free_bytes=1, chunks=0, used_bytes=0
    )
    message = Register(
        server_id=f"server{number}",
        incarnation=99,
        address=cluster.address(number),
        software="test",
        host=HostFigures(),
        disks=[figures],
    )
    await Client(transport=cluster.network).call("server.register", METAD, message)


async def test_a_drain_is_called_off_and_taken_up_again(
    autojump_clock: MockClock, rng: random.Random
) -> None:
    files = {f"f{number}": rng.randbytes(4 * CHUNK_SIZE_BYTES) for number in range(10)}
    async with running_cluster(rng, servers=3) as cluster:
        async with cluster.client() as client:
            for path, data in files.items():
                await write_file(client.vfs, path, data, sync=True)
        drain: AdminReply = await ask(cluster, "admin.drain", Target(disk="disk1"))
        assert drain.admin == "draining" and drain.job is not None
        enabled: AdminReply = await ask(cluster, "admin.enable", Target(disk="disk1"))
        assert enabled.admin == "enabled"
        assert (await job_ends(cluster, drain.job.job)).message == "called off"
        await check(cluster, files)
        again: AdminReply = await ask(cluster, "admin.drain", Target(disk="disk1"))
        assert again.job is not None and again.job.job != drain.job.job
        assert (await job_ends(cluster, again.job.job)).message == "everything is elsewhere"
        assert (await ask(cluster, "admin.drain", Target(disk="disk1"))).admin == "drained"
        await check(cluster, files)
        with trio.fail_after(600):  # what is too many now goes
            while (await disks(cluster))["disk1"]:  # noqa: ASYNC110 - time is virtual
                await trio.sleep(5)
        await check(cluster, files)


async def test_right_after_its_start_metad_does_not_speak_of_losses(
    autojump_clock: MockClock, rng: random.Random, tolerate_log: ExpectLog
) -> None:
    """It has not heard of those yet who have the other copies."""
    tolerate_log("does not answer")
    async with running_cluster(rng, servers=3) as cluster:
        async with cluster.client() as client:
            await write_file(client.vfs, "f", rng.randbytes(5 * CHUNK_SIZE_BYTES), sync=True)
        drain: AdminReply = await ask(cluster, "admin.drain", Target(server="server0"))
        assert drain.job is not None
        assert (await job_ends(cluster, drain.job.job)).state == "done"
        await cluster.kill_metad()
        await cluster.start_metad()
        with pytest.raises(
            UsageError, match=r"suspect now \(server0, server1, server2\); ask again"
        ):
            await ask(cluster, "admin.remove", RemoveTarget(server="server0"))
        await cluster.until(lambda s: all(each.state == "up" for each in s.servers), 30)
        reply: AdminReply = await ask(cluster, "admin.remove", RemoveTarget(server="server0"))
        assert (reply.admin, reply.losses.chunks) == ("removed", 0)


async def disks(cluster: Cluster) -> dict[str, int]:
    """How many chunks each disk has, as it says."""
    status = await cluster.status()
    return {disk.disk: disk.chunks for server in status.servers for disk in server.disks}


async def test_too_few_servers_are_left(autojump_clock: MockClock, rng: random.Random) -> None:
    async with running_cluster(rng, servers=2) as cluster:
        async with cluster.client() as client:
            await write_file(client.vfs, "f", rng.randbytes(3 * CHUNK_SIZE_BYTES), sync=True)
        drain: AdminReply = await ask(cluster, "admin.drain", Target(server="server1"))
        assert drain.job is not None
        await trio.sleep(300)
        reply: JobsReply = await ask(cluster, "job.list", JobsRequest(job=drain.job.job))
        (job,) = reply.jobs
        assert (job.state, job.done, job.total) == ("running", 0, 3)
        assert "3 chunks" in job.message and "not on enough other servers" in job.message
        assert "needs 2 other servers that are up, there is 1" in job.message
        status = await cluster.status()
        assert status.chunks.by_replicas == [0, 0, 3]
        (stuck,) = status.stuck
        assert stuck == "server server1: needs 2 other servers that are up, there is 1"
        await ask(cluster, "admin.enable", Target(server="server1"))
        await trio.sleep(3)
        assert not (await cluster.status()).stuck


async def test_a_removal_that_loses_something_says_what(
    autojump_clock: MockClock, rng: random.Random, expect_log: ExpectLog
) -> None:
    async with running_cluster(rng, servers=3, replicas=1) as cluster:
        async with cluster.client() as client:
            for number in range(6):
                data = rng.randbytes(2 * CHUNK_SIZE_BYTES)
                await write_file(client.vfs, f"f{number}", data, sync=True)
        await cluster.kill_chunkd(0)
        with pytest.raises(UsageError, match="in use"):
            await ask(cluster, "admin.remove", RemoveTarget(server="server0"))
        await cluster.until(lambda s: s.chunks.lost > 0, 60)
        lost = (await cluster.status()).chunks.lost
        refused: AdminReply = await ask(cluster, "admin.remove", RemoveTarget(server="server0"))
        assert (refused.admin, refused.job) == ("enabled", None)
        losses = refused.losses
        assert losses.chunks == lost == sum(each.chunks for each in losses.described)
        assert len(losses.described) == losses.files
        assert {each.path for each in losses.described} <= {b"/f%d" % n for n in range(6)}
        accept = RemoveTarget(server="server0", accept_loss=True)
        removed: AdminReply = await ask(cluster, "admin.remove", accept)
        assert removed.admin == "removed" and removed.job is not None
        assert removed.losses == losses
        assert (await job_ends(cluster, removed.job.job)).state == "done"
        assert (await cluster.status()).chunks.lost == lost
        # A change of mind: it still has everything.
        await ask(cluster, "admin.enable", Target(server="server0"))
        await cluster.start_chunkd(0)
        await cluster.until(lambda s: s.chunks.lost == 0, 1200)
        assert (await cluster.fsck()).findings == []


async def test_nonsense_is_refused(autojump_clock: MockClock, rng: random.Random) -> None:
    async with running_cluster(rng) as cluster:
        for target in (Target(), Target(server="server0", disk="disk0"), Target(server="server")):
            with pytest.raises(UsageError):
                await ask(cluster, "admin.drain", target)
        for target in (Target(server="x"), Target(disk="x")):
            with pytest.raises(NoEntry):
                await ask(cluster, "admin.enable", target)
        for kind, argument in (
            ("drain", '{"disk": "disk0", "x": 1}'),
            ("drain", '{"disk": "disk0", "accept_loss": true}'),
            ("drain", '{"disk": 7}'),
            ("remove", '{"disk": "disk0"}'),
            ("remove", '{"disk": "disk0", "accept_loss": 1}'),
        ):
            with pytest.raises(UsageError):
                await ask(cluster, "job.start", StartJob(kind=kind, argument=argument))
        by_address = Target(server=cluster.address(2))
        assert (await ask(cluster, "admin.drain", by_address)).server == "server2"
