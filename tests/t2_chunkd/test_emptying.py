"""Emptying the quarantine: what metad names goes, and nothing else, whatever happens on the way."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from dfswire.bodies import BodySource
from dfswire.errors import Unavailable
from dfswire.verify import Settled, SettledReply
from tests.fakes import DirectTransport
from tests.suites.chunkstore import A, B, ExpectLog, put
from tests.t2_chunkd.servers import ChunkServer, FakeMetad, config_for

KEPT_S = 1000.0


class Line:
    """A server with A and B in quarantine; metad says that nothing depends on B."""

    def __init__(self) -> None:
        self.transport = DirectTransport({})
        self.metad = FakeMetad(self.transport)
        self.asked: list[Settled] = []
        self.metad.handlers["server.settled"] = self.settled
        self.metad.dispatcher = type(self.metad.dispatcher)("metad", self.metad.handlers)
        self.metad.up()
        self.server = ChunkServer("one", self.transport, quarantine_kept_s=KEPT_S)
        for chunk in (A, B):
            put(self.server.store, chunk, b"x")
            self.server.store.quarantine(chunk, "a test says so")

    async def settled(self, request: Settled, body: BodySource) -> SettledReply:
        self.asked.append(request)
        return SettledReply(chunks=[B, bytes(16)])

    def grow_old(self) -> None:
        for file in self.server.store.quarantined.values():
            file.modified -= KEPT_S + 1


async def test_only_what_metad_names_leaves_the_quarantine(
    expect_log: ExpectLog, autojump_clock: MockClock
) -> None:
    expect_log("a test says so")
    line = Line()
    server, emptier, asked = line.server, line.server.service.emptier, line.asked
    assert await emptier.run_once(server.store) == 0
    assert asked == []
    line.grow_old()
    assert await emptier.run_once(server.store) == 1
    assert [request.chunks for request in asked] == [[A, B]]
    assert list(server.store.quarantined) == [A]
    line.metad.down()
    with pytest.raises(Unavailable):
        await emptier.run_once(server.store)
    assert list(server.store.quarantined) == [A]


async def test_it_goes_on_when_metad_answers_again(
    expect_log: ExpectLog, autojump_clock: MockClock
) -> None:
    expect_log("a test says so")
    line = Line()
    line.grow_old()
    line.metad.down()
    interval_s = config_for().inventory_interval_s
    async with trio.open_nursery() as nursery:
        nursery.start_soon(line.server.service.emptier.run_forever)
        await trio.sleep(2 * interval_s)
        assert list(line.server.store.quarantined) == [A, B]
        line.metad.up()
        await trio.sleep(2 * interval_s)
        assert list(line.server.store.quarantined) == [A]
        nursery.cancel_scope.cancel()
