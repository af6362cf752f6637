"""`dfs repair PATH` and `dfs fsck --repair` against a whole cluster in one process."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
import trio
from trio.testing import MockClock

from chunkd.chunkfile import tail_bytes
from dfsmount.cli.repair import Repairing
from dfswire.chunks import block_checksums
from dfswire.client import Client
from dfswire.errors import UsageError
from dfswire.fsck import FsckReport, FsckRequest
from dfswire.jobs import JobsRequest, StartJob
from dfswire.messages import BLOCK_SIZE_BYTES as BLOCK
from dfswire.messages import ROOT_INODE
from tests.t3_cluster.cluster import METAD, Cluster, fully_replicated, running_cluster
from tests.t3_cluster.files import read_file, write_file

ExpectLog = Callable[[str], None]


async def repair(cluster: Cluster, path: bytes) -> dict[str, str]:
    """Name -> what became of the file."""
    client = Client(transport=cluster.network)
    results = await Repairing(client, METAD, quiet=True).run(0, path)
    return {result.name: result.state for result in results}


async def test_a_tree_is_repaired(
    autojump_clock: MockClock, rng: random.Random, expect_log: ExpectLog
) -> None:
    expect_log("is bad")
    files = {f"d/f{number}": rng.randbytes(3 * BLOCK) for number in range(4)}
    async with running_cluster(rng) as cluster, cluster.client() as client:
        await client.vfs.mkdir(ROOT_INODE, b"d", 0o755, 0, 0)
        for path, data in files.items():
            await write_file(client.vfs, path, data, sync=True)
        await write_file(client.vfs, "small", b"inline")
        assert set((await repair(cluster, b"/")).values()) == {"whole"}
        store = cluster.stores[0]
        rotten = sorted(store.files)[:3]
        for chunk in rotten:
            store.corrupt(chunk, 5)
        states = await repair(cluster, b"/d")
        assert set(states) == {f"/{path}" for path in files}
        assert "repaired" in states.values() and set(states.values()) <= {"whole", "repaired"}
        assert fully_replicated(await cluster.status())
        async with cluster.client("checker") as checker:
            for path, data in files.items():
                assert await read_file(checker.vfs, path) == data


async def test_a_copy_that_is_gone_is_made_again(
    autojump_clock: MockClock, rng: random.Random
) -> None:
    async with running_cluster(rng) as cluster, cluster.client() as client:
        await write_file(client.vfs, "f", rng.randbytes(2 * BLOCK), sync=True)
        store = next(store for store in cluster.stores if store.files)
        store.drop(next(iter(store.files)))
        assert await repair(cluster, b"/f") == {"/f": "repaired"}
        assert fully_replicated(await cluster.status())


async def test_what_is_lost_is_told(
    autojump_clock: MockClock, rng: random.Random, expect_log: ExpectLog
) -> None:
    expect_log("is bad")
    expect_log("has no good replica left")
    async with running_cluster(rng) as cluster, cluster.client() as client:
        await write_file(client.vfs, "f", rng.randbytes(3 * BLOCK), sync=True)
        chunk = next(chunk for store in cluster.stores for chunk in store.files)
        for store in cluster.stores:
            if chunk in store.files:
                store.corrupt(chunk, 5)
        repairing = Repairing(Client(transport=cluster.network), METAD, quiet=True)
        (result,) = await repairing.run(0, b"/f")
        assert (result.state, result.bad) == ("damaged", 2)
        (lost,) = result.lost
        assert (lost.length, lost.sure) == (BLOCK, True)


async def test_a_server_that_is_away_is_said(autojump_clock: MockClock, rng: random.Random) -> None:
    async with running_cluster(rng) as cluster, cluster.client() as client:
        await write_file(client.vfs, "f", rng.randbytes(BLOCK), sync=True)
        number = next(number for number, store in enumerate(cluster.stores) if store.files)
        await cluster.kill_chunkd(number)
        assert await repair(cluster, b"/f") == {"/f": "not all checked"}


async def test_fsck_plans_and_repairs(
    autojump_clock: MockClock, rng: random.Random, expect_log: ExpectLog
) -> None:
    expect_log("fsck repaired nlink")
    async with running_cluster(rng) as cluster, cluster.client() as client:
        inode = await write_file(client.vfs, "f", b"data", sync=True)
        assert (await client.vfs.getattr(inode)).nlink == 1
        database = cluster.database
        await database.write(lambda: database.change("UPDATE inode SET nlink = 7 WHERE nlink = 1"))

        async def fsck(request: FsckRequest) -> FsckReport:
            reply: FsckReport = await Client(transport=cluster.network).call(
                "cluster.fsck", METAD, request
            )
            return reply

        planned = await fsck(FsckRequest(repair="plan"))
        assert (planned.count, planned.fixes_count, planned.repaired) == (1, 1, False)
        assert (await fsck(FsckRequest())).count == 1
        done = await fsck(FsckRequest(repair="do"))
        assert (done.count, done.fixes, done.repaired) == (0, planned.fixes, True)
        assert (await fsck(FsckRequest(repair="do"))).fixes == []
        assert (await client.vfs.getattr(inode)).nlink == 1


async def test_every_copy_is_verified(
    autojump_clock: MockClock, rng: random.Random, expect_log: ExpectLog
) -> None:
    """`dfs fsck --deep`: rot, a file of another content, one that is gone, one nobody knows."""
    expect_log("is bad")
    expect_log("is unknown to metad")
    data = {f"f{number}": rng.randbytes(2 * BLOCK) for number in range(40)}
    async with running_cluster(rng) as cluster, cluster.client() as client:
        for path, content in data.items():
            await write_file(client.vfs, path, content, sync=True)
        await cluster.until(fully_replicated, 60)
        store = cluster.stores[0]
        rotten, forged, gone = sorted(store.files)[:3]
        store.corrupt(rotten, 5)
        store.drop(gone)
        length = len(store.files[forged].content) - tail_bytes(BLOCK)
        store.drop(forged)
        other = rng.randbytes(length)
        store.write(forged, other, block_checksums(forged, other), True)
        stray = bytes(range(16))
        store.write(stray, b"stray", block_checksums(stray, b"stray"), True)
        store.files[stray].modified -= 10_000
        caller = Client(transport=cluster.network)
        begun = await caller.call("job.start", METAD, StartJob(kind="verify"))
        with trio.fail_after(120):
            while begun.state == "running":
                await trio.sleep(1)
                reply = await caller.call("job.list", METAD, JobsRequest(job=begun.job))
                (begun,) = reply.jobs
        assert begun.state == "done"
        assert "bad or missing: 3" in begun.message
        assert begun.figures["bad"] == 3
        assert f"copies verified: {begun.figures['copies']}," in begun.message
        await cluster.until(fully_replicated, 60)
        assert forged in store.quarantined and stray in store.aside
        async with cluster.client("checker") as checker:
            for path, content in data.items():
                assert await read_file(checker.vfs, path) == content


async def test_a_verification_must_make_sense(
    autojump_clock: MockClock, rng: random.Random
) -> None:
    async with running_cluster(rng) as cluster:
        caller = Client(transport=cluster.network)
        for argument in ('{"megabytes_per_s": 0}', '{"x": 1}'):
            with pytest.raises(UsageError):
                await caller.call("job.start", METAD, StartJob(kind="verify", argument=argument))
