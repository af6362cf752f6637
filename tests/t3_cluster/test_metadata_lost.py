"""metad's disk is lost, and the database made again from what the chunkds keep of its journal."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from dfsmount.client import FileSystem
from dfswire.admin import RemoveTarget, Target
from dfswire.client import Client
from dfswire.errors import UsageError
from dfswire.journal import JournalStatus
from dfswire.messages import ROOT_INODE, Empty
from metad.recovery.restore import Wish
from tests.replaying import contents
from tests.t3_cluster.cluster import METAD, Cluster, running_cluster
from tests.t3_cluster.files import names, read_file, write_file

SEEDS = range(int(os.environ.get("DFS_RESTORE_SEEDS", "2")))
FIRST_SEED = int(os.environ.get("DFS_RESTORE_FIRST_SEED", "0"))


async def journal_status(cluster: Cluster) -> JournalStatus:
    reply: JournalStatus = await Client(transport=cluster.network).call(
        "journal.status", METAD, Empty()
    )
    return reply


async def until_in_step(cluster: Cluster, copies: int = 1) -> None:
    with trio.fail_after(60):
        while (await journal_status(cluster)).copies < copies:  # noqa: ASYNC110 - virtual time
            await trio.sleep(0.2)


async def test_chunkds_keep_the_journal(
    autojump_clock: MockClock, rng: random.Random, tmp_path: Path
) -> None:
    async with running_cluster(rng, directory=tmp_path) as cluster, cluster.client() as client:
        await until_in_step(cluster, 3)
        await write_file(client.vfs, "f", rng.randbytes(1000), sync=True)
        status = await journal_status(cluster)
        assert status.wanted == 1
        assert status.safe >= status.position.number > 0
        assert [each.state for each in status.followers] == ["in step"] * 3


async def test_the_database_is_made_again(
    autojump_clock: MockClock, rng: random.Random, tmp_path: Path
) -> None:
    async with running_cluster(rng, directory=tmp_path) as cluster, cluster.client() as client:
        await until_in_step(cluster)
        data = rng.randbytes(200_000)
        await write_file(client.vfs, "before", data, sync=True)
        await cluster.kill_metad()
        before = contents(cluster.database._writer)
        await cluster.lose_metadata()
        done = await cluster.restore_metadata()
        after = contents(cluster.database._writer)
        assert {table for table in before if before[table] != after[table]} == {
            "setting",  # the new epoch
            "journal",
        }
        assert done.epoch == 2
        assert done.warnings == []
        await cluster.start_metad()
        assert await read_file(client.vfs, "before") == data
        await write_file(client.vfs, "after", data, sync=True)
        await until_in_step(cluster)
        assert (await journal_status(cluster)).reclaim_held
        await cluster.until(lambda s: len(s.servers) == 3, 30)
        assert (await cluster.fsck()).findings == []
        # And once more: the journal of the second epoch is as good as the first.
        await cluster.lose_metadata()
        assert (await cluster.restore_metadata()).epoch == 3
        await cluster.start_metad()
        assert await read_file(client.vfs, "after") == data
        released = await Client(transport=cluster.network).call("journal.release", METAD, Empty())
        assert not released.reclaim_held


async def work(vfs: FileSystem, prefix: str, done: dict[str, bytes], rng: random.Random) -> None:
    """Make files until cancelled; `done` has those that were acknowledged with fsync."""
    for number in range(10_000):
        name, data = f"{prefix}{number}", rng.randbytes(rng.choice([10, 5000, 70_000]))
        await write_file(vfs.vfs, name, data, sync=True)
        done[name] = data
        if rng.random() < 0.3:
            gone = rng.choice(sorted(done))
            if gone.startswith(prefix):
                del done[gone]
                await vfs.vfs.unlink(ROOT_INODE, gone.encode())
        await trio.sleep(rng.random() * 0.2)


@pytest.mark.parametrize("seed", [FIRST_SEED + each for each in SEEDS])
async def test_nothing_acknowledged_is_lost(
    autojump_clock: MockClock, tmp_path: Path, seed: int
) -> None:
    rng = random.Random(seed)
    async with (
        running_cluster(
            rng, directory=tmp_path, metad_settings={"snapshot_journal_bytes": 20_000}
        ) as cluster,
        cluster.client("a") as one,
        cluster.client("b") as other,
    ):
        await until_in_step(cluster)
        for _round in range(2):
            done: dict[str, bytes] = {}
            async with trio.open_nursery() as nursery:
                mark = f"{_round}"
                nursery.start_soon(work, one, f"a{mark}-", done, rng)
                nursery.start_soon(work, other, f"b{mark}-", done, rng)
                for _ in range(3):
                    await trio.sleep(1 + rng.random() * 5)
                    number = rng.randrange(3)
                    match rng.choice(["metad", "chunkd", "both", "nothing"]):
                        case "metad":
                            await cluster.kill_metad()
                            await cluster.start_metad()
                        case "chunkd":
                            await cluster.kill_chunkd(number)
                            await trio.sleep(rng.random() * 3)
                            await cluster.start_chunkd(number)
                        case "both":
                            await cluster.kill_metad()
                            await cluster.kill_chunkd(number)
                            await cluster.start_metad()
                            await cluster.start_chunkd(number)
                        case "nothing":
                            pass
                await until_in_step(cluster)
                await trio.sleep(rng.random() * 3)
                await cluster.lose_metadata()
                restored = await cluster.restore_metadata()
                assert restored.warnings == []
                await cluster.start_metad()
                await trio.sleep(3)
                nursery.cancel_scope.cancel()
            await cluster.until(lambda s: len(s.servers) == 3, 60)
            known = await names(one.vfs, "")
            for name, data in done.items():
                assert name.encode() in known
                assert await read_file(other.vfs, name) == data
            await until_in_step(cluster)
            assert (await cluster.fsck()).findings == []


async def test_a_chunkd_that_was_not_asked_may_know_more(
    autojump_clock: MockClock, rng: random.Random, tmp_path: Path, expect_log: Callable[[str], None]
) -> None:
    async with running_cluster(rng, directory=tmp_path) as cluster, cluster.client() as client:
        await until_in_step(cluster, 3)
        await write_file(client.vfs, "f", b"hello", sync=True)
        await cluster.kill_chunkd(1)
        await cluster.lose_metadata()
        with pytest.raises(UsageError, match=r"server1 .* was not asked"):
            await cluster.restore_metadata()
        assert not cluster.metadata.exists()
        done = await cluster.restore_metadata(Wish(accept_loss=True))
        assert len(done.warnings) == 1
        await cluster.start_metad()
        assert await read_file(client.vfs, "f") == b"hello"


async def test_a_server_that_was_removed_is_asked_too(
    autojump_clock: MockClock, rng: random.Random, tmp_path: Path
) -> None:
    """It has what came before its removal.  Its chunkd can be started for that: no metad is there
    to turn it away."""
    async with running_cluster(rng, directory=tmp_path, servers=4) as cluster:
        await until_in_step(cluster, 3)
        operator = Client(transport=cluster.network)
        await operator.call("admin.drain", METAD, Target(server="server1"))
        await cluster.until(lambda s: "drained" in [each.admin for each in s.servers], 60)
        await operator.call("admin.remove", METAD, RemoveTarget(server="server1"))
        follow = {each.server_id for each in (await journal_status(cluster)).followers}
        assert follow == {"server0", "server2", "server3"}
        await cluster.kill_chunkd(1)
        async with cluster.client() as client:
            await write_file(client.vfs, "f", b"hello", sync=True)
            await cluster.lose_metadata()
            with pytest.raises(UsageError, match=r"server1 .* was not asked"):
                await cluster.restore_metadata()
            await cluster.start_chunkd(1)
            assert (await cluster.restore_metadata()).warnings == []
            await cluster.kill_chunkd(1)
            await cluster.start_metad()
            assert await read_file(client.vfs, "f") == b"hello"


async def test_to_an_earlier_moment(
    autojump_clock: MockClock, rng: random.Random, tmp_path: Path
) -> None:
    async with running_cluster(
        rng,
        directory=tmp_path,
        metad_settings={"snapshot_interval_s": 60.0, "reclaim_grace_s": 8000.0},
    ) as cluster:
        await until_in_step(cluster)
        expected: list[tuple[int, dict[str, bytes]]] = []
        files: dict[str, bytes] = {}
        async with cluster.client() as client:
            for number in range(20):
                name = f"f{number % 7}"
                files[name] = rng.randbytes(rng.choice([100, 100_000]))
                await write_file(client.vfs, name, files[name], sync=True)
                await trio.sleep(1)
                expected.append((cluster.now_ns(), dict(files)))
                await trio.sleep(10 + rng.random() * 10)
        at_ns, then = expected[rng.randrange(5)]
        await cluster.lose_metadata()
        done = await cluster.restore_metadata(Wish(at_ns=at_ns))
        assert done.position.time_ns <= at_ns
        await cluster.start_metad()
        async with cluster.client("later") as client:
            assert await names(client.vfs, "") == sorted(name.encode() for name in then)
            for name, data in then.items():
                assert await read_file(client.vfs, name) == data
            await until_in_step(cluster)
            await write_file(client.vfs, "new", b"new", sync=True)
        # The wrong moment: what was left aside can still be had.
        await cluster.lose_metadata()
        await cluster.restore_metadata(Wish(epoch=1))
        await cluster.start_metad()
        async with cluster.client("last") as client:
            for name, data in files.items():
                assert await read_file(client.vfs, name) == data
