"""Octets on their way: the bodies of requests and replies, and the frames of a stream.

Shared by dispatcher, server, client and transports.  A body is memory, a part of an open file, or
an iterator of pieces; memory is handed on as a view and never copied here.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Protocol

import httpx
import msgspec

from dfswire import codec
from dfswire.errors import ProtocolError, Unavailable
from dfswire.messages import MESSAGE_MAX_BYTES

Octets = bytes | bytearray | memoryview

FRAME_HEAD_BYTES = 4  # big-endian length before each message of a stream
END_FRAME = bytes(FRAME_HEAD_BYTES)
"""A frame of no bytes, which no message has: the stream is complete, not merely cut off."""


@dataclass(frozen=True)
class FileRange:
    """Bytes [offset, offset+length) of an open file, sent with sendfile.

    Whoever sends it owns `fd` and closes it, whether or not sending succeeds.
    """

    fd: int
    offset: int
    length: int

    def close(self) -> None:
        """Give the descriptor back; once."""
        os.close(self.fd)


class BodySource(Protocol):
    """The raw body of a request while it arrives."""

    @property
    def length(self) -> int:
        """How many bytes the whole body has."""

    async def receive_into(self, buffer: memoryview) -> int:
        """Fill the front of `buffer`: at least one byte, 0 at the end.

        Raises Unavailable when the peer goes away before the end.
        """


class BodyStream(httpx.AsyncByteStream):
    """A body in httpx's terms that keeps what it is made of.

    Our transports take `memory` (or iterate `pieces`) and so avoid the copies that httpx's own
    content types would make; any other transport can still iterate it as bytes.
    """

    def __init__(self, content: Octets | AsyncIterator[Octets]) -> None:
        self.memory: memoryview | None = None
        self._iterator: AsyncIterator[Octets] | None = None
        if isinstance(content, AsyncIterator):
            self._iterator = content
        else:
            self.memory = memoryview(content).cast("B")

    def pieces(self) -> AsyncIterator[Octets]:
        """The body in order; memory is one piece.  To be iterated once."""
        if self._iterator is not None:
            return self._iterator
        return _Once(self.memory)

    def __aiter__(self) -> AsyncIterator[bytes]:
        return _AsBytes(self.pieces())

    async def aclose(self) -> None:
        """Close the iterator underneath, if it can be closed."""
        if self._iterator is not None:
            await close_iterator(self._iterator)


# Iterators by class, because an async generator that is left before its end stays open until the
# garbage collector finds it, in whatever task that happens.


class _Once:
    def __init__(self, piece: Octets | None) -> None:
        self._piece = piece

    def __aiter__(self) -> _Once:
        return self

    async def __anext__(self) -> Octets:
        piece, self._piece = self._piece, None
        if not piece:
            raise StopAsyncIteration
        return piece


class _AsBytes:
    def __init__(self, pieces: AsyncIterator[Octets]) -> None:
        self._pieces = pieces

    def __aiter__(self) -> _AsBytes:
        return self

    async def __anext__(self) -> bytes:
        return bytes(await anext(self._pieces))


async def close_iterator(iterator: AsyncIterator[object]) -> None:
    """End an iterator that is not needed any more, if it is of a kind that can be ended."""
    if (close := getattr(iterator, "aclose", None)) is not None:
        await close()


async def read_body(body: BodySource) -> bytearray:
    """The whole of a body.  Raises Unavailable when it ends early.

    The caller has bounded `body.length`.  A large zeroed bytearray costs address space only until
    bytes arrive, so a peer that announces much and sends nothing gains nothing.
    """
    buffer = bytearray(body.length)
    await fill(body, memoryview(buffer))
    return buffer


async def fill(body: BodySource, buffer: memoryview) -> None:
    """Receive exactly `len(buffer)` bytes.  Raises Unavailable when the body ends early."""
    while buffer:
        count = await body.receive_into(buffer)
        if not count:
            raise Unavailable(f"body ended {len(buffer)} bytes early")
        buffer = buffer[count:]


def to_frame(message: msgspec.Struct) -> bytes:
    """One message of a stream as it travels."""
    data = codec.encode(message)
    return len(data).to_bytes(FRAME_HEAD_BYTES, "big") + data


class FrameReader:
    """Cuts the pieces of a stream into the encoded messages they carry."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, piece: Octets) -> list[bytes]:
        """The messages that `piece` completes, an empty one for the end.

        Raises ProtocolError for an impossible length.
        """
        self._buffer += piece
        messages = []
        while (end := self._frame_end()) is not None and len(self._buffer) >= end:
            messages.append(bytes(self._buffer[FRAME_HEAD_BYTES:end]))
            del self._buffer[:end]
        return messages

    def _frame_end(self) -> int | None:
        if len(self._buffer) < FRAME_HEAD_BYTES:
            return None
        length = int.from_bytes(self._buffer[:FRAME_HEAD_BYTES], "big")
        if length > MESSAGE_MAX_BYTES:
            raise ProtocolError(f"stream frame of {length} bytes")
        return FRAME_HEAD_BYTES + length
