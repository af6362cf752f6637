"""Cables between the parts of a cluster in memory: cut in one or both directions, or slow.

Everybody who calls has a `LinkedTransport` with a name; those who are called have addresses, which
are names too.  What a cut swallows is never answered, as with a firewall that drops: the caller
waits until its deadline.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import trio


class Links:
    """What is wrong between whom; nothing, until a test says so."""

    def __init__(self) -> None:
        self._cut: set[tuple[str, str]] = set()
        self.delays_s: dict[str, float] = {}
        """Answers from this address come so much later."""

    @contextmanager
    def cut(self, one: str, other: str, *, one_way: bool = False) -> Iterator[None]:
        """What `one` sends does not arrive at `other`; nor the other way, unless `one_way`."""
        before = set(self._cut)
        self._cut |= {(one, other)} if one_way else {(one, other), (other, one)}
        try:
            yield
        finally:
            self._cut = before

    def is_cut(self, sender: str, receiver: str) -> bool:
        return (sender, receiver) in self._cut


class LinkedTransport(httpx.AsyncBaseTransport):
    """The network as the one called `name` sees it."""

    def __init__(self, inner: httpx.AsyncBaseTransport, links: Links, name: str) -> None:
        self._inner = inner
        self._links = links
        self._name = name

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """One exchange.  Waits for ever where the request or its answer is swallowed."""
        address = request.url.netloc.decode("ascii")
        if self._links.is_cut(self._name, address):
            await trio.sleep_forever()
        response = await self._inner.handle_async_request(request)
        await trio.sleep(self._links.delays_s.get(address, 0.0))
        if self._links.is_cut(address, self._name):
            assert isinstance(response.stream, httpx.AsyncByteStream)
            await response.stream.aclose()
            await trio.sleep_forever()
        return response
