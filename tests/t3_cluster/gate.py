"""A client whose messages wait at a gate until a test lets them pass."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import httpx
import trio

from dfsmount.client import FileSystem
from dfswire.bodies import BodyStream, Octets
from tests.t3_cluster.cluster import Cluster, running_cluster


class Held:
    """One message that waits at the gate."""

    def __init__(self) -> None:
        self.arrived = trio.Event()
        self._go = trio.Event()

    def release(self) -> None:
        self._go.set()

    async def pass_by(self) -> None:
        self.arrived.set()
        await self._go.wait()


class Gate(httpx.AsyncBaseTransport):
    """Holds back the requests or the replies of one client, and breaks or mutes its streams."""

    def __init__(self, inner: httpx.AsyncBaseTransport) -> None:
        self._inner = inner
        self._requests: list[tuple[str, Held]] = []
        self._replies: list[tuple[str, Held]] = []
        self._streams: list[_Stream] = []
        self._lost: dict[str, list[httpx.Request]] = {}
        self.latency: Callable[[], float] = lambda: 0.0  # seconds, each way

    def request(self, path: str) -> Held:
        """The next request with this end of its path waits before it is sent."""
        self._requests.append((path, held := Held()))
        return held

    def reply(self, path: str) -> Held:
        """The reply to the next such request waits before it is received."""
        self._replies.append((path, held := Held()))
        return held

    @contextmanager
    def losing(self, path: str) -> Iterator[list[httpx.Request]]:
        """Such requests get nowhere meanwhile; they are in the list, to be sent again."""
        lost = self._lost[path] = list[httpx.Request]()
        try:
            yield lost
        finally:
            del self._lost[path]

    def break_streams(self) -> None:
        for stream in self._streams:
            stream.cut()

    def mute_streams(self) -> None:
        """Their other ends are gone without a word, as after a power cut."""
        for stream in self._streams:
            stream.muted = True

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        await trio.sleep(self.latency())
        for path, lost in self._lost.items():
            if request.url.path.endswith(path):
                lost.append(request)
                await trio.sleep_forever()
        await _pass(self._requests, request)
        reply_waits = _take(self._replies, request)
        response = await self._inner.handle_async_request(request)
        await trio.sleep(self.latency())
        if reply_waits is not None:
            await reply_waits.pass_by()
        if request.url.path.endswith("session/events") and response.status_code == 200:
            self._streams.append(stream := _Stream(response.stream))
            return httpx.Response(200, headers=response.headers, stream=BodyStream(stream))
        return response

    async def aclose(self) -> None:
        await self._inner.aclose()


class _Stream:
    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self._pieces: AsyncIterator[Octets] = aiter(inner)
        self.muted = False
        self._scope = trio.CancelScope()

    def __aiter__(self) -> _Stream:
        return self

    async def __anext__(self) -> Octets:
        with trio.CancelScope() as self._scope:
            piece = await anext(self._pieces)
            if self.muted:
                await trio.sleep_forever()
            return piece
        raise httpx.ReadError("stream broken (injected)")

    def cut(self) -> None:
        self._scope.cancel()

    async def aclose(self) -> None:
        await self._inner.aclose()


def _take(waiting: list[tuple[str, Held]], request: httpx.Request) -> Held | None:
    for entry in waiting:
        if request.url.path.endswith(entry[0]):
            waiting.remove(entry)
            return entry[1]
    return None


async def _pass(waiting: list[tuple[str, Held]], request: httpx.Request) -> None:
    held = _take(waiting, request)
    if held is not None:
        await held.pass_by()


@asynccontextmanager
async def gated(
    cluster: Cluster, name: str = "a", soft_s: float = 0.0
) -> AsyncIterator[tuple[FileSystem, Gate]]:
    """A client that speaks through a gate, its event stream open."""
    network, gate = cluster.network, Gate(cluster.network)
    context = cluster.client(name, soft_s)
    cluster.network = gate  # type: ignore[assignment]  # a client needs no more of it
    try:
        client = await context.__aenter__()
    finally:
        cluster.network = network
    try:
        await trio.sleep(0.1)
        assert client.session.lease_left_s() > 0
        yield client, gate
    finally:
        await context.__aexit__(None, None, None)


@asynccontextmanager
async def gated_pair(
    rng: random.Random,
) -> AsyncIterator[tuple[Cluster, FileSystem, Gate, FileSystem]]:
    """A cluster with a client behind a gate, and another one."""
    async with (
        running_cluster(rng) as cluster,
        gated(cluster) as (one, gate),
        cluster.client("b") as other,
    ):
        yield cluster, one, gate, other


async def reconnect(gate: Gate) -> Held:
    """Break the client's stream; the request for a new one waits at the gate."""
    held = gate.request("session/events")
    gate.break_streams()
    await held.arrived.wait()
    return held
