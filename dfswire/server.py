"""The HTTP server of the daemons: sockets in front of a `Dispatcher`.

Only `metad.__main__` and `chunkd.__main__` import it.  Each connection is one task that serves
requests in order and keeps the connection alive between them.  Everything a peer can do is bounded:
the number of connections, the size of heads and bodies, and the time without progress.  What is
malformed is answered with a 4xx and the connection closed; the server goes on.
"""

from __future__ import annotations

import logging
import math
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio

from dfswire import heads, securesockets
from dfswire.bodies import FileRange, Octets
from dfswire.daemon import parse_address
from dfswire.dispatch import Dispatcher, Response, fault_response
from dfswire.errors import Forbidden, ProtocolError, Unavailable, UsageError
from dfswire.heads import RequestHead
from dfswire.messages import CHUNK_MAX_BYTES, MESSAGE_MAX_BYTES
from dfswire.sockets import Wire

if TYPE_CHECKING:  # the library behind it costs what not everybody need pay
    from dfswire.credentials import Credentials

log = logging.getLogger(__name__)

LOOK_S = 10.0  # how often a stream is looked at, whether its peer is still trusted
REFUSALS_TOLD_S = 1.0
JOIN_MAX_BYTES = 65_536  # a reply up to this size goes out together with its head


@dataclass(frozen=True)
class Limits:
    """What one server grants its peers."""

    connections: int = 1024
    handshakes: int = 128  # under way at once, with TLS; one more ends the oldest
    head_s: float = 10.0  # from the first byte of a head to its last
    idle_s: float = 60.0  # between requests; clients drop idle connections earlier, after 45 s
    stall_s: float = 30.0  # a reply of which the peer takes nothing for so long is given up
    linger_s: float = 2.0  # for a peer that is still sending when it has been answered
    body_bytes: int = max(CHUNK_MAX_BYTES, MESSAGE_MAX_BYTES)


DEFAULT_LIMITS = Limits()


async def listen(address: str) -> list[trio.SocketListener]:
    """Listeners on "host:port"; port 0 chooses a free one.  Raises UsageError."""
    host, port = parse_address(address)
    try:
        return await trio.open_tcp_listeners(port, host=host)
    except OSError as problem:
        raise UsageError(f"cannot listen on {address}: {problem}") from problem


def bound_address(listener: trio.SocketListener) -> str:
    """The "host:port" that a listener really has."""
    host, port = listener.socket.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


async def serve(
    dispatcher: Dispatcher,
    listeners: Sequence[trio.SocketListener],
    *,
    limits: Limits = DEFAULT_LIMITS,
    credentials: Credentials | None = None,
    task_status: trio.TaskStatus[list[trio.SocketListener]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until cancelled; then all connections and listeners are closed.

    With `credentials` only who proves by a certificate to be of the cluster is answered.

    When file descriptors run out, trio's accept loop logs it and tries again every 100 ms.
    """
    server = _Server(dispatcher, limits, credentials)
    await trio.serve_listeners(server.handle, list(listeners), task_status=task_status)


class _RequestBody:
    """The BodySource of one request on one connection."""

    def __init__(self, wire: Wire, length: int) -> None:
        self._wire = wire
        self.length = length
        self.remaining = length

    async def receive_into(self, buffer: memoryview) -> int:
        if not self.remaining:
            return 0
        try:
            count = await self._wire.receive_into(buffer[: self.remaining])
        except OSError as problem:
            raise Unavailable(f"connection lost inside a request: {problem}") from problem
        if not count:
            raise Unavailable(f"connection closed {self.remaining} bytes before the body's end")
        self.remaining -= count
        return count


class _Server:
    """The connections of one `serve`."""

    def __init__(
        self, dispatcher: Dispatcher, limits: Limits, credentials: Credentials | None
    ) -> None:
        self._dispatcher = dispatcher
        self._limits = limits
        self._credentials = credentials
        self._connections = 0
        self._handshakes: dict[trio.CancelScope, None] = {}  # under way, the oldest first
        self._refusals: dict[str, tuple[float, int]] = {}  # by reason: told when, how many since

    async def handle(self, stream: trio.SocketStream) -> None:
        """One connection from accept to close.  Raises nothing but cancellation."""
        wire: Wire | None = None
        try:
            wire = await self._begin(stream)
            await self._serve(wire)
        except (OSError, EOFError, trio.TooSlowError) as problem:
            # The peer is gone, or its reply cannot be completed: closing says both.
            log.debug("connection given up: %s", problem)
        finally:
            if wire is not None:
                wire.close()

    async def _serve(self, wire: Wire) -> None:
        self._connections += 1
        try:
            if self._connections > self._limits.connections:
                await self._refuse(wire, fault_response(Unavailable("too many connections")))
                return
            while await self._serve_request(wire):
                pass
        finally:
            self._connections -= 1

    async def _begin(self, stream: trio.SocketStream) -> Wire:
        """Raises OSError, TooSlowError; then the socket is closed already."""
        if self._credentials is None:
            return Wire.from_stream(stream, stall_s=self._limits.stall_s)
        where = _peer_address(stream)
        scope = trio.CancelScope(deadline=trio.current_time() + self._limits.head_s)
        self._handshakes[scope] = None
        if len(self._handshakes) > self._limits.handshakes:
            # A member's takes milliseconds: the oldest is of somebody who only keeps a place.
            next(iter(self._handshakes)).cancel()
        try:
            with scope:
                return await securesockets.accept(
                    stream,
                    self._credentials,
                    stall_s=self._limits.stall_s,
                    without_tls=_refusal_without_tls(),
                )
        except securesockets.Untrusted as problem:
            self._note_refusal(where, str(problem))
            raise
        finally:
            del self._handshakes[scope]
        raise trio.TooSlowError("no handshake in time")

    def _note_refusal(self, where: str, reason: str) -> None:
        """A line a second for each reason: strangers must not fill the log."""
        now = trio.current_time()
        told_s, untold = self._refusals.get(reason, (-math.inf, 0))
        if now - told_s < REFUSALS_TOLD_S:
            self._refusals[reason] = (told_s, untold + 1)
            return
        others = f" ({untold} more since this was said last)" if untold else ""
        log.info("connection from %s refused: %s%s", where, reason, others)
        self._refusals[reason] = (now, 0)

    async def _serve_request(self, wire: Wire) -> bool:
        """Serve one request; whether another may follow on this connection."""
        request = await self._receive_request(wire)
        if request is None or wire.left_s <= 0:
            return False
        body = _RequestBody(wire, request.length)
        if request.expects_continue:
            await wire.send(heads.CONTINUE)
        response = await self._dispatcher.dispatch(
            request.method, request.path, request.headers, body, wire.peer, wire.shown
        )
        keep_alive = request.keep_alive and not body.remaining and wire.left_s > 0
        await self._reply(wire, response, keep_alive=keep_alive)
        if body.remaining:
            await wire.linger(self._limits.linger_s)
        return keep_alive and not isinstance(response.body, AsyncGenerator)

    async def _receive_request(self, wire: Wire) -> RequestHead | None:
        """The next head; None when there is none and the connection is to be closed."""
        with trio.move_on_after(min(self._limits.idle_s, wire.left_s)) as idle:
            await wire.wait_input()
        if idle.cancelled_caught:
            return None
        try:
            with trio.fail_after(self._limits.head_s):
                head = await wire.receive_head()
            return None if head is None else heads.parse_request(head, self._limits.body_bytes)
        except trio.TooSlowError:
            refusal = fault_response(Unavailable("the request's head came too slowly"), status=408)
        except ProtocolError as problem:
            refusal = fault_response(problem)
        await self._refuse(wire, refusal)
        return None

    async def _refuse(self, wire: Wire, refusal: Response) -> None:
        """Answer before the end of a connection whose further input means nothing."""
        await self._reply(wire, refusal, keep_alive=False)
        await wire.linger(self._limits.linger_s)

    async def _reply(self, wire: Wire, response: Response, *, keep_alive: bool) -> None:
        body = response.body
        if isinstance(body, FileRange):
            try:
                await wire.send(_head(response, body.length, keep_alive), more=True)
                await wire.send_file(body)
            finally:
                body.close()
        elif isinstance(body, AsyncGenerator):
            await wire.send(_head(response, None, keep_alive))
            await self._send_stream(wire, body)
        else:
            await self._send_memory(wire, _head(response, len(body), keep_alive), body)

    async def _send_memory(self, wire: Wire, head: bytes, body: Octets) -> None:
        if len(body) <= JOIN_MAX_BYTES:
            await wire.send(head + body)
        else:
            await wire.send(head, more=True)
            await wire.send(body)

    async def _send_stream(self, wire: Wire, frames: AsyncGenerator[bytes, None]) -> None:
        """Send frames until they end or the peer closes, which is noticed at once, not only at
        the next frame."""
        async with aclosing(frames), trio.open_nursery() as nursery:
            nursery.start_soon(self._cancel_at_input, wire, nursery.cancel_scope)
            nursery.start_soon(self._cancel_at_end, wire, nursery.cancel_scope)
            await self._send_frames(wire, frames)
            nursery.cancel_scope.cancel()

    async def _cancel_at_end(self, wire: Wire, scope: trio.CancelScope) -> None:
        """When what the peer has proved is not good any more: it may come back with newer proof."""
        # Time passes, files change, somebody is revoked: nobody tells.
        while self._dispatcher.admits(wire.peer, wire.shown):
            left_s = wire.left_s
            if not left_s:
                break
            await trio.sleep(min(left_s, LOOK_S))
        scope.cancel()

    async def _send_frames(self, wire: Wire, frames: AsyncGenerator[bytes, None]) -> None:
        try:
            async for frame in frames:
                await wire.send(frame)
        except (OSError, trio.TooSlowError) as problem:
            log.debug("stream given up: %s", problem)

    async def _cancel_at_input(self, wire: Wire, scope: trio.CancelScope) -> None:
        # A client has nothing to say on a stream: input is its end, or nonsense.
        await wire.wait_input()
        scope.cancel()


def _refusal_without_tls() -> bytes:
    text = "this server speaks TLS only: name your credentials (tls, -o tls=, DFS_TLS)"
    refusal = fault_response(Forbidden(text))
    body = refusal.body
    assert isinstance(body, bytes)
    return _head(refusal, len(body), keep_alive=False) + body


def _peer_address(stream: trio.SocketStream) -> str:
    try:
        host, port = stream.socket.getpeername()[:2]
    except OSError:
        return "an unknown address"  # it has gone already
    return f"{host}:{port}"


def _head(response: Response, length: int | None, keep_alive: bool) -> bytes:
    return heads.render_response(response.status, response.headers, length, close=not keep_alive)
