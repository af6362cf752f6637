"""Heads: what is accepted, and all that is not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dfswire import heads
from dfswire.errors import ProtocolError

BODY_MAX = 1000


def _request(*lines: bytes, first: bytes = b"POST /v1/x HTTP/1.1") -> bytes:
    return b"\r\n".join([first, b"Host: a", *lines]) + b"\r\n\r\n"


def test_a_good_request() -> None:
    head = heads.parse_request(_request(b"Content-Length: 12", b"DFS-Version: 1"), BODY_MAX)
    assert (head.method, head.path, head.length) == ("POST", "/v1/x", 12)
    assert head.headers["dfs-version"] == "1"
    assert head.keep_alive
    assert not head.expects_continue


SMUGGLING = {
    "length and encoding": [b"Content-Length: 5", b"Transfer-Encoding: chunked"],
    "encoding": [b"Transfer-Encoding: chunked"],
    "odd encoding": [b"Transfer-Encoding: xchunked"],
    "encoding with a space": [b"Transfer-Encoding : chunked"],
    "two lengths": [b"Content-Length: 5", b"Content-Length: 6"],
    "the same length twice": [b"Content-Length: 5", b"Content-Length: 5"],
    "list of lengths": [b"Content-Length: 5, 5"],
    "negative length": [b"Content-Length: -5"],
    "signed length": [b"Content-Length: +5"],
    "hexadecimal length": [b"Content-Length: 0x5"],
    "underscored length": [b"Content-Length: 1_0"],
    "empty length": [b"Content-Length:"],
    "spaced length": [b"Content-Length: 5 6"],
    "length in other digits": ["Content-Length: ٥".encode()],
    "nul in a value": [b"X: a\0b"],
    "no colon": [b"nonsense"],
    "carriage return in a value": [b"X: a\rb"],
}


@pytest.mark.parametrize("lines", SMUGGLING.values(), ids=SMUGGLING.keys())
def test_ambiguous_requests_are_refused(lines: list[bytes]) -> None:
    with pytest.raises(ProtocolError):
        heads.parse_request(_request(*lines), BODY_MAX)


@pytest.mark.parametrize(
    "first", [b"", b"GET", b"GET /", b"GET  / HTTP/1.1", b"GET / HTTP/x", b"\r\nGET / HTTP/1.1"]
)
def test_bad_first_lines_are_refused(first: bytes) -> None:
    with pytest.raises(ProtocolError):
        heads.parse_request(_request(first=first), BODY_MAX)


def test_a_request_without_host_is_refused() -> None:
    with pytest.raises(ProtocolError):
        heads.parse_request(b"GET / HTTP/1.1\r\n\r\n", BODY_MAX)


def test_too_long_bodies_are_refused() -> None:
    assert heads.parse_request(_request(b"Content-Length: 1000"), BODY_MAX).length == 1000
    with pytest.raises(ProtocolError, match="1001"):
        heads.parse_request(_request(b"Content-Length: 1001"), BODY_MAX)


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (_request(b"Connection: close"), False),
        (_request(b"Connection: x, Close"), False),
        (_request(b"Connection: keep-alive"), True),
        (_request(first=b"GET / HTTP/1.0"), False),
        (_request(first=b"HEAD / HTTP/1.1"), False),
    ],
)
def test_who_keeps_the_connection(head: bytes, expected: bool) -> None:
    assert heads.parse_request(head, BODY_MAX).keep_alive is expected


def test_the_end_of_a_head_is_found_as_it_grows() -> None:
    head = _request()
    assert all(heads.find_end(head[:n]) is None for n in range(len(head)))
    assert heads.find_end(head + b"body\nmore") == len(head)


@pytest.mark.parametrize("start", [b"GET / HTTP/1.1\n", b"GET / HTTP/1.1\r\nHost: a\n\n", b"\n"])
def test_bare_line_feeds_are_refused_at_once(start: bytes) -> None:
    with pytest.raises(ProtocolError):
        heads.find_end(start)


def test_endless_heads_are_refused() -> None:
    assert heads.find_end(b"a" * 100, limit=100) is None
    with pytest.raises(ProtocolError):
        heads.find_end(b"a" * 101, limit=100)
    with pytest.raises(ProtocolError):
        heads.find_end(b"a" * 101 + b"\r\n\r\n", limit=100)


@given(st.binary(max_size=100))
def test_random_bytes_are_refused_or_understood(data: bytes) -> None:
    for parse in (heads.parse_request, heads.parse_response):
        try:
            end = heads.find_end(data + b"\r\n\r\n")
            assert end is not None
            parse((data + b"\r\n\r\n")[:end], BODY_MAX)
        except ProtocolError:
            continue


def test_a_rendered_response_comes_back() -> None:
    data = heads.render_response(200, [(b"DFS-Message", b"gA==")], 7, close=False)
    head = heads.parse_response(data, BODY_MAX)
    assert (head.status, head.length, head.keep_alive) == (200, 7, True)
    assert (b"dfs-message", b"gA==") in head.headers


def test_a_response_without_length_ends_with_its_connection() -> None:
    head = heads.parse_response(heads.render_response(200, [], None, close=False), BODY_MAX)
    assert head.length is None
    assert not head.keep_alive


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1001\r\n\r\n",
        b"SSH-2.0-OpenSSH_9\r\n\r\n",
    ],
)
def test_responses_that_our_servers_never_send_are_refused(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        heads.parse_response(data, BODY_MAX)


def test_a_rendered_request_comes_back() -> None:
    data = heads.render_request(b"PUT", b"/v1/x", [(b"Host", b"a"), (b"Content-Length", b"3")])
    assert heads.parse_request(data, BODY_MAX).length == 3


@pytest.mark.parametrize("value", [b"a\r\nX: b", b"a\nb", b"a\rb"])
def test_a_header_value_cannot_break_out_of_its_line(value: bytes) -> None:
    with pytest.raises(ProtocolError):
        heads.render_request(b"GET", b"/", [(b"Host", value)])
