"""Client against server over loopback: every kind of call, and what is tried again."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import httpx
import pytest
import trio

from dfswire import calls
from dfswire.bodies import BodyStream
from dfswire.chunks import SyncChunks, VerifyChunk
from dfswire.client import Client
from dfswire.errors import (
    DFSError,
    NotSupported,
    ProtocolError,
    Unavailable,
    UsageError,
    WrongVersion,
)
from dfswire.messages import Empty, Event
from dfswire.metadata import FollowEvents
from tests.t1_wire.services import CHUNK, Chunkd, Metad, read_request, start, write_request

MIB = 1 << 20


@pytest.fixture
async def chunkd() -> AsyncIterator[Chunkd]:
    yield Chunkd(content=bytes(range(256)) * 4096)


@pytest.fixture
async def address(nursery: trio.Nursery, chunkd: Chunkd) -> str:
    return await start(nursery, chunkd)


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    client = Client()
    yield client
    await client.aclose()


async def test_a_call(client: Client, address: str) -> None:
    hello = await client.call("chunkd.hello", address, Empty())
    assert (hello.service, hello.cluster_id) == ("chunkd", "c")
    assert await client.call("chunkd.hello", f"http://{address}", Empty()) == hello


async def test_many_calls_at_once(client: Client, address: str, chunkd: Chunkd) -> None:
    async with trio.open_nursery() as nursery:
        for _ in range(50):
            nursery.start_soon(client.call, "chunkd.hello", address, Empty())
    assert chunkd.counts["hello"] == 50


@pytest.mark.parametrize("length", [1, 70_000, 4 * MIB])
async def test_a_body_up(client: Client, address: str, chunkd: Chunkd, length: int) -> None:
    body = bytes(range(251)) * (length // 251 + 1)
    reply = await client.call(
        "chunk.write", address, write_request(length), body=memoryview(body)[:length]
    )
    assert reply.results[0].disk == "d"
    assert chunkd.content == body[:length]


async def test_a_body_up_from_an_iterator(client: Client, address: str, chunkd: Chunkd) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(10):
            yield b"x" * MIB

    await client.call(
        "chunk.write", address, write_request(10 * MIB), body=pieces(), body_length=10 * MIB
    )
    assert chunkd.content == b"x" * 10 * MIB


@pytest.mark.parametrize("announced", [5, 7])
async def test_an_iterator_of_another_length_is_an_error(
    client: Client, address: str, chunkd: Chunkd, announced: int
) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"abc"
        yield b"def"

    with pytest.raises(Unavailable, match="announced"):
        await client.call(
            "chunk.write", address, write_request(6), body=pieces(), body_length=announced
        )
    assert len(chunkd.content) == MIB, "nothing was stored"


@pytest.mark.parametrize("disk", ["file", "memory"])
@pytest.mark.parametrize("length", [100, MIB])
async def test_a_body_down(
    client: Client, address: str, chunkd: Chunkd, disk: str, length: int
) -> None:
    message, body = await client.call("chunk.read", address, read_request(length, disk))
    assert message.chunk_length == MIB
    assert bytes(body) == chunkd.content[:length]


@pytest.mark.parametrize("disk", ["file", "memory"])
async def test_a_body_down_into_a_buffer(
    client: Client, address: str, chunkd: Chunkd, disk: str
) -> None:
    buffer = bytearray(2 * MIB)
    request = read_request(1000, disk, offset=500)
    _, body = await client.call("chunk.read", address, request, into=memoryview(buffer))
    assert body.obj is buffer
    assert bytes(body) == bytes(buffer[:1000]) == chunkd.content[500:1500]


async def test_a_buffer_that_is_too_short_is_left_alone(client: Client, address: str) -> None:
    buffer = bytearray(10)
    _, body = await client.call("chunk.read", address, read_request(20), into=memoryview(buffer))
    assert len(body) == 20
    assert buffer == bytes(10)


async def test_the_answer_of_the_peer_is_raised(
    client: Client, address: str, chunkd: Chunkd, expect_log: Callable[[str], None]
) -> None:
    with pytest.raises(NotSupported, match="disk full"):
        body = bytes(8 * MIB)
        await client.call("chunk.write", address, write_request(8 * MIB, "full"), body=body)
    expect_log("ZeroDivisionError")
    with pytest.raises(DFSError, match="ZeroDivisionError: told to") as caught:
        await client.call("chunk.verify", address, VerifyChunk(chunk=CHUNK, disk="bug"))
    assert caught.value.code == "internal"
    assert chunkd.counts == {"write": 1, "verify": 1}, "an answer was not accepted as such"


async def test_only_idempotent_calls_are_tried_again(
    client: Client, address: str, chunkd: Chunkd
) -> None:
    chunkd.fail_next = 2
    await client.call("chunkd.hello", address, Empty())
    assert chunkd.counts["hello"] == 3
    chunkd.fail_next = 2
    with pytest.raises(Unavailable, match="told to"):
        await client.call("chunk.sync", address, SyncChunks(chunks=[]))
    assert chunkd.counts["sync"] == 1
    await client.call("chunk.sync", address, SyncChunks(chunks=[]), attempts=2)
    assert chunkd.counts["sync"] == 3


async def test_trying_again_ends(client: Client, address: str, chunkd: Chunkd) -> None:
    chunkd.fail_next = 100
    with pytest.raises(Unavailable, match="told to"):
        await client.call("chunkd.hello", address, Empty())
    assert chunkd.counts["hello"] == 3
    # On a busy machine the deadline may come while the last try is still under way.
    with pytest.raises(Unavailable, match=r"told to|no answer within 0\.3 s"):
        await client.call("chunkd.hello", address, Empty(), attempts=50, deadline_s=0.3)
    assert chunkd.counts["hello"] < 10


async def test_no_answer_within_the_deadline(client: Client, address: str, chunkd: Chunkd) -> None:
    chunkd.hang = True
    started = trio.current_time()
    with pytest.raises(Unavailable, match=r"0\.1 s"):
        await client.call("chunkd.hello", address, Empty(), deadline_s=0.1)
    assert trio.current_time() - started < 2
    chunkd.hang = False
    await client.call("chunkd.hello", address, Empty())


async def test_an_unknown_version_is_refused(
    client: Client, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dfswire.client.PROTOCOL_VERSION", 2)
    with pytest.raises(WrongVersion, match=r"version 2.*speaks 1"):
        await client.call("chunkd.hello", address, Empty())


async def test_nobody_there(client: Client) -> None:
    listener = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]
    address = f"127.0.0.1:{listener.socket.getsockname()[1]}"
    await listener.aclose()
    with pytest.raises(Unavailable, match=r"chunkd\.hello at 127"):
        await client.call("chunkd.hello", address, Empty())
    with pytest.raises(Unavailable):
        async with client.stream("session.events", address, FollowEvents(session="s")):
            pass


@pytest.mark.parametrize("address", ["nonsense", "host:99999", "a b:1", "ftp://a:1", "a:1/path"])
async def test_addresses_that_cannot_be(client: Client, address: str) -> None:
    with pytest.raises(UsageError, match="not an address"):
        await client.call("chunkd.hello", address, Empty())


async def test_wrong_uses_are_refused(client: Client) -> None:
    with pytest.raises(ValueError, match="body"):
        await client.call("chunkd.hello", "a:1", Empty(), body=b"x")
    with pytest.raises(ValueError, match="body"):
        await client.call("chunk.write", "a:1", write_request(1))
    with pytest.raises(ValueError, match="stream"):
        async with client.stream("chunkd.hello", "a:1", Empty()):
            pass

    async def pieces() -> AsyncIterator[bytes]:
        yield b"x"

    with pytest.raises(ValueError, match="body_length"):
        await client.call("chunk.write", "a:1", write_request(1), body=pieces())


FOLLOW = FollowEvents(session="s")


async def test_a_stream(nursery: trio.Nursery, client: Client) -> None:
    metad = Metad()
    address = await start(nursery, metad)
    async with client.stream("session.events", address, FOLLOW) as events:
        for number in (1, 2, 3):
            await metad.sender.send(Event(number=number))
            assert (await anext(events)).number == number
        metad.sender.close()
        assert [event async for event in events] == []


async def test_leaving_a_stream_ends_it_at_the_server(
    nursery: trio.Nursery, client: Client
) -> None:
    metad = Metad()
    address = await start(nursery, metad)
    async with client.stream("session.events", address, FOLLOW) as events:
        await metad.sender.send(Event(number=1))
        await anext(events)
    with trio.fail_after(5):
        await metad.stream_ended.wait()


async def test_a_server_that_dies_breaks_the_stream(client: Client) -> None:
    metad = Metad()
    async with trio.open_nursery() as nursery:
        address = await start(nursery, metad)
        async with client.stream("session.events", address, FOLLOW) as events:
            await metad.sender.send(Event(number=1))
            await anext(events)
            nursery.cancel_scope.cancel()
            with (
                trio.CancelScope(shield=True),
                pytest.raises(Unavailable, match=r"session\.events"),
            ):
                await anext(events)


@pytest.mark.parametrize("last", [Event(number=-1), Event(number=1, drop_all=True)])
async def test_a_stream_whose_handler_fails_is_broken(
    nursery: trio.Nursery, client: Client, last: Event, expect_log: Callable[[str], None]
) -> None:
    metad = Metad()
    address = await start(nursery, metad)
    if last.drop_all:
        expect_log("session.events failed unexpectedly")
    async with client.stream("session.events", address, FOLLOW) as events:
        await metad.sender.send(last)
        with pytest.raises(Unavailable, match="cut off"):
            await anext(events)


async def test_a_stream_that_is_not_answered(
    nursery: trio.Nursery, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dfswire.client.DEADLINE_S", 0.1)
    chunkd = Chunkd()
    chunkd.hang = True
    address = await start(nursery, chunkd)
    entry = calls.CALLS["chunkd.hello"]
    as_stream = calls.Call(
        entry.name, entry.service, entry.method, entry.path, Empty, Empty, (), stream=True
    )
    monkeypatch.setitem(calls.CALLS, "chunkd.hello", as_stream)
    with pytest.raises(Unavailable, match="no answer"):
        async with client.stream("chunkd.hello", address, Empty()):
            pass


def _answering(response: httpx.Response) -> Client:
    return Client(transport=httpx.MockTransport(lambda request: response))


@pytest.mark.parametrize(
    "response",
    [
        httpx.Response(200, content=b"junk"),
        httpx.Response(500, content=b"<html>Internal Server Error</html>"),
        httpx.Response(302, headers={"Location": "http://elsewhere/"}),
    ],
)
async def test_answers_that_are_not_ours(response: httpx.Response) -> None:
    with pytest.raises(ProtocolError):
        await _answering(response).call("chunkd.hello", "a:1", Empty())


async def test_a_reply_body_without_its_message() -> None:
    with pytest.raises(ProtocolError, match="DFS-Message"):
        await _answering(httpx.Response(200)).call("chunk.read", "a:1", read_request(1))


async def test_endless_replies_are_refused() -> None:
    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield bytes(MIB)

    with pytest.raises(ProtocolError, match="reply of more than"):
        await _answering(httpx.Response(200, stream=BodyStream(endless()))).call(
            "chunkd.hello", "a:1", Empty()
        )


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (httpx.RemoteProtocolError("odd"), ProtocolError),
        (httpx.ReadTimeout(""), Unavailable),
    ],
)
async def test_errors_of_other_transports(
    raised: httpx.TransportError, expected: type[DFSError]
) -> None:
    def fail(request: httpx.Request) -> httpx.Response:
        raise raised

    client = Client(transport=httpx.MockTransport(fail))
    with pytest.raises(expected, match=r"chunkd\.hello at a:1"):
        await client.call("chunkd.hello", "a:1", Empty())
