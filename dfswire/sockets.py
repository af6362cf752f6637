"""A connected TCP socket as server and client use it: heads, bodies, files.

Bodies go between the socket and the caller's memory (`recv_into`) or file (`sendfile`) without a
copy in between.  trio's own socket type passes through the scheduler at every successful receive,
which for a 4 MiB chunk means dozens of passes; here a task waits only when the kernel has nothing.
Errors come out as OSError or Unheard, for the user of this module to translate.  TCP itself waits a
quarter of an hour for a host that has vanished; who has others to ask must know sooner.
"""

from __future__ import annotations

import math
import os
import socket
from collections.abc import Awaitable, Callable

import trio

from dfswire import heads
from dfswire.bodies import FileRange, Octets
from dfswire.identity import Identity

WATCH_S = 0.5
UNHEARD_RETRANSMITS = 3  # in a row, of the same bytes: 1.4 s with the kernel's usual timers
_TCP_INFO_BYTES = 8  # the first of the structure; its third octet is the number above
RECEIVE_BYTES = 16_384  # a head and a small message in one call
DISCARD_BYTES = 1 << 18

Ready = Callable[[socket.socket], Awaitable[None]]


class Unheard(Exception):
    """The peer's kernel acknowledges nothing: its host or the network between is gone."""


def retransmits(sock: socket.socket) -> int:
    """How often in a row the kernel has sent the same bytes without an acknowledgement.

    Zero for a peer that is slow, stopped, or takes nothing at the moment: its kernel answers.
    """
    return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES)[2]


async def wait_watched(sock: socket.socket, ready: Ready) -> None:
    """Wait until the socket is `ready`.  Raises Unheard soon when the peer's host is gone."""
    while True:
        with trio.move_on_after(WATCH_S):
            return await ready(sock)
        if retransmits(sock) >= UNHEARD_RETRANSMITS:
            raise Unheard("nothing is heard from the peer")


class Wire:
    """One connection.  Used by one task at a time, except that one may wait for its end."""

    peer: Identity | None = None
    shown: bytes = b""
    """Who is at the other end, if that was to be proved."""

    def __init__(
        self, sock: socket.socket, *, stall_s: float = math.inf, watch: bool = False
    ) -> None:
        """`stall_s`: how long a peer may take nothing before sending fails with TooSlowError.

        `watch`: waiting for a peer from whom nothing at all is heard ends soon, with Unheard.
        """
        sock.setblocking(False)
        # heads and small messages must not wait for the peer's delayed ACK
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._sock = sock
        self._stall_s = stall_s
        self._watch = watch
        self._unread = b""

    @classmethod
    def from_stream(
        cls, stream: trio.SocketStream, *, stall_s: float = math.inf, watch: bool = False
    ) -> Wire:
        """Take the socket out of a trio stream, which is useless afterwards."""
        sock = socket.socket(fileno=stream.socket.detach())
        return cls(sock, stall_s=stall_s, watch=watch)

    @property
    def left_s(self) -> float:
        """For how long what the peer has proved is still good."""
        return math.inf

    def close(self) -> None:
        """Close at once.  May be called again."""
        if self._sock.fileno() >= 0:
            trio.lowlevel.notify_closing(self._sock)
            self._sock.close()

    async def wait_input(self) -> None:
        """Wait until something, or the end, can be received.  Always a checkpoint."""
        if self._unread:
            await trio.lowlevel.checkpoint()
        else:
            await self._watched(trio.lowlevel.wait_readable)

    def has_input(self) -> bool:
        """Whether bytes or the end of the connection have arrived unasked."""
        if self._unread:
            return True
        try:
            self._sock.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except OSError:
            return True  # reset: as unusable as a closed one
        return True

    async def receive_head(self) -> bytes | None:
        """The next head; None when the peer has closed the connection between messages.

        Raises ProtocolError for what cannot become a head, ConnectionAbortedError in the middle.
        """
        while (end := heads.find_end(self._unread)) is None:
            piece = await self.receive(RECEIVE_BYTES)
            if not piece:
                if not self._unread:
                    return None
                raise ConnectionAbortedError("connection closed inside a head")
            self._unread += piece
        head, self._unread = self._unread[:end], self._unread[end:]
        return head

    async def receive(self, limit: int) -> bytes:
        """Between 1 and `limit` new bytes from the socket; empty at the end."""
        while True:
            try:
                return self._sock.recv(limit)
            except BlockingIOError:
                await trio.lowlevel.wait_readable(self._sock)

    async def receive_into(self, buffer: memoryview) -> int:
        """Fill the front of `buffer`, with what came with the head first; 0 at the end."""
        if self._unread:
            taken, self._unread = self._unread[: len(buffer)], self._unread[len(buffer) :]
            buffer[: len(taken)] = taken
            return len(taken)
        while True:
            try:
                return self._sock.recv_into(buffer)
            except BlockingIOError:
                await trio.lowlevel.wait_readable(self._sock)

    async def send(self, data: Octets, *, more: bool = False) -> None:
        """Send all of `data`.  `more`: the kernel may wait for what follows at once."""
        flags = socket.MSG_MORE if more else 0
        view = memoryview(data)
        while view:
            try:
                view = view[self._sock.send(view, flags) :]
            except BlockingIOError:
                await self._wait_output()

    async def send_file(self, part: FileRange) -> None:
        """Send a part of a file from the page cache.  Raises EOFError when the file is shorter."""
        offset, end = part.offset, part.offset + part.length
        while offset < end:
            try:
                sent = os.sendfile(self._sock.fileno(), part.fd, offset, end - offset)
            except BlockingIOError:
                await self._wait_output()
                continue
            if not sent:
                raise EOFError(f"file ends at {offset}, {end - offset} bytes early")
            offset += sent

    async def linger(self, limit_s: float) -> None:
        """Say that no more comes, and let the peer finish, so that it gets to read our reply.

        Closing while input is unread makes the kernel send a reset, which can overtake the reply.
        """
        self._sock.shutdown(socket.SHUT_WR)
        with trio.move_on_after(limit_s):
            while await self.receive(DISCARD_BYTES):
                pass

    async def _wait_output(self) -> None:
        with trio.fail_after(self._stall_s):
            await self._watched(trio.lowlevel.wait_writable)

    async def _watched(self, ready: Ready) -> None:
        await (wait_watched(self._sock, ready) if self._watch else ready(self._sock))
