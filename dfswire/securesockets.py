"""A connected socket under TLS 1.3 whose peer has proved who it is.

Used by server and transport in the place of sockets.Wire when there are credentials.  A connection
exists only after a handshake in which both sides showed a certificate of the cluster's authority
for the role that was expected.  Data still goes between the socket and the caller's memory without
a copy of ours in between; files are read and encrypted here, as the kernel can't.
"""

from __future__ import annotations

import math
import os
import socket
import ssl
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

import trio

from dfswire.bodies import FileRange, Octets
from dfswire.errors import UsageError
from dfswire.identity import Identity
from dfswire.sockets import Ready, Wire, wait_watched

if TYPE_CHECKING:  # the library behind it costs what not everybody need pay
    from dfswire.credentials import Credentials

FILE_PIECE_BYTES = 1 << 18  # of a file that is being sent, in memory

EARLY_MAX_S = 60.0  # clocks of hosts may differ by so much
LINGER_S = 2.0  # for a peer that is told why it is not trusted

T = TypeVar("T")


class Untrusted(OSError):
    """The peer did not prove who it is.  `is_plain`: it speaks HTTP without TLS."""

    def __init__(self, text: str, *, is_plain: bool = False) -> None:
        super().__init__(text)
        self.is_plain = is_plain


@dataclass(frozen=True)
class Proof:
    """Who is at the other end, until when (Unix seconds), and the certificate (DER) of that."""

    peer: Identity
    ends_s: float
    shown: bytes


class SecureWire(Wire):
    """One connection whose handshake is done.  `peer` is who is at its other end."""

    def __init__(
        self,
        sock: ssl.SSLSocket,
        proof: Proof,
        credentials: Credentials,
        *,
        stall_s: float = math.inf,
        watch: bool = False,
    ) -> None:
        super().__init__(sock, stall_s=stall_s, watch=watch)
        self._secure = sock
        self.peer: Identity = proof.peer
        self.shown = proof.shown
        self._ends_s = proof.ends_s
        self._credentials = credentials
        self._trust = credentials.trust

    @property
    def left_s(self) -> float:
        """How long what was proved is still good; 0 as well when another authority is trusted."""
        if not self._credentials.still_trusts(self._trust):
            return 0.0
        return max(self._ends_s - time.time(), 0.0)

    async def wait_input(self) -> None:
        """Wait until something, or the end, can be received.  Always a checkpoint."""
        if self._secure.pending():
            await trio.lowlevel.checkpoint()
        else:
            await super().wait_input()

    def has_input(self) -> bool:
        """Whether bytes or the end of the connection have arrived unasked."""
        if self._unread or self._secure.pending():
            return True
        try:
            socket.socket.recv(self._secure, 1, socket.MSG_PEEK)  # what is still encrypted
        except BlockingIOError:
            return False
        except OSError:
            return True  # reset: as unusable as a closed one
        return True

    async def receive(self, limit: int) -> bytes:
        """Between 1 and `limit` new bytes from the socket; empty at the end."""
        return await self._until_done(lambda: self._secure.recv(limit))

    async def receive_into(self, buffer: memoryview) -> int:
        """Fill the front of `buffer`, with what came with the head first; 0 at the end."""
        if self._unread:
            return await super().receive_into(buffer)
        return await self._until_done(lambda: self._secure.recv_into(buffer))

    async def send(self, data: Octets, *, more: bool = False) -> None:
        """Send all of `data`.  `more` means nothing here: what is sent goes out as a record."""
        view = memoryview(data)
        while view:
            view = view[await self._until_done(self._sender(view)) :]

    async def send_file(self, part: FileRange) -> None:
        """Send a part of a file.  Raises EOFError when the file is shorter."""
        offset, end = part.offset, part.offset + part.length
        while offset < end:
            piece = os.pread(part.fd, min(end - offset, FILE_PIECE_BYTES), offset)
            if not piece:
                raise EOFError(f"file ends at {offset}, {end - offset} bytes early")
            await self.send(piece)
            offset += len(piece)

    def _sender(self, view: memoryview) -> Callable[[], int]:
        return lambda: self._secure.send(view)

    async def _until_done(self, operation: Callable[[], T]) -> T:
        """Do it as soon as the socket allows.  TLS may have to read before it can write."""
        while True:
            try:
                return operation()
            except (ssl.SSLWantReadError, BlockingIOError):  # the latter after linger()
                await trio.lowlevel.wait_readable(self._secure)
            except ssl.SSLWantWriteError:
                await self._wait_output()


async def accept(
    stream: trio.SocketStream, credentials: Credentials, *, stall_s: float, without_tls: bytes
) -> SecureWire:
    """The server's side of a handshake.  Raises Untrusted, OSError; the socket is closed then.

    `without_tls` is the answer to a peer that speaks plain HTTP, so that it learns why.
    """
    sock = _wrapped(stream, credentials.for_server(), server_side=True)
    try:
        proof = await _handshake(sock, credentials, _wait)
    except Untrusted as problem:
        await _tell(socket.socket(fileno=sock.detach()), without_tls if problem.is_plain else b"")
        raise
    return SecureWire(sock, proof, credentials, stall_s=stall_s)


async def connect(stream: trio.SocketStream, credentials: Credentials) -> SecureWire:
    """The client's side.  Raises Untrusted, Unheard, OSError; the socket is closed then.

    The connection counts as over a little before either certificate ends: were it the server that
    ends it, it could do so while a request is on its way.
    """
    sock = _wrapped(stream, credentials.for_client(), server_side=False)
    own_ends_s = credentials.ends_s
    try:
        proof = await _handshake(sock, credentials, wait_watched)
    except Untrusted:
        sock.close()
        raise
    ends_s = min(proof.ends_s, own_ends_s)
    early_s = min((ends_s - time.time()) / 10, EARLY_MAX_S)
    proof = replace(proof, ends_s=ends_s - early_s)
    return SecureWire(sock, proof, credentials, watch=True)


async def _tell(sock: socket.socket, text: bytes) -> None:
    """Let a peer that is not trusted hear why, if it still listens, and close."""
    wire = Wire(sock, stall_s=LINGER_S)
    try:
        with suppress(OSError, trio.TooSlowError):
            await wire.send(text)
            # Closed at once, its kernel may throw away the alert that TLS has sent.
            await wire.linger(LINGER_S)
    finally:
        wire.close()


def _wrapped(
    stream: trio.SocketStream, context: ssl.SSLContext, *, server_side: bool
) -> ssl.SSLSocket:
    sock = socket.socket(fileno=stream.socket.detach())
    sock.setblocking(False)
    try:
        sock.getpeername()  # wrap_socket() would raise for a peer that is gone, and not close it
    except OSError:
        sock.close()
        raise
    return context.wrap_socket(sock, server_side=server_side, do_handshake_on_connect=False)


async def _wait(sock: socket.socket, ready: Ready) -> None:
    await ready(sock)


async def _handshake(
    sock: ssl.SSLSocket,
    credentials: Credentials,
    wait: Callable[[socket.socket, Ready], Awaitable[None]],
) -> Proof:
    """Who the peer is, and until when.  When it is not trusted the socket is still
    open; in any other case of failure it is closed."""
    try:
        while True:
            try:
                sock.do_handshake()
                return _proved(sock, credentials.identity.cluster)
            except ssl.SSLWantReadError:
                await wait(sock, trio.lowlevel.wait_readable)
            except ssl.SSLWantWriteError:
                await wait(sock, trio.lowlevel.wait_writable)
    except ssl.SSLCertVerificationError as problem:
        raise Untrusted(problem.verify_message) from problem
    except ssl.SSLEOFError:
        sock.close()  # it has gone, without a word that could be refused
        raise
    except ssl.SSLError as problem:
        is_plain = problem.reason == "HTTP_REQUEST"
        raise Untrusted(problem.reason or str(problem), is_plain=is_plain) from problem
    except Untrusted:
        raise
    except BaseException:
        sock.close()
        raise


def _proved(sock: ssl.SSLSocket, cluster: str) -> Proof:
    """Whose certificate the peer has, and when it ends.  Its signature has been checked."""
    shown = sock.getpeercert() or {}
    names = [pair[1] for pair in shown.get("subjectAltName", ()) if pair[0] == "URI"]
    if len(names) != 1:
        raise Untrusted("its certificate names no party of a cluster")
    try:
        peer = Identity.parse(str(names[0]))
    except UsageError as problem:
        raise Untrusted(str(problem)) from problem
    if peer.cluster != cluster:
        raise Untrusted(f"it belongs to cluster {peer.cluster!r}, not to {cluster!r}")
    ends_s = ssl.cert_time_to_seconds(str(shown["notAfter"]))
    return Proof(peer, ends_s, sock.getpeercert(binary_form=True) or b"")
