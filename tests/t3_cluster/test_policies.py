"""Policies of directories in a whole cluster: copies appear and go, labels draw, restarts are
survived, and nothing ever has fewer copies than before."""

from __future__ import annotations

import random

import pytest
import trio
from trio.testing import MockClock

from dfswire.info import InfoReply, InfoRequest
from dfswire.jobs import JobsReply, JobsRequest
from dfswire.policies import PolicyReply, PolicyRequest, PolicyTerms, SetPolicy
from metad.operators.policycalls import WALKED
from tests.t3_cluster.cluster import CHUNK_SIZE_BYTES, Cluster, running_cluster
from tests.t3_cluster.files import find, read_file, write_file
from tests.t3_cluster.test_leaving import Watch, ask


async def copies(cluster: Cluster, path: str) -> list[int]:
    """How many good copies each chunk of a file has."""
    reply: InfoReply = await ask(cluster, "cluster.info", InfoRequest(path=path.encode()))
    return [sum(each.state == "good" for each in chunk.replicas) for chunk in reply.chunks]


async def until_copies(cluster: Cluster, path: str, count: int) -> None:
    with trio.fail_after(1200):
        while set(await copies(cluster, path)) != {count}:  # noqa: ASYNC110 - time is virtual
            await trio.sleep(2)


@pytest.mark.parametrize("restarts", [0, 3])
async def test_copies_follow_the_policy(
    autojump_clock: MockClock, rng: random.Random, restarts: int
) -> None:
    data = rng.randbytes(5 * CHUNK_SIZE_BYTES)
    async with running_cluster(rng, servers=4) as cluster, trio.open_nursery() as nursery:
        async with cluster.client() as client:
            root = (await find(client.vfs, "/")).inode
            for name in (b"d", b"e"):
                await client.vfs.mkdir(root, name, 0o755, 0, 0)
            for path in ("d/f", "e/g"):
                await write_file(client.vfs, path, data, sync=True)
            nursery.start_soon(Watch(cluster, 2).run)
            terms = PolicyTerms(replicas=3)
            reply: PolicyReply = await ask(
                cluster, "policy.set", SetPolicy(path=b"/d", terms=terms)
            )
            assert (reply.terms, reply.source_path, reply.applied) == (terms, b"/d", True)
            for _ in range(restarts):
                await trio.sleep(rng.uniform(0, 1))
                await cluster.kill_metad()
                await cluster.start_metad()
            await until_copies(cluster, "/d/f", 3)
            assert set(await copies(cluster, "/e/g")) == {2}
            shown: PolicyReply = await ask(cluster, "policy.show", PolicyRequest(path=b"/d/f"))
            assert shown.terms == terms and not shown.converging
            await write_file(client.vfs, "d/new", data, sync=True)
            await until_copies(cluster, "/d/new", 3)
            d, e = [(await find(client.vfs, name)).inode for name in ("d", "e")]
            await client.vfs.rename(e, b"g", d, b"g", 0)
            await until_copies(cluster, "/d/g", 3)
            cleared: PolicyReply = await ask(cluster, "policy.clear", PolicyRequest(path=b"/d"))
            assert (cleared.terms.replicas, cleared.source) == (2, 0)
            for path in ("/d/f", "/d/new", "/d/g"):
                await until_copies(cluster, path, 2)
            assert await read_file(client.vfs, "d/g") == data
        nursery.cancel_scope.cancel()


async def test_what_cannot_be_done_now_needs_force(
    autojump_clock: MockClock, rng: random.Random
) -> None:
    async with running_cluster(rng, servers=3, racks=["r"] * 3) as cluster:
        for terms, reason in (
            (PolicyTerms(replicas=4), "4 copies need as many servers, there are 3"),
            (PolicyTerms(replicas=2, label="ssd"), "servers with label ssd, there are 0"),
            (PolicyTerms(replicas=3, domain="rack"), "3 copies need as many racks, there are 1"),
        ):
            request = SetPolicy(inode=1, terms=terms)
            refused: PolicyReply = await ask(cluster, "policy.set", request)
            assert not refused.applied and reason in refused.unsatisfied[0]
            assert (refused.source, refused.terms.replicas) == (0, 2)
        forced: PolicyReply = await ask(
            cluster, "policy.set", SetPolicy(inode=1, terms=PolicyTerms(replicas=4), force=True)
        )
        assert forced.applied and forced.unsatisfied and forced.source == 1
        status = await cluster.status()
        assert "4 copies need" in status.unsatisfied[0]


async def test_nothing_is_called_done_before_it_is(
    autojump_clock: MockClock, rng: random.Random
) -> None:
    """After a label: until copies are there, that is said, and they are moved at once."""
    data = rng.randbytes(10 * CHUNK_SIZE_BYTES)
    async with running_cluster(rng, servers=4) as cluster:
        await label(cluster, 1, 3)
        async with cluster.client() as client:
            root = (await find(client.vfs, "/")).inode
            await client.vfs.mkdir(root, b"d", 0o755, 0, 0)
            await write_file(client.vfs, "d/f", data, sync=True)
        await trio.sleep(20)
        terms = PolicyTerms(replicas=2, label="ssd")
        await ask(cluster, "policy.set", SetPolicy(path=b"/d", terms=terms))
        began = trio.current_time()
        show = PolicyRequest(path=b"/d")
        while not all({"disk1", "disk3"} <= each for each in await placed(cluster, "/d/f")):
            assert (await ask(cluster, "policy.show", show)).converging
            await trio.sleep(0.2)
        assert trio.current_time() - began < 12, "without waiting for the next round"
        with trio.fail_after(60):
            while (await ask(cluster, "policy.show", show)).converging:  # noqa: ASYNC110 - time is virtual
                await trio.sleep(1)
        reply: JobsReply = await ask(cluster, "job.list", JobsRequest())
        (job,) = [each for each in reply.jobs if each.kind == "policy"]
        assert job.message == WALKED


async def placed(cluster: Cluster, path: str) -> list[set[str]]:
    """The disks with good copies of each chunk of a file, at this moment."""
    reply: InfoReply = await ask(cluster, "cluster.info", InfoRequest(path=path.encode()))
    return [
        {each.disk for each in chunk.replicas if each.state == "good"} for chunk in reply.chunks
    ]


async def label(cluster: Cluster, *numbers: int) -> None:
    for number in numbers:
        cluster.labels[number] = ["ssd"]
        await cluster.kill_chunkd(number)
        await cluster.start_chunkd(number)
    await trio.sleep(3)


async def test_a_new_file_follows_its_policy_from_the_first_byte(
    autojump_clock: MockClock, rng: random.Random
) -> None:
    racks = ["r1", "r1", "r2", "r2", "r3"]
    data = rng.randbytes(40 * CHUNK_SIZE_BYTES)
    async with running_cluster(rng, servers=5, racks=racks) as cluster:
        await label(cluster, 0, 2, 4)
        async with cluster.client() as client:
            root = (await find(client.vfs, "/")).inode
            for name in (b"d", b"e"):
                await client.vfs.mkdir(root, name, 0o755, 0, 0)
            await write_file(client.vfs, "e/before", data, sync=True)
            terms = PolicyTerms(replicas=3, domain="rack", label="ssd")
            assert (await ask(cluster, "policy.set", SetPolicy(path=b"/d", terms=terms))).applied
            await write_file(client.vfs, "d/f", data, sync=True)
            assert await placed(cluster, "/d/f") == [{"disk0", "disk2", "disk4"}] * 40
            await write_file(client.vfs, "e/after", data, sync=True)
            assert {len(each) for each in await placed(cluster, "/e/after")} == {2}
            for path in ("d/f", "e/before", "e/after"):
                assert await read_file(client.vfs, path) == data
            assert (await cluster.status()).chunks.under_replicated == 0


async def test_what_was_open_follows_when_the_policy_changes_or_the_file_moves(
    autojump_clock: MockClock, rng: random.Random
) -> None:
    data = rng.randbytes(8 * CHUNK_SIZE_BYTES)
    async with running_cluster(rng, servers=4) as cluster:
        await label(cluster, 2, 3)
        async with cluster.client() as client, cluster.client() as other:
            root = (await find(client.vfs, "/")).inode
            made = await client.vfs.mkdir(root, b"d", 0o755, 0, 0)
            for name in ("d/f", "g"):
                await write_file(client.vfs, name, data, sync=True)
            terms = PolicyTerms(replicas=2, label="ssd")
            assert (await ask(cluster, "policy.set", SetPolicy(path=b"/d", terms=terms))).applied
            await write_file(client.vfs, "d/f", data, sync=True)
            assert await placed(cluster, "/d/f") == [{"disk2", "disk3"}] * 8
            await other.vfs.rename(root, b"g", made.inode, b"g", 0)
            await trio.sleep(0.1)
            await write_file(client.vfs, "d/g", data, sync=True)
            assert await placed(cluster, "/d/g") == [{"disk2", "disk3"}] * 8
            assert (await ask(cluster, "policy.clear", PolicyRequest(path=b"/d"))).source == 0


async def test_what_cannot_be_met_is_written_elsewhere_and_moved_later(
    autojump_clock: MockClock, rng: random.Random
) -> None:
    data = rng.randbytes(6 * CHUNK_SIZE_BYTES)
    async with running_cluster(rng, servers=3) as cluster:
        await label(cluster, 0)
        async with cluster.client() as client:
            root = (await find(client.vfs, "/")).inode
            await client.vfs.mkdir(root, b"d", 0o755, 0, 0)
            request = SetPolicy(path=b"/d", terms=PolicyTerms(replicas=2, label="ssd"), force=True)
            assert (await ask(cluster, "policy.set", request)).unsatisfied
            await write_file(client.vfs, "d/f", data, sync=True)
            assert all("disk0" in each and len(each) == 2 for each in await placed(cluster, "/d/f"))
            assert "label ssd" in (await cluster.status()).unsatisfied[0]
            await label(cluster, 1)
            with trio.fail_after(1200):
                while await placed(cluster, "/d/f") != [{"disk0", "disk1"}] * 6:  # noqa: ASYNC110 - time is virtual
                    await trio.sleep(5)
            assert await read_file(client.vfs, "d/f") == data


@pytest.mark.parametrize("replicas", [1, 3])
async def test_a_write_waits_for_as_many_copies_as_its_policy_promises(
    autojump_clock: MockClock, rng: random.Random, replicas: int
) -> None:
    data = rng.randbytes(4 * CHUNK_SIZE_BYTES)
    async with (
        running_cluster(rng, servers=3, replicas=4 - replicas) as cluster,
        cluster.client() as client,
    ):
        root = (await find(client.vfs, "/")).inode
        await client.vfs.mkdir(root, b"d", 0o755, 0, 0)
        terms = PolicyTerms(replicas=replicas)
        assert (await ask(cluster, "policy.set", SetPolicy(path=b"/d", terms=terms))).applied
        await write_file(client.vfs, "d/f", data, sync=True)
        assert {len(each) for each in await placed(cluster, "/d/f")} == {replicas}
        assert await read_file(client.vfs, "d/f") == data


async def test_chunks_are_as_large_as_the_policy_says(
    autojump_clock: MockClock, rng: random.Random
) -> None:
    data = rng.randbytes(8 * CHUNK_SIZE_BYTES)
    async with (
        running_cluster(rng, chunk_size_bytes=2 * CHUNK_SIZE_BYTES) as cluster,
        cluster.client() as client,
    ):
        root = (await find(client.vfs, "/")).inode
        for name, blocks in (("small", 1), ("large", 4)):
            await client.vfs.mkdir(root, name.encode(), 0o755, 0, 0)
            terms = PolicyTerms(replicas=2, chunk_size_bytes=blocks * CHUNK_SIZE_BYTES)
            request = SetPolicy(path=b"/" + name.encode(), terms=terms)
            reply: PolicyReply = await ask(cluster, "policy.set", request)
            assert reply.applied and reply.terms == terms
            for file in ("f", "g"):
                await write_file(client.vfs, f"{name}/{file}", data, sync=True)
            assert len(await placed(cluster, f"/{name}/g")) == 8 // blocks
            assert await read_file(client.vfs, f"{name}/g") == data
        await write_file(client.vfs, "usual", data, sync=True)
        assert len(await placed(cluster, "/usual")) == 4
