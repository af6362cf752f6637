"""Messages <-> bytes, in one place.

MessagePack is what the parts of dfs speak among themselves; JSON is what a person with curl gets
who asks for it (`Accept: application/json`).  Anything that does not decode to the expected type is
a `ProtocolError`; nothing here allocates more than the bytes it is given.
"""

from __future__ import annotations

import base64
import binascii
import functools
from typing import Any, TypeVar

import msgspec

from dfswire.errors import DFSError, ProtocolError
from dfswire.messages import Fault

MSGPACK = "application/msgpack"
JSON = "application/json"

T = TypeVar("T")


@functools.cache
def _msgpack_decoder(kind: Any) -> msgspec.msgpack.Decoder[Any]:
    return msgspec.msgpack.Decoder(kind)


@functools.cache
def _json_decoder(kind: Any) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(kind)


_msgpack_encoder = msgspec.msgpack.Encoder()
_json_encoder = msgspec.json.Encoder()


def encode(message: msgspec.Struct, content_type: str = MSGPACK) -> bytes:
    """The bytes of a message.  JSON writes byte strings in base64."""
    return (_json_encoder if content_type == JSON else _msgpack_encoder).encode(message)


def decode(kind: type[T], data: bytes | memoryview, content_type: str = MSGPACK) -> T:
    """The message of type `kind` in `data`.  Raises ProtocolError."""
    decoder_for: Any = _json_decoder if content_type == JSON else _msgpack_decoder
    decoder = decoder_for(kind)
    try:
        message: T = decoder.decode(data)
    except (msgspec.DecodeError, ValueError, RecursionError) as problem:
        raise ProtocolError(f"not a {getattr(kind, '__name__', kind)}: {problem}") from problem
    return message


def to_header(message: msgspec.Struct) -> bytes:
    """A message as a header value, for calls whose body is raw octets."""
    return base64.b64encode(encode(message))


def from_header(kind: type[T], value: bytes) -> T:
    """The reverse of to_header.  Raises ProtocolError."""
    try:
        data = base64.b64decode(value, validate=True)
    except binascii.Error as problem:
        raise ProtocolError(f"header is not base64: {problem}") from problem
    return decode(kind, data)


def fault_of(error: DFSError) -> Fault:
    """An error as it travels."""
    return Fault(code=error.code, message=str(error))
