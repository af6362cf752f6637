"""The one way to call a daemon: a call's name, an address, a message.

Used by the mount, the chunkds, the command line and the tests; the transport underneath is real
sockets or a fake.  Every call ends within its deadline.  A call that the table says is idempotent
is tried again after a jittered pause when the peer was not reached; any other is made once, because
its outcome is unknown then.  What a peer answers as an error is raised as the same class here.
"""

from __future__ import annotations

import functools
import itertools
import random
import secrets
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import httpx
import msgspec
import trio

from dfswire import codec
from dfswire.bodies import BodyStream, FrameReader, Octets, close_iterator
from dfswire.calls import (
    CALLS,
    DEADLINE_HEADER,
    MESSAGE_HEADER,
    REQUEST_ID_HEADER,
    VERSION_HEADER,
    Call,
)
from dfswire.daemon import REQUEST_ID, parse_address
from dfswire.errors import ProtocolError, Unavailable, from_code
from dfswire.messages import MESSAGE_MAX_BYTES, PROTOCOL_VERSION, Fault
from dfswire.transport import IDEMPOTENT, INTO, SERVICE, SocketTransport

if TYPE_CHECKING:  # the library behind it costs what not everybody need pay
    from dfswire.credentials import Credentials

DEADLINE_S = 5.0
ATTEMPTS = 3
PAUSE_S = 0.05  # before the second attempt; doubles each time, times 0.5 to 1.5


@dataclass(frozen=True)
class _Outgoing:
    """One call ready to be sent, as often as needed."""

    call: Call
    address: str
    message: msgspec.Struct
    body: Octets | AsyncIterator[Octets] | None = None
    body_length: int | None = None
    into: memoryview | None = None


class Client:
    """Calls to any number of daemons.  Many tasks may use one client at once."""

    def __init__(
        self,
        *,
        transport: httpx.AsyncBaseTransport | None = None,
        credentials: Credentials | None = None,
        jitter: random.Random | None = None,
    ) -> None:
        """`transport`: None for TCP, with `credentials` under TLS.  `jitter`: the source of pauses,
        seeded in simulations."""
        # The transport is called without an httpx.AsyncClient around it: cookies, redirects,
        # authentication and environment, none of which dfs uses, cost 45 us of a 200 us call.
        self._transport = transport if transport is not None else SocketTransport(credentials)
        self._jitter = jitter if jitter is not None else random.Random()
        self._id_prefix = secrets.token_hex(4)
        self._ids = itertools.count(1)

    async def call(
        self,
        name: str,
        address: str,
        request: msgspec.Struct,
        *,
        deadline_s: float = DEADLINE_S,
        attempts: int | None = None,
        body: Octets | AsyncIterator[Octets] | None = None,
        body_length: int | None = None,
        into: memoryview | None = None,
    ) -> Any:
        """Make the call `name` of the call table and return its reply.

        For reply_body calls the result is (message, memoryview of the octets), the view being of
        `into` when that is given and long enough.  `body` goes with request_body calls; an
        iterator needs `body_length`, is sent once, and is closed in any case.  `attempts` None: 3
        for idempotent calls.

        Raises the DFSError that the peer answered; Unavailable when it was not reached or did not
        answer within `deadline_s`; ProtocolError when it answered nonsense.
        """
        call = CALLS[name]
        if call.request_body != (body is not None) or call.stream:
            raise ValueError(f"{name}: body or kind of call does not fit the call table")
        outgoing = _Outgoing(call, address, request, body, body_length, into)
        repeatable = call.idempotent and not isinstance(body, AsyncIterator)
        tries = attempts if attempts is not None else ATTEMPTS if repeatable else 1
        try:
            with trio.fail_after(deadline_s):
                return await self._try(outgoing, tries)
        except trio.TooSlowError as problem:
            text = f"{name} at {address}: no answer within {deadline_s:g} s"
            raise Unavailable(text) from problem
        finally:
            if isinstance(body, AsyncIterator):
                await close_iterator(body)

    @asynccontextmanager
    async def stream(
        self, name: str, address: str, request: msgspec.Struct
    ) -> AsyncGenerator[AsyncIterator[Any], None]:
        """The messages of a stream call.  The iterator ends when the peer says so.

        Raises as `call` does; the iterator raises Unavailable when the stream breaks.
        """
        call = CALLS[name]
        if not call.stream:
            raise ValueError(f"{name} is not a stream")
        try:
            with trio.fail_after(DEADLINE_S):
                response = await self._send(_Outgoing(call, address, request))
        except trio.TooSlowError as problem:
            text = f"{name} at {address}: no answer within {DEADLINE_S:g} s"
            raise Unavailable(text) from problem
        try:
            async with aclosing(_messages(call, address, response)) as messages:
                yield messages
        finally:
            await _stream_of(response).aclose()

    async def aclose(self) -> None:
        """Close idle connections.  Calls under way are not disturbed."""
        await self._transport.aclose()

    async def _try(self, outgoing: _Outgoing, tries: int) -> Any:
        for pause_s in self._pauses(tries - 1):
            try:
                return await self._once(outgoing)
            except Unavailable as problem:
                if _was_silence(problem):
                    raise
                if trio.current_time() + pause_s >= trio.current_effective_deadline():
                    raise
                await trio.sleep(pause_s)
        return await self._once(outgoing)

    def _pauses(self, count: int) -> list[float]:
        return [PAUSE_S * 2**n * self._jitter.uniform(0.5, 1.5) for n in range(count)]

    async def _once(self, outgoing: _Outgoing) -> Any:
        response = await self._send(outgoing)
        body = await _collect(response)
        call = outgoing.call
        if not call.reply_body:
            return codec.decode(call.reply, body)
        message = response.headers.get(MESSAGE_HEADER)
        if message is None:
            raise ProtocolError(f"{call.name} at {outgoing.address}: no {MESSAGE_HEADER}")
        return codec.from_header(call.reply, message.encode()), body

    async def _send(self, outgoing: _Outgoing) -> httpx.Response:
        """Send once; a reply with status 200 comes back, any other is raised."""
        where = f"{outgoing.call.name} at {outgoing.address}"
        request = self._request(outgoing)
        try:
            response = await self._transport.handle_async_request(request)
            if response.status_code == 200:
                return response
            fault = codec.decode(Fault, await _collect(response))
        except httpx.RemoteProtocolError as problem:
            raise ProtocolError(f"{where}: {problem}") from problem
        except httpx.TransportError as problem:
            raise Unavailable(f"{where}: {problem or type(problem).__name__}") from problem
        raise from_code(fault.code, fault.message, fault.told)

    def _request(self, outgoing: _Outgoing) -> httpx.Request:
        call, url = outgoing.call, _url(outgoing.address, outgoing.call.path)
        left_s = max(trio.current_effective_deadline() - trio.current_time(), 0)
        request_id = REQUEST_ID.get() or f"{self._id_prefix}-{next(self._ids):x}"
        headers = [
            (b"Host", url.netloc),
            (VERSION_HEADER.encode(), b"%d" % PROTOCOL_VERSION),
            (REQUEST_ID_HEADER.encode(), request_id.encode()),
            (DEADLINE_HEADER.encode(), b"%.3f" % left_s),
        ]
        if outgoing.body is None:
            content: Octets | AsyncIterator[Octets] = codec.encode(outgoing.message)
            headers.append((b"Content-Type", codec.MSGPACK.encode()))
        else:
            content = outgoing.body
            headers.append((MESSAGE_HEADER.encode(), codec.to_header(outgoing.message)))
        length = outgoing.body_length if isinstance(content, AsyncIterator) else len(content)
        if length is None:
            raise ValueError(f"{call.name}: a body that is an iterator needs body_length")
        headers.append((b"Content-Length", b"%d" % length))
        extensions: dict[str, Any] = {
            IDEMPOTENT: call.idempotent,
            INTO: outgoing.into,
            SERVICE: call.service,
        }
        return httpx.Request(
            call.method, url, headers=headers, stream=BodyStream(content), extensions=extensions
        )


def _was_silence(problem: Unavailable) -> bool:
    """Nothing was heard of the peer for long: it has had its chance, and others may answer."""
    return isinstance(problem.__cause__, httpx.TimeoutException)


@functools.lru_cache(maxsize=4096)
def _url(address: str, path: str) -> httpx.URL:
    """Kept, because parsing one costs as much as the rest of a request."""
    host, port = parse_address(address)
    return httpx.URL(f"http://{f'[{host}]' if ':' in host else host}:{port}{path}")


def _stream_of(response: httpx.Response) -> httpx.AsyncByteStream:
    stream = response.stream
    if not isinstance(stream, httpx.AsyncByteStream):
        raise TypeError("the transport gave a reply that is not asynchronous")
    return stream


async def _collect(response: httpx.Response) -> memoryview:
    """The whole body; without a copy when the transport has it in memory already."""
    stream = _stream_of(response)
    if isinstance(stream, BodyStream) and stream.memory is not None:
        return stream.memory
    body = bytearray()
    pieces = aiter(stream)
    try:
        async for piece in pieces:
            body += piece
            if len(body) > MESSAGE_MAX_BYTES:
                raise ProtocolError(f"reply of more than {MESSAGE_MAX_BYTES} bytes")
    finally:
        await close_iterator(pieces)
        await stream.aclose()
    return memoryview(body)


async def _messages(
    call: Call, address: str, response: httpx.Response
) -> AsyncGenerator[Any, None]:
    """The decoded frames of a stream, up to the empty frame that ends it."""
    pieces = aiter(_stream_of(response))
    reader = FrameReader()
    try:
        async for piece in pieces:
            for data in reader.feed(piece):
                if not data:
                    return
                yield codec.decode(call.reply, data)
    except httpx.TransportError as problem:
        raise Unavailable(f"{call.name} at {address}: {problem}") from problem
    finally:
        await close_iterator(pieces)
    raise Unavailable(f"{call.name} at {address}: stream cut off")
