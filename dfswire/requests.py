"""What a request says: its message, its deadline, and the version that its caller speaks.

The Dispatcher asks for one after the other.  What cannot be understood is a ProtocolError, and so a
4xx for whoever sent it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from dfswire import codec
from dfswire.bodies import BodySource, read_body
from dfswire.call import Call
from dfswire.calls import DEADLINE_HEADER, MESSAGE_HEADER
from dfswire.errors import ProtocolError, WrongVersion
from dfswire.messages import MESSAGE_MAX_BYTES, PROTOCOL_VERSION, Empty

DEADLINE_DEFAULT_S = 60.0  # for callers that send none (curl); dfs's own clients always send one
DEADLINE_MAX_S = 3600.0  # no call holds a handler for longer, whatever the caller says


async def read_request(call: Call, headers: Mapping[str, str], body: BodySource) -> Any:
    """The message of a request.  Raises ProtocolError."""
    if call.request_body:
        value = headers.get(MESSAGE_HEADER.lower())
        if value is None:
            raise ProtocolError(f"{call.name} needs the header {MESSAGE_HEADER}")
        return codec.from_header(call.request, value.encode())
    if body.length > MESSAGE_MAX_BYTES:
        raise ProtocolError(f"message of {body.length} bytes; at most {MESSAGE_MAX_BYTES}")
    data = await read_body(body)
    if not data and call.request is Empty:
        return Empty()  # a plain GET
    return codec.decode(
        call.request, memoryview(data), _content_type(headers.get("content-type", ""))
    )


def _content_type(value: str) -> str:
    kind = value.partition(";")[0].strip().lower()
    if kind in ("", codec.MSGPACK):
        return codec.MSGPACK
    if kind == codec.JSON:
        return codec.JSON
    raise ProtocolError(f"content type {kind!r}; send {codec.MSGPACK} or {codec.JSON}")


def check_version(value: str | None) -> None:
    """A caller without a version is a person with curl; any other must speak ours."""
    if value is not None and value != str(PROTOCOL_VERSION):
        raise WrongVersion(
            f"you speak protocol version {value}, this server speaks {PROTOCOL_VERSION}"
        )


def deadline(value: str | None) -> float:
    """For how long the caller waits, in seconds.  Raises ProtocolError."""
    if value is None:
        return DEADLINE_DEFAULT_S
    try:
        deadline_s = float(value)
    except ValueError as problem:
        raise ProtocolError(f"{DEADLINE_HEADER} is not a number: {value!r}") from problem
    if not math.isfinite(deadline_s) or deadline_s < 0:
        raise ProtocolError(f"{DEADLINE_HEADER} is not a duration: {value!r}")
    return min(deadline_s, DEADLINE_MAX_S)
