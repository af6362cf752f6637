"""A metad that records, and two servers, for tests of the line between them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Literal

import trio

from dfswire.chunks import block_checksums, chunk_digest
from dfswire.dispatch import BodySource, Dispatcher
from dfswire.heartbeats import Heartbeat, HeartbeatReply
from dfswire.orders import Order
from tests.fakes import DirectTransport
from tests.suites.chunkstore import A, content
from tests.t2_chunkd.servers import METAD, ChunkServer, FakeMetad

DATA = content(1000)


Kind = Literal["copy", "delete", "verify"]


class Line:
    """A metad and two servers."""

    def __init__(self) -> None:
        self.transport = DirectTransport({})
        self.metad = FakeMetad(self.transport)
        self.one = ChunkServer("one", self.transport, scrub=False)
        self.two = ChunkServer("two", self.transport)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """`one` runs."""
        async with trio.open_nursery() as nursery:
            await nursery.start(self.one.service.run)
            yield
            nursery.cancel_scope.cancel()

    def order(self, kind: Kind, number: int = 1) -> Order:
        digest = chunk_digest(A, len(DATA), block_checksums(A, DATA))
        return Order(
            order_id=number,
            kind=kind,
            chunk=A,
            disk="one",
            length=len(DATA),
            digest=digest,
            sources=[self.two.replica],
        )

    def results(self) -> list[tuple[int, bool]]:
        return [
            (result.order_id, result.ok)
            for heartbeat in self.metad.heartbeats
            for result in heartbeat.results
        ]

    def reports(self) -> list[tuple[bytes, str]]:
        return [
            (report.chunk, report.state)
            for heartbeat in self.metad.heartbeats
            for report in heartbeat.reports
        ]

    def lose_replies(self, count: int) -> None:
        """metad takes so many heartbeats, and its answers do not arrive."""

        async def heartbeat(request: Heartbeat, body: BodySource) -> HeartbeatReply:
            nonlocal count
            reply = await self.metad.heartbeat(request, body)
            if count:
                count -= 1
                self.transport.down(METAD)
                self.transport.up(METAD, dispatcher)
                await trio.sleep_forever()
            return reply

        dispatcher = metad_with(self.metad, heartbeat)
        self.transport.up(METAD, dispatcher)


def metad_with(
    metad: FakeMetad, heartbeat: Callable[[Heartbeat, BodySource], Awaitable[HeartbeatReply]]
) -> Dispatcher:
    """The same metad with another handler of heartbeats."""
    return Dispatcher("metad", metad.handlers | {"server.heartbeat": heartbeat})
