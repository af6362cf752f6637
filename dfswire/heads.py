"""HTTP/1.1 heads <-> records, by h11, with everything ambiguous refused.

Used by the server and by the client's transport; pure, so its tests need no socket.  Only heads
pass through h11: bodies go between socket and buffer directly.  What two HTTP parsers could
understand differently (bare LF, Transfer-Encoding, repeated Content-Length) is a `ProtocolError`,
because that is what request smuggling is made of.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

import h11

from dfswire.errors import ProtocolError

HEAD_MAX_BYTES = 32_768  # the largest we send is a WriteChunk header of about 4 KiB
HEAD_END = b"\r\n\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

_BARE_LF = re.compile(rb"(?<!\r)\n")
_CONTENT_LENGTH = re.compile(rb"\r\ncontent-length[ \t]*:([^\r\n]*)", re.IGNORECASE)


@dataclass(frozen=True)
class RequestHead:
    """What a server needs of a request's head; header names are lower-case."""

    method: str
    path: str
    headers: dict[str, str]
    length: int
    keep_alive: bool
    expects_continue: bool


@dataclass(frozen=True)
class ResponseHead:
    """What a client needs of a reply's head.  `length` None: the body ends with the connection."""

    status: int
    headers: list[tuple[bytes, bytes]]
    length: int | None
    keep_alive: bool


def find_end(buffer: bytes, limit: int = HEAD_MAX_BYTES) -> int | None:
    """Where the head at the front of `buffer` ends; None while it is incomplete.

    Raises ProtocolError as soon as it cannot become a good head any more.
    """
    at = buffer.find(HEAD_END)
    end = None if at < 0 else at + len(HEAD_END)
    if len(buffer) > limit and (end is None or end > limit):
        raise ProtocolError(f"head of more than {limit} bytes")
    if _BARE_LF.search(buffer, 0, end or len(buffer)):
        raise ProtocolError("line feed without carriage return in a head")
    return end


def parse_request(head: bytes, body_max: int) -> RequestHead:
    """The request whose complete head is `head`.  Raises ProtocolError."""
    event = _parse(h11.SERVER, head)
    if not isinstance(event, h11.Request):
        raise ProtocolError("not an HTTP request")
    headers = {name.decode("ascii"): value.decode("latin-1") for name, value in event.headers}
    if "transfer-encoding" in headers:
        raise ProtocolError("send Content-Length, not Transfer-Encoding")
    length = _content_length(head, headers.get("content-length", "0"))
    if length > body_max:
        raise ProtocolError(f"body of {length} bytes; at most {body_max}")
    return RequestHead(
        method=event.method.decode("ascii"),
        path=event.target.decode("latin-1"),
        headers=headers,
        length=length,
        # our replies always have a body, which must not follow a reply to HEAD
        keep_alive=event.method != b"HEAD"
        and _keeps_alive(event.http_version, headers.get("connection", "")),
        expects_continue=headers.get("expect", "").lower() == "100-continue",
    )


def parse_response(head: bytes, body_max: int) -> ResponseHead:
    """The reply whose complete head is `head`.  Raises ProtocolError."""
    event = _parse(h11.CLIENT, head)
    if not isinstance(event, h11.Response):
        raise ProtocolError("not an HTTP reply")
    raw = list(event.headers)
    headers = {name.decode("ascii"): value.decode("latin-1") for name, value in raw}
    if "transfer-encoding" in headers:
        raise ProtocolError("reply with Transfer-Encoding")
    length = None
    if (value := headers.get("content-length")) is not None:
        length = _content_length(head, value)
        if length > body_max:
            raise ProtocolError(f"reply of {length} bytes; at most {body_max}")
    return ResponseHead(
        status=event.status_code,
        headers=raw,
        length=length,
        keep_alive=length is not None
        and _keeps_alive(event.http_version, headers.get("connection", "")),
    )


def render_response(
    status: int, headers: Iterable[tuple[bytes, bytes]], length: int | None, *, close: bool
) -> bytes:
    """The bytes of a reply's head.  Without `length` the body ends with the connection."""
    lines = list(headers)
    if length is not None:
        lines.append((b"Content-Length", b"%d" % length))
    if close or length is None:
        lines.append((b"Connection", b"close"))
    # A fresh h11 server has seen no request, so it never chooses chunked encoding by itself.
    data = h11.Connection(h11.SERVER).send(h11.Response(status_code=status, headers=lines))
    return data or b""


def render_request(method: bytes, target: bytes, headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """The bytes of a request's head.  Raises ProtocolError when a value would break out of its
    line."""
    lines = [b"%b %b HTTP/1.1" % (method, target)]
    lines.extend(b"%b: %b" % header for header in headers)
    head = b"\r\n".join(lines)
    if head.count(b"\n") != len(lines) - 1 or head.count(b"\r") != len(lines) - 1:
        raise ProtocolError("line break in a request head")
    return head + HEAD_END


def _parse(role: type[h11.CLIENT] | type[h11.SERVER], head: bytes) -> object:
    # a fresh parser each time: the body, which an h11 connection would wait for, never comes here
    connection = h11.Connection(role, max_incomplete_event_size=HEAD_MAX_BYTES)
    try:
        connection.receive_data(head)
        return connection.next_event()
    except h11.RemoteProtocolError as problem:
        raise ProtocolError(f"malformed HTTP head: {problem}") from problem


def _content_length(head: bytes, value: str) -> int:
    """h11 has checked the digits; it merges equal repetitions, which we refuse."""
    raw = _CONTENT_LENGTH.findall(head)
    if len(raw) > 1 or any(b"," in each for each in raw):
        raise ProtocolError("more than one Content-Length")
    return int(value)


def _keeps_alive(http_version: bytes, connection: str) -> bool:
    options = {option.strip().lower() for option in connection.split(",")}
    return http_version >= b"1.1" and "close" not in options
