"""Chunk calls: chains broken at each place, verified reads, fail-over, hedging, syncing."""

from __future__ import annotations

import itertools

import pytest
import trio
from trio.testing import MockClock

from dfsmount.remote.chunkclient import PROBES, ChunkClient
from dfsmount.remote.serverhealth import ServerHealth
from dfswire.errors import (
    CorruptChunk,
    DiskFailed,
    NoSpace,
    Unavailable,
    UnknownChunk,
)
from dfswire.messages import ChunkGrant, ChunkLocation
from tests.t2_dfsmount.fakes_data import FakeCluster

DATA = bytes(range(256)) * 1024  # four blocks
CHUNK = b"c" * 16
NAMES = ["h0:9500", "h1:9500", "h2:9500"]


class Bench:
    """A chunk client on three servers, one of which is local if asked for."""

    def __init__(self, nursery: trio.Nursery, local_hosts: tuple[str, ...] = ()) -> None:
        self.cluster = FakeCluster(count=3, replicas=3)
        self.health = ServerHealth(local_hosts)
        self.client = ChunkClient(self.cluster, self.cluster, self.health, nursery)
        self.servers = [self.cluster.servers[name] for name in NAMES]
        self.replicas = [server.replica for server in self.servers]
        self.grant = ChunkGrant(chunk=CHUNK, targets=self.replicas, expires_s=60)
        self.location = ChunkLocation(chunk=CHUNK, length=len(DATA), replicas=self.replicas)

    def store(self) -> None:
        for server in self.servers:
            server.chunks[CHUNK] = DATA


async def test_a_chunk_is_sent_once(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    bench = Bench(nursery)
    stored = await bench.client.write(bench.grant, memoryview(DATA), durable=True)
    assert stored.written.disks == ["disk0", "disk1", "disk2"]
    assert stored.location.replicas == bench.replicas and stored.durable
    assert bench.cluster.calls["chunk.write"] == 1
    assert all(server.synced == {CHUNK} for server in bench.servers)


@pytest.mark.parametrize(
    "down", [set(which) for count in (1, 2) for which in itertools.combinations(range(3), count)]
)
async def test_a_chain_broken_anywhere(
    down: set[int], autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    bench = Bench(nursery)
    for index in down:
        bench.servers[index].is_down = True
    stored = await bench.client.write(bench.grant, memoryview(DATA), durable=False)
    assert stored.written.disks == [f"disk{index}" for index in range(3) if index not in down]
    for index, server in enumerate(bench.servers):
        assert (CHUNK in server.chunks) == (index not in down)
    assert set(bench.health.recently_failed()) == {NAMES[index] for index in down}


@pytest.mark.parametrize("refusing", range(3))
async def test_a_server_that_refuses(
    refusing: int, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    bench = Bench(nursery)
    bench.servers[refusing].refuses = NoSpace("full")
    stored = await bench.client.write(bench.grant, memoryview(DATA), durable=False)
    assert f"disk{refusing}" not in stored.written.disks and len(stored.written.disks) == 2


async def test_servers_that_can_not_reach_each_other_are_reached_directly(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    bench = Bench(nursery)
    for server in bench.servers:
        server.cannot_forward = True
    stored = await bench.client.write(bench.grant, memoryview(DATA), durable=False)
    assert len(stored.written.disks) == 3 and bench.cluster.calls["chunk.write"] == 3


async def test_nobody_takes_it(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    bench = Bench(nursery)
    for server in bench.servers:
        server.refuses = DiskFailed("broken")
    with pytest.raises(DiskFailed):
        await bench.client.write(bench.grant, memoryview(DATA), durable=False)
    nowhere = ChunkGrant(chunk=CHUNK, targets=[], expires_s=60)
    with pytest.raises(Unavailable):
        await bench.client.write(nowhere, memoryview(DATA), durable=False)


async def test_read_part_of_a_chunk(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    bench = Bench(nursery)
    bench.store()
    assert await bench.client.read(bench.location, 65536, 131072) == DATA[65536:196608]
    assert len(bench.cluster.reads) == 1


async def test_the_own_host_first_then_the_fast_one_then_the_failed_one(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    bench = Bench(nursery, local_hosts=("h2",))
    bench.store()
    await bench.client.read(bench.location, 0, 65536)
    assert bench.cluster.reads[-1][0] == "h2:9500"
    bench.health.failed("h2:9500")
    bench.health.succeeded("h0:9500", 65536, 0.5)
    bench.health.succeeded("h1:9500", 65536, 0.1)
    assert [one.address for one in bench.health.order(bench.replicas, 65536)] == [
        "h1:9500",
        "h0:9500",
        "h2:9500",
    ]
    await trio.sleep(11)
    assert bench.health.order(bench.replicas, 65536)[0].address == "h2:9500"


async def test_an_unreachable_replica(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    bench = Bench(nursery)
    bench.store()
    bench.servers[0].is_down = True
    assert await bench.client.read(bench.location, 0, len(DATA)) == DATA
    assert bench.cluster.bad == [], "being away is no sign of a bad replica"
    assert bench.health.recently_failed() == ["h0:9500"]


@pytest.mark.parametrize("harm", ["corrupts", "lies_about_length", "missing"])
async def test_a_bad_replica_is_reported(
    harm: str, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    bench = Bench(nursery)
    bench.store()
    if harm == "missing":
        bench.servers[0].chunks.clear()
    else:
        setattr(bench.servers[0], harm, True)
    for _ in range(2):
        assert await bench.client.read(bench.location, 0, len(DATA)) == DATA
    await trio.sleep(1)
    assert {entry[:2] for entry in bench.cluster.bad} == {(CHUNK, "disk0")}
    assert ("chunk.verify", "h0:9500") in bench.cluster.calls_to


async def test_a_report_that_fails_is_made_again_by_the_next_reader(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    bench = Bench(nursery)
    bench.store()
    bench.servers[0].corrupts = True
    bench.cluster.report_problem = Unavailable("metad is away")
    await bench.client.read(bench.location, 0, len(DATA))
    await trio.sleep(1)
    bench.cluster.report_problem = None
    await bench.client.read(bench.location, 0, len(DATA))
    await trio.sleep(1)
    assert len(bench.cluster.bad) == 1


async def test_when_no_replica_gives_the_bytes(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    bench = Bench(nursery)
    with pytest.raises(UnknownChunk):
        await bench.client.read(bench.location, 0, len(DATA))
    bench.store()
    for server in bench.servers:
        server.corrupts = True
    with pytest.raises(CorruptChunk):
        await bench.client.read(bench.location, 0, len(DATA))
    bench.servers[1].is_down = True
    with pytest.raises(Unavailable):
        await bench.client.read(bench.location, 0, len(DATA))
    nowhere = ChunkLocation(chunk=CHUNK, length=len(DATA), replicas=[])
    with pytest.raises(UnknownChunk):
        await bench.client.read(nowhere, 0, len(DATA))
    alone = ChunkLocation(chunk=CHUNK, length=len(DATA), replicas=bench.replicas[1:2])
    with pytest.raises(Unavailable):
        await bench.client.read(alone, 0, len(DATA))


async def test_a_slow_replica_is_hedged_after_its_own_p95(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    bench = Bench(nursery, local_hosts=("h0",))
    bench.store()
    bench.servers[0].delay_s = 0.05
    for _ in range(10):
        await bench.client.read(bench.location, 0, 65536)
    assert {address for address, _, _ in bench.cluster.reads} == {"h0:9500"}
    bench.servers[0].delay_s = 3.0
    started = trio.current_time()
    assert await bench.client.read(bench.location, 0, 65536) == DATA[:65536]
    assert trio.current_time() - started == pytest.approx(0.051, abs=0.005)
    assert len(bench.cluster.reads) == 11, "the slow one was abandoned before it answered"


async def test_hedges_are_few(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    bench = Bench(nursery)
    bench.store()
    for server in bench.servers:
        server.delay_s = 1.0
    async with trio.open_nursery() as readers:
        for _ in range(20):
            readers.start_soon(bench.client.read, bench.location, 0, 65536)
    assert bench.cluster.calls["chunk.read"] == 24 + 1, "and one probe of who was outpaced"


async def test_one_that_was_outpaced_may_be_gone_when_it_is_probed(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    bench = Bench(nursery, local_hosts=("h0",))
    bench.store()
    bench.servers[0].delay_s = 1.0
    await bench.client.read(bench.location, 0, 65536)
    bench.servers[0].is_down = True
    await trio.sleep(4)
    told = {each.address: each for each in bench.health.take()}
    assert told["h0:9500"].failed


async def test_how_slow_a_server_is_that_was_outpaced_is_found_out_and_told(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    bench = Bench(nursery, local_hosts=("h0",))
    bench.store()
    for server in bench.servers:
        server.delay_s = 0.005
        replica = bench.replicas[bench.servers.index(server)]
        alone = ChunkLocation(chunk=CHUNK, length=len(DATA), replicas=[replica])
        for _ in range(8):
            await bench.client.read(alone, 0, 65536)
    bench.health.take()
    bench.servers[0].delay_s = 1.0
    await bench.client.read(bench.location, 0, 65536)
    await trio.sleep(4)
    told = {each.address: each for each in bench.health.take()}
    assert (told["h0:9500"].calls, told["h0:9500"].slow) == (1 + PROBES, PROBES)
    assert bench.health.to_avoid() == ["h0:9500"]
    reads = bench.cluster.calls["chunk.read"]
    await bench.client.read(bench.location, 0, 65536)
    assert bench.cluster.calls["chunk.read"] == reads + 1, "it is asked last now"


async def test_a_hedge_that_fails_leaves_the_first(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    bench = Bench(nursery)
    bench.store()
    bench.servers[0].delay_s = 2.0
    bench.servers[1].is_down = bench.servers[2].is_down = True
    assert await bench.client.read(bench.location, 0, 65536) == DATA[:65536]


async def test_sync(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    bench = Bench(nursery)
    bench.store()
    bench.servers[1].fails_sync = True
    bench.servers[2].is_down = True
    answers = await bench.client.sync({name: [(CHUNK, b"")] for name in NAMES})
    assert answers == {("h0:9500", CHUNK): True, ("h1:9500", CHUNK): False}
    assert bench.cluster.calls["chunk.sync"] == 3, "nobody is asked twice"
