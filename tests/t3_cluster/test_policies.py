"""Policies of directories in a whole cluster: copies appear and go, labels draw, restarts are
survived, and nothing ever has fewer copies than before."""

from __future__ import annotations

import random

import pytest
import trio
from trio.testing import MockClock

from dfswire.cluster import InfoReply, InfoRequest
from dfswire.policies import PolicyReply, PolicyRequest, PolicyTerms, SetPolicy
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
    async with running_cluster(rng, servers=3) as cluster:
        for terms, reason in (
            (PolicyTerms(replicas=4), "4 copies need as many hosts, there are 3"),
            (PolicyTerms(replicas=2, label="ssd"), "hosts with label ssd, there are 0"),
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
