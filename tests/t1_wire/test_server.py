"""The server against peers that are slow, broken or hostile; it must answer, close, and go on."""

from __future__ import annotations

import errno
import random
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import trio

from dfswire import codec
from dfswire.bodies import BodySource
from dfswire.client import Client
from dfswire.errors import Unavailable, UsageError
from dfswire.messages import Empty, Event, Fault, Invalidation
from dfswire.metadata import FollowEvents
from dfswire.server import Limits, bound_address, listen
from tests.t1_wire.services import Chunkd, dispatcher, read_request, start, write_request
from tests.t1_wire.test_heads import SMUGGLING
from tests.t1_wire.test_transport import reset_now

HELLO = b"GET /v1/hello HTTP/1.1\r\nHost: a\r\n\r\n"
QUICK = Limits(head_s=0.2, idle_s=0.3, stall_s=0.3, linger_s=0.3)


@pytest.fixture
async def chunkd() -> AsyncIterator[Chunkd]:
    yield Chunkd()


@pytest.fixture
async def address(nursery: trio.Nursery, chunkd: Chunkd) -> str:
    return await start(nursery, chunkd, QUICK)


async def _connect(address: str) -> trio.SocketStream:
    host, port = address.split(":")
    return await trio.open_tcp_stream(host, int(port))


async def _read_all(stream: trio.SocketStream) -> bytes:
    received = bytearray()
    with trio.fail_after(5):
        async for piece in stream:
            received += piece
    return bytes(received)


async def _talk(address: str, data: bytes) -> tuple[int, bytes]:
    """Send bytes; the status of the first reply, and all that came until the server closed."""
    async with await _connect(address) as stream:
        await stream.send_all(data)
        reply = await _read_all(stream)
    return int(reply.split(b" ", 2)[1]) if reply else 0, reply


def _open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def _assert_alive(address: str) -> None:
    client = Client()
    assert (await client.call("chunkd.hello", address, Empty())).service == "chunkd"
    await client.aclose()


@pytest.mark.parametrize("lines", SMUGGLING.values(), ids=SMUGGLING.keys())
async def test_ambiguous_requests_close_the_connection(address: str, lines: list[bytes]) -> None:
    data = b"\r\n".join([b"GET /v1/hello HTTP/1.1", b"Host: a", *lines]) + b"\r\n\r\n" + HELLO
    status, reply = await _talk(address, data)
    assert status == 400
    assert reply.count(b"HTTP/1.1") == 1, "the smuggled request was answered"
    assert codec.decode(Fault, reply.partition(b"\r\n\r\n")[2]).code == "protocol"
    await _assert_alive(address)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"GET /v1/hello HTTP/1.1\nHost: a\n\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\r\n\r\n", 400),  # TLS
        (b"A" * 100_000, 400),
        (b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 10_000, 400),
        (b"PUT /v1/chunk/write HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999\r\n\r\n", 400),
        (b"GET /v1/nothing HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", 404),
        (b"GET /v1/hello HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\njunk", 400),
        (b"HEAD /v1/hello HTTP/1.1\r\nHost: a\r\n\r\n", 404),
    ],
)
async def test_bad_requests_are_answered(address: str, data: bytes, expected: int) -> None:
    if expected == 400 and data.endswith(b"junk"):
        data += b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    status, _ = await _talk(address, data)
    assert status == expected
    await _assert_alive(address)


async def test_random_bytes_do_no_harm(address: str, rng: random.Random) -> None:
    for _ in range(20):
        data = rng.randbytes(rng.randrange(1, 2000))
        status, _ = await _talk(address, data + rng.choice([b"", b"\r\n\r\n", HELLO]))
        assert status in (0, 400, 408)
    await _assert_alive(address)


async def test_several_requests_on_one_connection(address: str, chunkd: Chunkd) -> None:
    last = HELLO.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    status, reply = await _talk(address, HELLO + HELLO + last)
    assert status == 200
    assert chunkd.counts["hello"] == reply.count(b"HTTP/1.1 200") == 3


async def test_http_1_0_gets_one_reply(address: str) -> None:
    status, reply = await _talk(address, b"GET /v1/hello HTTP/1.0\r\n\r\n" + HELLO)
    assert status == 200
    assert reply.count(b"HTTP/1.1") == 1


async def test_a_slow_head_is_given_up(address: str) -> None:
    status, reply = await _talk(address, HELLO[:20])
    assert status == 408
    assert b"Connection: close" in reply


async def test_an_idle_connection_is_closed(address: str) -> None:
    assert await _talk(address, b"") == (0, b"")


async def test_a_peer_that_leaves_inside_a_head_or_body(address: str) -> None:
    put = b"PUT /v1/chunk/write HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\nDFS-Message: "
    put += codec.to_header(write_request(9)) + b"\r\n\r\nabc"
    for data in (HELLO[:10], put):
        async with await _connect(address) as stream:
            await stream.send_all(data)
            await stream.send_eof()
            reply = await _read_all(stream)
        assert not reply or reply.startswith(b"HTTP/1.1 503")
    await _assert_alive(address)


async def test_a_reset_inside_a_body(address: str, chunkd: Chunkd) -> None:
    head = b"PUT /v1/chunk/write HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\nDFS-Message: "
    stream = await _connect(address)
    await stream.send_all(head + codec.to_header(write_request(9)) + b"\r\n\r\nabc")
    await chunkd.called.wait()
    await reset_now(stream)
    await _assert_alive(address)


async def test_a_body_that_is_refused_unread_gets_its_reply(address: str, chunkd: Chunkd) -> None:
    """Without lingering, the reset that follows unread input would destroy the reply."""
    body = bytes(8 << 20)
    head = b"PUT /v1/chunk/write HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\nDFS-Message: " % len(
        body
    )
    head += codec.to_header(write_request(len(body), disk="full")) + b"\r\n\r\n"
    status, reply = await _talk(address, head + body)
    assert status == 409
    assert b"Connection: close" in reply


async def test_expect_continue(address: str, chunkd: Chunkd) -> None:
    head = b"PUT /v1/chunk/write HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nConnection: close\r\n"
    head += (
        b"Expect: 100-continue\r\nDFS-Message: " + codec.to_header(write_request(3)) + b"\r\n\r\n"
    )
    async with await _connect(address) as stream:
        await stream.send_all(head)
        assert await stream.receive_some(25) == b"HTTP/1.1 100 Continue\r\n\r\n"
        await stream.send_all(b"abc")
        assert (await _read_all(stream)).startswith(b"HTTP/1.1 200")
    assert chunkd.content == b"abc"


async def test_too_many_connections_are_refused(nursery: trio.Nursery, chunkd: Chunkd) -> None:
    address = await start(nursery, chunkd, Limits(connections=3))
    streams = [await _connect(address) for _ in range(3)]
    client = Client()
    for stream in streams:  # each is being served once it has had an answer
        await stream.send_all(HELLO)
        await stream.receive_some(10)
    with pytest.raises(Unavailable, match="too many"):
        await client.call("chunkd.hello", address, Empty(), attempts=1)
    for stream in streams:
        await stream.aclose()
    await client.call("chunkd.hello", address, Empty())
    await client.aclose()


async def test_a_peer_that_takes_no_reply_is_given_up(address: str, chunkd: Chunkd) -> None:
    chunkd.content = bytes(16 << 20)
    message = codec.encode(read_request(16 << 20, disk="file"))
    head = b"POST /v1/chunk/read HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(message)
    open_before = _open_files()
    async with await _connect(address) as stream:
        await stream.send_all(head + message)
        await trio.sleep(QUICK.stall_s * 2)
        received = await _read_all(stream)
    assert 0 < len(received) < len(chunkd.content)
    assert _open_files() == open_before


class _Flood:
    """A metad whose event stream never pauses."""

    def __init__(self) -> None:
        self.ended = trio.Event()
        self.dispatcher = dispatcher("metad", {"session.events": self.events})

    async def events(self, request: FollowEvents, body: BodySource) -> AsyncIterator[Event]:
        return self._events()

    async def _events(self) -> AsyncIterator[Event]:
        forget = Invalidation(inode=1, what=4, name=b"n" * 255)
        try:
            while True:
                yield Event(number=1, invalidations=[forget] * 4096)
        finally:
            self.ended.set()


async def test_a_stream_of_which_nothing_is_taken_is_given_up(nursery: trio.Nursery) -> None:
    metad = _Flood()
    address = await start(nursery, metad, QUICK)
    client = Client()
    async with client.stream("session.events", address, FollowEvents(session="s")):
        with trio.fail_after(5):
            await metad.ended.wait()
    await client.aclose()


async def test_a_file_that_is_too_short_closes_the_connection(address: str, chunkd: Chunkd) -> None:
    chunkd.content = b"short"
    client = Client()
    with pytest.raises(Unavailable, match="before the reply's end"):
        await client.call("chunk.read", address, read_request(100, disk="file"), attempts=1)
    await client.aclose()


async def test_cancellation_closes_connections_and_listeners(chunkd: Chunkd) -> None:
    async with trio.open_nursery() as nursery:
        address = await start(nursery, chunkd)
        stream = await _connect(address)
        await stream.send_all(HELLO)
        await stream.receive_some(10)
        nursery.cancel_scope.cancel()
    await _read_all(stream)
    await stream.aclose()
    with pytest.raises(OSError, match="connect"):
        await _connect(address)


async def test_running_out_of_descriptors_is_survived(
    nursery: trio.Nursery,
    chunkd: Chunkd,
    expect_log: Callable[[str], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    expect_log("accept")
    real, failures = trio.SocketListener.accept, [1]

    async def accept(self: trio.SocketListener) -> trio.SocketStream:
        if failures:
            failures.pop()
            raise OSError(errno.EMFILE, "out of files")
        return await real(self)

    monkeypatch.setattr(trio.SocketListener, "accept", accept)
    await _assert_alive(await start(nursery, chunkd))


async def test_listening_where_one_cannot() -> None:
    (listener,) = await listen("127.0.0.1:0")
    async with listener:
        with pytest.raises(UsageError, match="cannot listen"):
            await listen(bound_address(listener))


async def test_the_address_of_an_ipv6_listener() -> None:
    (listener,) = await listen("[::1]:0")
    async with listener:
        assert bound_address(listener).startswith("[::1]:")
