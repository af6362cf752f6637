"""The calls of chunkd, over the codec: chains of three, broken at each place."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import trio

from chunkd.service import FORWARD_SHARE
from dfswire.chunks import (
    ReadChunk,
    SyncChunks,
    VerifyChunk,
    WriteChunk,
    WriteReply,
    WriteResult,
    block_checksums,
)
from dfswire.client import Client
from dfswire.dispatch import BodySource, Dispatcher
from dfswire.errors import CorruptChunk, Invalid, ProtocolError, Unavailable, UnknownChunk
from dfswire.messages import BLOCK_SIZE_BYTES as BLOCK
from dfswire.messages import Empty
from tests.fakes import DirectTransport
from tests.suites.chunkstore import A, B, ExpectLog, content
from tests.t2_chunkd.servers import ChunkServer, write_chain

DATA = content(3 * BLOCK + 5)


class Cluster:
    """Three servers and a client."""

    def __init__(self) -> None:
        self.transport = DirectTransport({})
        self.client = Client(transport=self.transport)
        self.one, self.two, self.three = self.servers = [
            ChunkServer(name, self.transport) for name in ("one", "two", "three")
        ]

    def holders(self, chunk: bytes) -> list[str]:
        return [server.name for server in self.servers if chunk in server.store.files]


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


def errors(reply: WriteReply) -> dict[str, str]:
    """Disk -> code of its error, "" for stored."""
    return {result.disk: result.error.partition(":")[0] for result in reply.results}


@pytest.mark.parametrize("durable", [False, True])
@pytest.mark.parametrize("pieces", [1, 7])
async def test_a_chunk_goes_down_the_chain(cluster: Cluster, durable: bool, pieces: int) -> None:
    reply = await write_chain(
        cluster.client, cluster.servers, A, DATA, durable=durable, pieces=pieces
    )
    assert [(each.disk, each.error) for each in reply.results] == [
        (name, "") for name in ("one", "two", "three")
    ]
    assert all(each.took_s > 0 for each in reply.results)
    for server in cluster.servers:
        assert dict(server.store.content()) == {A: DATA}
        assert server.store.files[A].synced == durable


async def test_reading_a_range(cluster: Cluster) -> None:
    await write_chain(cluster.client, [cluster.one], A, DATA)
    request = ReadChunk(chunk=A, disk="one", offset=BLOCK, length=2 * BLOCK)
    reply, body = await cluster.client.call("chunk.read", cluster.one.address, request)
    assert bytes(body) == DATA[BLOCK : 3 * BLOCK]
    assert reply.chunk_length == len(DATA)
    assert reply.checksums == block_checksums(A, body, 1)


@pytest.mark.parametrize(
    ("request_", "error"),
    [
        (ReadChunk(chunk=A, disk="one", offset=1, length=BLOCK), Invalid),
        (ReadChunk(chunk=A, disk="one", offset=0, length=len(DATA) + 1), Invalid),
        (ReadChunk(chunk=B, disk="one", offset=0, length=1), UnknownChunk),
        (ReadChunk(chunk=A, disk="elsewhere", offset=0, length=1), UnknownChunk),
    ],
)
async def test_reads_that_cannot_be(
    cluster: Cluster, request_: ReadChunk, error: type[Exception]
) -> None:
    await write_chain(cluster.client, [cluster.one], A, DATA)
    with pytest.raises(error):
        await cluster.client.call("chunk.read", cluster.one.address, request_)


@pytest.mark.parametrize("broken", ["two", "three"])
async def test_a_dead_server_breaks_the_chain_not_the_write(cluster: Cluster, broken: str) -> None:
    cluster.transport.down(f"{broken}:9500")
    reply = await write_chain(cluster.client, cluster.servers, A, DATA)
    expected = {"one": "", "two": "", "three": "unavailable"}
    if broken == "two":
        expected["two"] = "unavailable"
    assert errors(reply) == expected
    assert cluster.holders(A) == [name for name, error in expected.items() if not error]


async def test_a_full_disk_in_the_chain_is_one_result(cluster: Cluster) -> None:
    for position, server in enumerate(cluster.servers):
        server.store.fill()
        chunk = bytes([position]) + A[1:]
        reply = await write_chain(cluster.client, cluster.servers, chunk, DATA)
        full = [each.name for each in cluster.servers[: position + 1]]
        assert errors(reply) == {
            name: "no_space" if name in full else "" for name in ("one", "two", "three")
        }


async def test_a_failed_fsync_in_the_chain_is_one_result(cluster: Cluster) -> None:
    cluster.two.store.fail_fsync()
    reply = await write_chain(cluster.client, cluster.servers, A, DATA, durable=True)
    assert errors(reply) == {"one": "", "two": "disk_failed", "three": ""}


async def test_an_unknown_disk_is_one_result(cluster: Cluster) -> None:
    cluster.one.name = "elsewhere"
    reply = await write_chain(cluster.client, cluster.servers, A, DATA)
    assert errors(reply) == {"elsewhere": "unknown_chunk", "two": "", "three": ""}


async def test_corrupt_bytes_are_stored_nowhere(cluster: Cluster) -> None:
    wrong = block_checksums(A, DATA[:-1] + b"?")
    reply = await write_chain(cluster.client, cluster.servers, A, DATA, checksums=wrong)
    assert set(errors(reply).values()) == {"corrupt_chunk"}
    assert cluster.holders(A) == []


async def test_bytes_damaged_between_servers_are_noticed(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    receive = cluster.two.service.calls.write

    async def damaging(request: WriteChunk, body: BodySource) -> WriteReply:
        class Damaged:
            length = body.length

            async def receive_into(self, buffer: memoryview) -> int:
                count = await body.receive_into(buffer)
                if count:
                    buffer[0] ^= 1
                return count

        return await receive(request, Damaged())

    handlers = cluster.two.service.handlers | {"chunk.write": damaging}
    cluster.transport.up(cluster.two.address, Dispatcher("chunkd", handlers))
    reply = await write_chain(cluster.client, cluster.servers, A, DATA)
    assert errors(reply) == {"one": "", "two": "corrupt_chunk", "three": "corrupt_chunk"}


async def test_a_sender_that_goes_away_leaves_nothing(cluster: Cluster) -> None:
    async def body() -> AsyncIterator[bytes]:
        yield DATA[:BLOCK]

    request = WriteChunk(
        chunk=A,
        length=len(DATA),
        checksums=block_checksums(A, DATA),
        disk="one",
        chain=[cluster.two.replica],
    )
    with pytest.raises(Unavailable):
        await cluster.client.call(
            "chunk.write", cluster.one.address, request, body=body(), body_length=len(DATA)
        )
    assert cluster.holders(A) == []


async def test_a_sender_that_is_gone_before_anything_is_sent_on_is_no_more_than_that(
    cluster: Cluster,
) -> None:
    """The task that sends on is cancelled before it looks at the clock."""

    class Gone:
        length = len(DATA)

        async def receive_into(self, buffer: memoryview) -> int:
            return 0

    request = WriteChunk(
        chunk=A,
        length=len(DATA),
        checksums=block_checksums(A, DATA),
        disk="one",
        chain=[cluster.two.replica],
    )
    with pytest.raises(Unavailable):
        await cluster.one.service.calls.write(request, Gone())


async def test_a_body_of_another_length_is_refused(cluster: Cluster) -> None:
    request = WriteChunk(chunk=A, length=4, checksums=bytes(8), disk="one")
    with pytest.raises(ProtocolError):
        await cluster.client.call("chunk.write", cluster.one.address, request, body=b"abc")


async def test_a_successor_that_hangs_is_a_result_in_time(
    cluster: Cluster, autojump_clock: trio.testing.MockClock
) -> None:
    async def hang(request: WriteChunk, body: BodySource) -> WriteReply:
        await trio.sleep_forever()
        raise AssertionError

    handlers = cluster.two.service.handlers | {"chunk.write": hang}
    cluster.transport.up(cluster.two.address, Dispatcher("chunkd", handlers))
    started = trio.current_time()
    reply = await write_chain(cluster.client, cluster.servers, A, DATA, deadline_s=5.0)
    assert trio.current_time() - started == pytest.approx(5.0 * FORWARD_SHARE)
    assert errors(reply) == {"one": "", "two": "unavailable", "three": "unavailable"}


async def test_only_disks_that_were_asked_are_believed(cluster: Cluster) -> None:
    async def boast(request: WriteChunk, body: BodySource) -> WriteReply:
        return WriteReply(results=[WriteResult(disk="one"), WriteResult(disk="three")])

    handlers = cluster.two.service.handlers | {"chunk.write": boast}
    cluster.transport.up(cluster.two.address, Dispatcher("chunkd", handlers))
    cluster.one.store.fill()
    reply = await write_chain(cluster.client, [cluster.one, cluster.two], A, DATA)
    assert errors(reply) == {"one": "no_space", "two": "unavailable"}


async def test_crossing_chains_do_not_stop_each_other(
    cluster: Cluster, autojump_clock: trio.testing.MockClock
) -> None:
    """More writes each way than there are buffers: they wait, and all succeed."""
    replies = []

    async def write(number: int) -> None:
        chain = cluster.servers if number % 2 else cluster.servers[::-1]
        chunk = bytes([number]) + A[1:]
        replies.append(await write_chain(cluster.client, chain, chunk, DATA, pieces=5))

    async with trio.open_nursery() as nursery:
        for number in range(40):
            nursery.start_soon(write, number)
    assert len(replies) == 40
    assert not any(result.error for reply in replies for result in reply.results)


async def test_sync(cluster: Cluster) -> None:
    await write_chain(cluster.client, [cluster.one], A, DATA)
    reply = await cluster.client.call("chunk.sync", cluster.one.address, SyncChunks(chunks=[A, B]))
    assert reply.failed == [B]
    assert cluster.one.store.files[A].synced


async def test_sync_that_fails(cluster: Cluster, expect_log: ExpectLog) -> None:
    expect_log("is bad")
    await write_chain(cluster.client, [cluster.one], A, DATA)
    cluster.one.store.fail_fsync()
    for _ in range(2):
        reply = await cluster.client.call("chunk.sync", cluster.one.address, SyncChunks(chunks=[A]))
        assert reply.failed == [A]


async def test_verify(cluster: Cluster, expect_log: ExpectLog) -> None:
    expect_log("is bad")
    states = []
    await write_chain(cluster.client, [cluster.one], A, DATA)
    for damage in (False, True, False):
        if damage:
            cluster.one.store.corrupt(A, BLOCK)
        request = VerifyChunk(chunk=A, disk="one")
        reply = await cluster.client.call("chunk.verify", cluster.one.address, request)
        states.append(reply.state)
    assert states == ["good", "bad", "bad"]
    elsewhere = VerifyChunk(chunk=B, disk="one")
    reply = await cluster.client.call("chunk.verify", cluster.one.address, elsewhere)
    assert reply.state == "missing"


async def test_a_bad_footer_is_never_served(cluster: Cluster, expect_log: ExpectLog) -> None:
    expect_log("is bad")
    await write_chain(cluster.client, [cluster.one], A, DATA)
    cluster.one.store.truncate(A, BLOCK)
    request = ReadChunk(chunk=A, disk="one", offset=0, length=BLOCK)
    with pytest.raises(CorruptChunk):
        await cluster.client.call("chunk.read", cluster.one.address, request, attempts=1)
    with pytest.raises(CorruptChunk):
        await cluster.client.call("chunk.read", cluster.one.address, request)


async def test_hello(cluster: Cluster) -> None:
    hello = await cluster.client.call("chunkd.hello", cluster.one.address, Empty())
    assert (hello.service, hello.server_id, hello.cluster_id) == ("chunkd", "one", "")


async def test_stopping_finishes_writes_and_syncs(
    cluster: Cluster, autojump_clock: trio.testing.MockClock
) -> None:
    async def slow() -> AsyncIterator[bytes]:
        yield DATA[:BLOCK]
        await trio.sleep(1)
        yield DATA[BLOCK:]

    request = WriteChunk(chunk=A, length=len(DATA), checksums=block_checksums(A, DATA), disk="one")
    async with trio.open_nursery() as nursery, trio.open_nursery() as writing:
        writing.start_soon(
            lambda: cluster.client.call(
                "chunk.write",
                cluster.one.address,
                request,
                body=slow(),
                body_length=len(DATA),
            )
        )
        await trio.sleep(0.5)
        nursery.start_soon(cluster.one.service.stop)
        await trio.sleep(0.1)
        with pytest.raises(Unavailable, match="stopped"):
            await write_chain(cluster.client, [cluster.one], B, DATA)
    assert cluster.one.store.files[A].synced
