"""The one way to call a daemon: a call's name, an address, a message."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import Any

import httpx
import msgspec

from dfswire.bodies import Octets


class Client:
    """Calls by name (skeleton, the body follows in the next commit)."""

    def __init__(self, *, transport: httpx.AsyncBaseTransport | None = None) -> None: ...

    async def call(
        self,
        name: str,
        address: str,
        request: msgspec.Struct,
        *,
        deadline_s: float = 5.0,
        attempts: int | None = None,
        body: Octets | AsyncIterator[Octets] | None = None,
        body_length: int | None = None,
        into: memoryview | None = None,
    ) -> Any: ...

    def stream(
        self, name: str, address: str, request: msgspec.Struct
    ) -> AbstractAsyncContextManager[AsyncIterator[Any]]: ...

    async def aclose(self) -> None: ...
