"""The transport against a peer that follows a script, connection by connection."""

from __future__ import annotations

import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable

import httpx
import pytest
import trio
import trio.testing

from dfswire import sockets
from dfswire.chunks import SyncChunks
from dfswire.client import Client
from dfswire.errors import ProtocolError, Unavailable
from dfswire.messages import Empty
from dfswire.server import bound_address
from dfswire.sockets import Wire
from dfswire.transport import SocketTransport
from tests.t1_wire.services import Chunkd, start, write_request

HELLO_BODY = bytes.fromhex("84a773657276696365a0a870726f746f636f6c01a8736f667477617265a0aa")
HELLO_BODY += b"cluster_id\xa0"
HELLO = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(HELLO_BODY) + HELLO_BODY

Step = Callable[[trio.SocketStream], Awaitable[None]]


async def answer(stream: trio.SocketStream) -> None:
    """Take one request and answer it."""
    await stream.receive_some()
    await stream.send_all(HELLO)


async def leave(stream: trio.SocketStream) -> None:
    """Take one request and close without an answer."""
    await stream.receive_some()
    await stream.aclose()


async def hear_nothing(stream: trio.SocketStream) -> None:
    """Take one request and leave the connection as it is."""
    await stream.receive_some()


async def think(stream: trio.SocketStream) -> None:
    """Let the other side look several times."""
    await trio.sleep(0.05)


async def reset_now(stream: trio.SocketStream) -> None:
    """Close so that the other side gets a reset."""
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    await stream.aclose()


async def reset(stream: trio.SocketStream) -> None:
    """Take one byte and reset the connection."""
    await stream.receive_some(1)
    await reset_now(stream)


def say(data: bytes) -> Step:
    """Take one request, answer with `data` and close."""

    async def step(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(data)
        await stream.aclose()

    return step


class Peer:
    """A server that treats its n-th connection by the n-th list of steps."""

    def __init__(self, *script: list[Step]) -> None:
        self._script = list(script)
        self.connections = 0
        self.closed_by_client = trio.Event()

    async def serve(
        self, task_status: trio.TaskStatus[list[trio.SocketListener]] = trio.TASK_STATUS_IGNORED
    ) -> None:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        await trio.serve_listeners(self._handle, listeners, task_status=task_status)

    async def _handle(self, stream: trio.SocketStream) -> None:
        steps = self._script[self.connections]
        self.connections += 1
        for step in steps:
            await step(stream)
        if stream.socket.fileno() >= 0 and not await stream.receive_some():
            self.closed_by_client.set()


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    client = Client()
    yield client
    await client.aclose()


async def _start(nursery: trio.Nursery, peer: Peer) -> str:
    listeners = await nursery.start(peer.serve)
    return bound_address(listeners[0])


async def _hello(client: Client, address: str) -> None:
    await client.call("chunkd.hello", address, Empty(), attempts=1)


async def test_a_connection_is_used_again(nursery: trio.Nursery, client: Client) -> None:
    peer = Peer([answer, answer, answer])
    address = await _start(nursery, peer)
    for _ in range(3):
        await _hello(client, address)
    assert peer.connections == 1


async def test_a_connection_closed_while_idle_is_noticed(
    nursery: trio.Nursery, client: Client
) -> None:
    peer = Peer([say(HELLO)], [answer])
    address = await _start(nursery, peer)
    await _hello(client, address)
    await trio.testing.wait_all_tasks_blocked(0.01)
    await client.call("chunk.sync", address, SyncChunks(chunks=[]), attempts=1)
    assert peer.connections == 2


async def test_a_connection_closed_at_the_request_is_replaced(
    nursery: trio.Nursery, client: Client
) -> None:
    peer = Peer([answer, leave], [answer])
    address = await _start(nursery, peer)
    await _hello(client, address)
    await _hello(client, address)
    assert peer.connections == 2


async def test_a_host_that_has_vanished_is_given_up_soon(
    nursery: trio.Nursery, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Real packets are lost in t5_faults; here the kernel only says so."""
    monkeypatch.setattr(sockets, "WATCH_S", 0.01)
    peer = Peer([answer, hear_nothing], [answer, hear_nothing], [answer])
    address = await _start(nursery, peer)
    async with trio.open_nursery() as both:  # two connections, both idle afterwards
        both.start_soon(_hello, client, address)
        both.start_soon(_hello, client, address)
    assert peer.connections == 2
    monkeypatch.setattr(sockets, "retransmits", lambda sock: sockets.UNHEARD_RETRANSMITS)
    with pytest.raises(Unavailable, match="nothing is heard"):
        await client.call("chunkd.hello", address, Empty())  # not tried a second time
    monkeypatch.setattr(sockets, "retransmits", lambda sock: 0)
    await _hello(client, address)
    assert peer.connections == 3  # the idle one was not trusted any more


async def test_a_slow_peer_is_waited_for(
    nursery: trio.Nursery, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sockets, "WATCH_S", 0.01)
    peer = Peer([think, answer])
    await _hello(client, await _start(nursery, peer))


async def test_but_not_for_a_call_that_may_have_happened(
    nursery: trio.Nursery, client: Client
) -> None:
    peer = Peer([answer, leave], [answer])
    address = await _start(nursery, peer)
    await _hello(client, address)
    with pytest.raises(Unavailable, match="before the reply"):
        await client.call("chunk.sync", address, SyncChunks(chunks=[]))
    assert peer.connections == 1


async def test_a_connection_with_unasked_bytes_is_not_used_again(
    nursery: trio.Nursery, client: Client
) -> None:
    async def say_more(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(HELLO + b"HTTP/1.1 200 OK")

    peer = Peer([say_more], [answer])
    address = await _start(nursery, peer)
    await _hello(client, address)
    await _hello(client, address)
    assert peer.connections == 2


@pytest.mark.parametrize("looks", [True, False])
async def test_a_connection_reset_while_idle_is_replaced(
    nursery: trio.Nursery, client: Client, looks: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even for a call that is not idempotent: nothing of it was sent."""
    go = trio.Event()

    async def wait(stream: trio.SocketStream) -> None:
        await go.wait()
        await reset_now(stream)

    peer = Peer([answer, wait], [answer])
    address = await _start(nursery, peer)
    await _hello(client, address)
    go.set()
    await trio.testing.wait_all_tasks_blocked(0.01)
    if not looks:
        monkeypatch.setattr(Wire, "has_input", lambda self: False)
    # it reaches the second connection, whose answer is no SyncReply but decodes as one
    await client.call("chunk.sync", address, SyncChunks(chunks=[]))
    assert peer.connections == 2


@pytest.mark.parametrize("step", [leave, reset])
async def test_a_fresh_connection_that_closes_is_an_error(
    nursery: trio.Nursery, client: Client, step: Step
) -> None:
    address = await _start(nursery, Peer([step]))
    with pytest.raises(Unavailable, match="before the reply"):
        await _hello(client, address)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (HELLO[:20], Unavailable),
        (HELLO[:-5], Unavailable),
        (b"SSH-2.0-OpenSSH_9\r\n\r\n", ProtocolError),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n", ProtocolError),
        (b"x" * 100_000, ProtocolError),
    ],
)
async def test_broken_replies(
    nursery: trio.Nursery, client: Client, data: bytes, expected: type[Exception]
) -> None:
    address = await _start(nursery, Peer([say(data)]))
    with pytest.raises(expected):
        await _hello(client, address)


async def test_a_peer_that_resets_inside_an_upload(nursery: trio.Nursery, client: Client) -> None:
    address = await _start(nursery, Peer([reset]))
    with pytest.raises(Unavailable):
        body = bytes(16 << 20)
        await client.call("chunk.write", address, write_request(len(body)), body=body, attempts=1)


async def test_a_stream_that_is_reset(nursery: trio.Nursery, client: Client) -> None:
    go = trio.Event()

    async def begin(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(b"HTTP/1.1 200 OK\r\n\r\n\0\0\0\1")
        await go.wait()
        await reset_now(stream)

    address = await _start(nursery, Peer([begin]))
    request = httpx.Request("GET", f"http://{address}/v1/hello")
    response = await SocketTransport().handle_async_request(request)
    assert isinstance(response.stream, httpx.AsyncByteStream)
    pieces = aiter(response.stream)
    assert await anext(pieces) == b"\0\0\0\1"
    go.set()
    with pytest.raises(httpx.ReadError):
        await anext(pieces)
    await response.stream.aclose()


async def test_cancellation_closes_the_connection(nursery: trio.Nursery, client: Client) -> None:
    async def take(stream: trio.SocketStream) -> None:
        await stream.receive_some()

    peer = Peer([take], [answer])
    address = await _start(nursery, peer)
    with pytest.raises(Unavailable, match="no answer"):
        await client.call("chunkd.hello", address, Empty(), deadline_s=0.05)
    with trio.fail_after(5):
        await peer.closed_by_client.wait()
    await _hello(client, address)
    assert peer.connections == 2


async def test_the_pool_is_bounded_and_expires(
    nursery: trio.Nursery, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = Peer([answer], [answer], [answer]), Peer([answer])
    address = await _start(nursery, first)
    monkeypatch.setattr("dfswire.transport.IDLE_MAX", 0)
    await _hello(client, address)
    with trio.fail_after(5):
        await first.closed_by_client.wait()
    monkeypatch.setattr("dfswire.transport.IDLE_MAX", 1)
    await _hello(client, address)
    monkeypatch.setattr("dfswire.transport.IDLE_S", 0.0)
    first.closed_by_client = trio.Event()
    await _hello(client, await _start(nursery, second))  # expires those of every address
    with trio.fail_after(5):
        await first.closed_by_client.wait()
    await _hello(client, address)
    assert first.connections == 3


async def test_connecting_takes_two_seconds_at_most(
    client: Client, autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never(host: str, port: int) -> trio.SocketStream:
        await trio.sleep_forever()
        raise AssertionError

    monkeypatch.setattr(trio, "open_tcp_stream", never)
    started = trio.current_time()
    with pytest.raises(Unavailable, match="no connection within 2 s"):
        await _hello(client, "host:1")
    assert trio.current_time() == started + 2


async def test_an_ordinary_httpx_client_can_use_it(nursery: trio.Nursery) -> None:
    address = await start(nursery, Chunkd())
    headers = {"Accept": "application/json"}
    async with httpx.AsyncClient(transport=SocketTransport(), trust_env=False) as client:
        reply = await client.get(f"http://{address}/v1/hello", headers=headers)
        assert reply.json()["service"] == "chunkd"
        reply = await client.post(f"http://{address}/v1/chunk/sync", content=bytes(100_000))
        assert reply.status_code == 400
