"""Every message survives both encodings; nothing else gets in."""

from __future__ import annotations

import typing
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dfswire import codec
from dfswire.batches import Batch
from dfswire.calls import CALLS
from dfswire.errors import NoEntry, ProtocolError
from dfswire.messages import Empty, Fault, Invalidation
from dfswire.operations import AnyOperation
from tests.t1_wire.strategies import of_type

MESSAGES = sorted(
    {kind for call in CALLS.values() for kind in (call.request, call.reply)}
    | set(typing.get_args(AnyOperation))
    | {Fault},
    key=lambda kind: kind.__name__,
)


@pytest.mark.parametrize("content_type", [codec.MSGPACK, codec.JSON])
@pytest.mark.parametrize("kind", MESSAGES)
@settings(max_examples=15)
@given(data=st.data())
def test_round_trip(kind: Any, content_type: str, data: st.DataObject) -> None:
    message = data.draw(of_type(kind))
    assert codec.decode(kind, codec.encode(message, content_type), content_type) == message


@given(of_type(Batch))
def test_round_trip_through_a_header(batch: Batch) -> None:
    value = codec.to_header(batch)
    assert not set(value) & set(b"\r\n\0")
    assert codec.from_header(Batch, value) == batch


@given(st.binary(max_size=200))
def test_random_bytes_are_refused_or_decode_to_the_type(data: bytes) -> None:
    for content_type in (codec.MSGPACK, codec.JSON):
        try:
            assert isinstance(codec.decode(Batch, data, content_type), Batch)
        except ProtocolError as problem:
            assert "Batch" in str(problem)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x80",  # an empty map: required fields are missing
        b"\xc1",  # never used in MessagePack
        b"\xdf\xff\xff\xff\xff",  # a map of 4 Gi entries, none of which come
        b"\xc6\xff\xff\xff\xff",  # 4 GiB of bytes, none of which come
        b"\x91" * 100_000,  # deep nesting
    ],
)
def test_bad_messagepack_is_a_protocol_error(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        codec.decode(Invalidation, data)


def test_deep_json_is_a_protocol_error() -> None:
    with pytest.raises(ProtocolError):
        codec.decode(Batch, b'{"x":' + b"[" * 100_000, codec.JSON)


@pytest.mark.parametrize("value", [b"%%%", b"AAA", "é".encode(), b"gA==\n"])
def test_bad_headers_are_protocol_errors(value: bytes) -> None:
    with pytest.raises(ProtocolError):
        codec.from_header(Batch, value)


def test_fields_that_a_later_version_added_are_ignored() -> None:
    assert codec.decode(Empty, b"\x81\xa5later\x01") == Empty()


def test_a_fault_carries_code_and_text() -> None:
    assert codec.fault_of(NoEntry("no a")) == Fault(code="no_entry", message="no a")
    assert codec.fault_of(NoEntry()).message == "NoEntry"
