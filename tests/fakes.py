"""The network in memory: a transport without sockets, and one that loses things.

Cluster tests give these to `Client`, so whole clusters run in one trio process under MockClock.
Messages still pass through the codec in both directions and bodies are copied, so nothing is shared
by reference that a real network would not share.

The fault model: an address can be unreachable; a request can be lost before it is executed, or its
reply after; it can be executed twice; it can be late; a server can die in the middle of a call or a
stream.  Bytes that arrive are right (TCP), and one connection's bytes stay in order.
"""

from __future__ import annotations

import os
import random
from collections import defaultdict
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import httpx
import trio

from dfswire.bodies import BodyStream, FileRange, Octets
from dfswire.dispatch import Dispatcher, Response
from dfswire.errors import Unavailable
from dfswire.transport import INTO


class DirectTransport(httpx.AsyncBaseTransport):
    """Requests straight into the dispatchers of `routes`, by "host:port".

    With a `nursery` the server's half runs there, so that a caller who gives up does not stop the
    server in the middle, as over a real network.  Without one it runs in the caller's task.
    """

    def __init__(
        self, routes: Mapping[str, Dispatcher], *, nursery: trio.Nursery | None = None
    ) -> None:
        self._routes = dict(routes)
        self._nursery = nursery
        self._under_way: defaultdict[str, set[trio.CancelScope]] = defaultdict(set)

    def up(self, address: str, dispatcher: Dispatcher) -> None:
        """`dispatcher` answers at `address` from now on."""
        self._routes[address] = dispatcher

    def down(self, address: str) -> None:
        """The server at `address` dies: calls under way fail, streams break, no new ones."""
        self._routes.pop(address, None)
        for scope in self._under_way.pop(address, set()):
            scope.cancel()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """One exchange.  Raises httpx.ConnectError, httpx.ReadError."""
        await trio.lowlevel.checkpoint()
        address = request.url.netloc.decode("ascii")
        dispatcher = self._routes.get(address)
        if dispatcher is None:
            raise httpx.ConnectError(f"nobody listens at {address}")
        response = await self._dispatch(address, dispatcher, request)
        headers = [*response.headers]
        if isinstance(response.body, AsyncGenerator):
            stream = BodyStream(_LiveStream(self, address, dispatcher, response.body))
            return httpx.Response(response.status, headers=headers, stream=stream)
        body = _received(request, response.status, _octets(response.body))
        return httpx.Response(response.status, headers=headers, stream=BodyStream(body))

    @contextmanager
    def while_up(self, address: str, dispatcher: Dispatcher) -> Iterator[None]:
        """What runs inside is cancelled when the server dies, and ReadError raised instead."""
        if self._routes.get(address) is not dispatcher:
            raise httpx.ReadError(f"{address} died")
        with trio.CancelScope() as scope:
            self._under_way[address].add(scope)
            try:
                yield
            finally:
                self._under_way[address].discard(scope)
        if scope.cancelled_caught:
            raise httpx.ReadError(f"{address} died")

    async def _dispatch(
        self, address: str, dispatcher: Dispatcher, request: httpx.Request
    ) -> Response:
        if self._nursery is None:
            with self.while_up(address, dispatcher):
                return await _serve(dispatcher, request)
        answer = _Answer()
        self._nursery.start_soon(self._run_apart, address, dispatcher, request, answer)
        try:
            await answer.ready.wait()
        except trio.Cancelled:
            answer.is_wanted = False
            raise
        if answer.response is None:
            raise httpx.ReadError(f"{address} died")
        return answer.response

    async def _run_apart(
        self, address: str, dispatcher: Dispatcher, request: httpx.Request, answer: _Answer
    ) -> None:
        try:
            with self.while_up(address, dispatcher):
                answer.give(await _serve(dispatcher, request))
        except httpx.ReadError:
            answer.give(None)
        except trio.Cancelled:
            answer.give(None)
            raise


class _Answer:
    """Where a server task leaves its response, and says who it is; None when it died before."""

    def __init__(self) -> None:
        self.ready = trio.Event()
        self.response: Response | None = None
        self.server: Dispatcher | None = None
        self.is_wanted = True

    def give(self, response: Response | None, server: Dispatcher | None = None) -> None:
        """Hand over, or clean up when the caller has given up meanwhile."""
        self.response, self.server = response, server
        self.ready.set()
        if not self.is_wanted and response and isinstance(response.body, FileRange):
            response.body.close()


class _LiveStream:
    """A stream of a server that may die."""

    def __init__(
        self,
        network: DirectTransport,
        address: str,
        dispatcher: Dispatcher,
        frames: AsyncGenerator[bytes, None],
    ) -> None:
        self._network = network
        self._address = address
        self._dispatcher = dispatcher
        self._frames = frames

    def __aiter__(self) -> _LiveStream:
        return self

    async def __anext__(self) -> Octets:
        with self._network.while_up(self._address, self._dispatcher):
            return await anext(self._frames)

    async def aclose(self) -> None:
        await self._frames.aclose()


class _Upload:
    """The BodySource of a request in memory: what the client's iterator gives, up to `length`."""

    def __init__(self, request: httpx.Request) -> None:
        assert isinstance(request.stream, BodyStream)
        self._pieces: AsyncIterator[Octets] = request.stream.pieces()
        self._piece = memoryview(b"")
        self.length = self._left = int(request.headers["content-length"])

    async def receive_into(self, buffer: memoryview) -> int:
        await trio.lowlevel.checkpoint()
        while self._left and not self._piece:
            piece = await anext(self._pieces, None)
            if piece is None:
                raise Unavailable(f"body ended {self._left} bytes early")
            self._piece = memoryview(piece)[: self._left]
        count = min(len(buffer), len(self._piece))
        buffer[:count] = self._piece[:count]
        self._piece = self._piece[count:]
        self._left -= count
        return count


async def _serve(dispatcher: Dispatcher, request: httpx.Request) -> Response:
    headers = {name.lower(): value for name, value in request.headers.items()}
    return await dispatcher.dispatch(request.method, request.url.path, headers, _Upload(request))


def _octets(body: Octets | FileRange | AsyncGenerator[bytes, None]) -> bytes:
    if isinstance(body, FileRange):
        try:
            return os.pread(body.fd, body.length, body.offset)
        finally:
            body.close()
    assert not isinstance(body, AsyncGenerator)
    return bytes(body)


def _received(request: httpx.Request, status: int, body: bytes) -> memoryview:
    into: memoryview | None = request.extensions.get(INTO)
    if status != 200 or into is None or len(into) < len(body):
        return memoryview(body)
    into[: len(body)] = body
    return into[: len(body)]


@dataclass(frozen=True)
class Faults:
    """How often each fault happens, as probabilities that add up to at most 1."""

    lost_request: float = 0.0
    lost_reply: float = 0.0
    duplicate: float = 0.0
    delay: float = 0.0


class FaultyTransport(httpx.AsyncBaseTransport):
    """Another transport, with faults.  Deterministic for a given script or seeded `source`.

    `script` has one letter for each request, in order: `.` nothing, `x` the request is lost,
    `r` it is executed and the reply is lost, `d` it is executed twice (the second reply counts),
    `s` it is late by `delay_s`.  After the script, `faults` decide.
    """

    def __init__(
        self,
        inner: httpx.AsyncBaseTransport,
        *,
        script: str = "",
        faults: Faults | None = None,
        source: random.Random | None = None,
        delay_s: float = 1.0,
    ) -> None:
        if unknown := set(script) - set(".xrds"):
            raise ValueError(f"unknown letters in the script: {unknown}")
        self._inner = inner
        self._script = iter(script)
        self._source = source if source is not None else random.Random(0)
        self._delay_s = delay_s
        self.faults = faults if faults is not None else Faults()
        self.history = ""  # the letters of all requests so far, for messages of failing tests

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """One exchange, perhaps with a fault.  Raises httpx.ReadError for what is lost."""
        letter = next(self._script, None) or self._draw()
        self.history += letter
        if letter == "x":
            await trio.lowlevel.checkpoint()
            raise httpx.ReadError("request lost (injected)")
        if letter == "s":
            await trio.sleep(self._delay_s)
        if letter == "d" and _is_repeatable(request):
            await _discard(await self._inner.handle_async_request(request))
        response = await self._inner.handle_async_request(request)
        if letter == "r":
            await _discard(response)
            raise httpx.ReadError("reply lost (injected)")
        return response

    async def aclose(self) -> None:
        await self._inner.aclose()

    def _draw(self) -> str:
        faults = self.faults
        weights = (faults.lost_request, faults.lost_reply, faults.duplicate, faults.delay)
        nothing = 1.0 - sum(weights)
        return self._source.choices(".xrds", (nothing, *weights))[0]


async def _discard(response: httpx.Response) -> None:
    assert isinstance(response.stream, httpx.AsyncByteStream)
    await response.stream.aclose()


def _is_repeatable(request: httpx.Request) -> bool:
    return isinstance(request.stream, BodyStream) and request.stream.memory is not None
