"""The line to metad: registration, orders, results and reports that must not get lost."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Literal

import msgspec
import pytest
import trio
from trio.testing import MockClock

from chunkd.heartbeat import REFUSED_MAX_S
from dfswire import codec
from dfswire.chunks import block_checksums, chunk_digest
from dfswire.dispatch import BodySource, Dispatcher
from dfswire.errors import (
    AlreadyRunning,
    CorruptChunk,
    IdentityTaken,
    Invalid,
    Removed,
    WrongCluster,
    WrongVersion,
)
from dfswire.heartbeats import Heartbeat, HeartbeatReply
from dfswire.hosts import Register
from dfswire.orders import Order
from tests.fakes import DirectTransport
from tests.suites.chunkstore import A, B, ExpectLog, content, put
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


@pytest.fixture
def line() -> Line:
    return Line()


async def test_it_registers_and_beats_every_second(line: Line, autojump_clock: MockClock) -> None:
    async with line.running():
        await trio.sleep(9.5)
    (registration,) = line.metad.registrations
    assert (registration.server_id, registration.address) == ("one", "one:9500")
    assert (registration.cluster_id, registration.host.hostname) == ("", "one")
    assert [disk.disk for disk in registration.disks] == ["one"]
    assert len(line.metad.heartbeats) == 10
    assert line.one.identity.cluster_id == "c1"


async def test_it_registers_again_when_metad_forgot(line: Line, autojump_clock: MockClock) -> None:
    async with line.running():
        await trio.sleep(2.5)
        line.metad.wants_registration = True
        await trio.sleep(2)
    assert [message.cluster_id for message in line.metad.registrations] == ["", "c1"]


async def test_it_serves_and_tries_on_while_metad_is_away(
    line: Line, autojump_clock: MockClock, expect_log: ExpectLog
) -> None:
    expect_log("does not answer")
    line.metad.down()
    async with line.running():
        await trio.sleep(30)
        put(line.one.store, A, DATA)
        line.metad.up()
        await trio.sleep(7)
    assert len(line.metad.registrations) == 1
    assert line.metad.heartbeats[-1].disks[0].chunks == 1


@pytest.mark.parametrize("kind", ["copy", "delete", "verify"])
async def test_orders_are_carried_out(line: Line, autojump_clock: MockClock, kind: Kind) -> None:
    put(line.two.store, A, DATA)
    if kind != "copy":
        put(line.one.store, A, DATA)
    line.metad.orders.append(line.order(kind))
    async with line.running():
        await trio.sleep(3.5)
    assert line.results() == [(1, True)]
    assert (A in line.one.store.files) == (kind != "delete")


async def test_orders_that_fail_say_so(
    line: Line, autojump_clock: MockClock, expect_log: ExpectLog
) -> None:
    expect_log("is bad")
    put(line.one.store, A, DATA)
    line.one.store.corrupt(A)
    line.metad.orders += [line.order("verify", 1), line.order("copy", 2)]
    line.metad.orders.append(Order(order_id=3, kind="delete", chunk=A, disk="elsewhere"))
    async with line.running():
        await trio.sleep(3.5)
    assert sorted(line.results()) == [(1, False), (2, False), (3, False)]
    assert line.reports() == [(A, "bad"), (A, "bad")]


async def test_orders_of_a_kind_that_a_later_release_has(
    line: Line, autojump_clock: MockClock
) -> None:
    """They fail, nothing is done to the chunk, and the others in the same answer are obeyed."""
    put(line.one.store, A, DATA)
    put(line.one.store, B, DATA)
    document = {"order_id": 1, "kind": "polish", "chunk": A, "disk": "one", "varnish": True}
    line.metad.orders.append(codec.decode(Order, msgspec.msgpack.encode(document)))
    line.metad.orders.append(Order(order_id=2, kind="delete", chunk=B, disk="one"))
    async with line.running():
        await trio.sleep(3.5)
    assert sorted(line.results()) == [(1, False), (2, True)]
    assert set(line.one.store.files) == {A}
    reasons = [each.reason for beat in line.metad.heartbeats for each in beat.results]
    assert "not_supported: this chunkd knows no order to polish" in reasons


async def test_deleting_what_is_gone_is_a_success(line: Line, autojump_clock: MockClock) -> None:
    line.metad.orders.append(line.order("delete"))
    async with line.running():
        await trio.sleep(3.5)
    assert line.results() == [(1, True)]


async def test_verifying_what_is_gone_reports_it(line: Line, autojump_clock: MockClock) -> None:
    line.metad.orders.append(line.order("verify"))
    async with line.running():
        await trio.sleep(3.5)
    assert line.results() == [(1, False)]
    assert line.reports() == [(A, "missing")]


async def test_an_order_given_twice_is_taken_once(line: Line, autojump_clock: MockClock) -> None:
    line.metad.orders += [line.order("verify"), line.order("verify")]
    put(line.one.store, A, DATA)
    async with line.running():
        await trio.sleep(3.5)
    assert line.results() == [(1, True)]


async def test_results_and_reports_are_sent_until_acknowledged(
    line: Line, autojump_clock: MockClock, expect_log: ExpectLog
) -> None:
    expect_log("is bad")
    put(line.one.store, A, DATA)
    put(line.one.store, B, DATA)
    async with line.running():
        await trio.sleep(0.5)
        line.metad.orders.append(line.order("verify"))
        await trio.sleep(1)
        line.one.store.corrupt(B)
        with pytest.raises(CorruptChunk):
            line.one.store.verify(B)
        line.lose_replies(1)
        await trio.sleep(10)
    assert line.results() == [(1, True)] * 2
    assert line.reports() == [(B, "bad")] * 2


async def test_nothing_is_dropped_by_a_metad_that_wants_registration(
    line: Line, autojump_clock: MockClock, expect_log: ExpectLog
) -> None:
    expect_log("is bad")
    async with line.running():
        await trio.sleep(0.5)
        put(line.one.store, A, DATA)
        line.one.store.quarantine(A, "a test says so")
        line.metad.wants_registration = True
        await trio.sleep(3)
    assert line.reports() == [(A, "bad")]


async def test_the_metad_of_another_cluster_is_not_obeyed(
    line: Line, autojump_clock: MockClock, expect_log: ExpectLog
) -> None:
    """Its own may have lost its disk, and be restored from what this server keeps."""
    expect_log("refuses this server: another cluster")

    def refuse(message: Register) -> None:
        raise WrongCluster("another cluster")

    line.metad.on_register = refuse
    async with line.running():
        await trio.sleep(60)
        assert not line.metad.heartbeats
        line.metad.on_register = lambda message: None
        await trio.sleep(10)
        assert line.metad.heartbeats


async def test_a_removed_server_ends(line: Line, autojump_clock: MockClock) -> None:
    def refuse(message: Register) -> None:
        raise Removed("it was removed")

    line.metad.on_register = refuse
    with pytest.RaisesGroup(Removed), trio.fail_after(10):
        await line.one.service.run()


async def test_a_predecessor_is_waited_for(line: Line, autojump_clock: MockClock) -> None:
    until = trio.current_time() + REFUSED_MAX_S / 2

    def refuse(message: Register) -> None:
        if trio.current_time() < until:
            raise AlreadyRunning("up elsewhere")

    line.metad.on_register = refuse
    async with line.running():
        assert trio.current_time() >= until
        assert len(line.metad.registrations) == 1


async def test_a_double_ends_the_daemon(line: Line, autojump_clock: MockClock) -> None:
    def refuse(message: Register) -> None:
        raise AlreadyRunning("up elsewhere")

    line.metad.on_register = refuse
    started = trio.current_time()
    with pytest.RaisesGroup(AlreadyRunning):
        await line.one.service.run()
    assert trio.current_time() - started > REFUSED_MAX_S


async def test_a_clone_of_a_living_server_ends_at_once(
    line: Line, autojump_clock: MockClock
) -> None:
    def refuse(message: Register) -> None:
        raise IdentityTaken("up elsewhere, and heard")

    line.metad.on_register = refuse
    started = trio.current_time()
    with pytest.RaisesGroup(IdentityTaken):
        await line.one.service.run()
    assert trio.current_time() == started


async def test_a_metad_that_answers_nonsense_is_tried_on(
    line: Line, autojump_clock: MockClock, expect_log: ExpectLog
) -> None:
    expect_log("does not answer")
    refusals = 3

    def refuse(message: Register) -> None:
        nonlocal refusals
        if refusals:
            refusals -= 1
            raise Invalid("no")

    line.metad.on_register = refuse
    async with line.running():
        await trio.sleep(20)
    assert len(line.metad.registrations) == 1


async def test_a_metad_of_another_release_is_told_from_one_that_is_away(
    line: Line, autojump_clock: MockClock, expect_log: ExpectLog
) -> None:
    expect_log("metad at metad:9400 does not answer")
    expect_log("metad at metad:9400 refuses this server: you speak 1, this server speaks 2")

    def refuse(message: Register) -> None:
        raise WrongVersion("you speak 1, this server speaks 2")

    line.metad.down()
    async with line.running():
        await trio.sleep(20)
        line.metad.on_register = refuse
        line.metad.up()
        await trio.sleep(20)
    assert line.metad.registrations == []


async def test_orders_about_one_chunk_are_carried_out_in_their_order(
    line: Line, autojump_clock: MockClock
) -> None:
    """A verification that was ordered after a deletion finds what that has left."""
    put(line.one.store, A, DATA)
    async with line.running():
        await trio.sleep(0.5)
        line.metad.orders = [
            line.order("delete", 1),
            line.order("verify", 2),
            line.order("copy", 3),
            line.order("verify", 4),
        ]
        put(line.two.store, A, DATA)
        await trio.sleep(2.5)
    assert line.results() == [(1, True), (2, False), (3, True), (4, True)]


async def test_what_is_called_off_is_not_carried_out_and_has_a_result(
    line: Line, autojump_clock: MockClock
) -> None:
    put(line.one.store, A, DATA)
    async with line.running():
        await trio.sleep(0.5)
        line.metad.orders = [line.order("verify", 1), line.order("delete", 2)]
        line.metad.called_off = [2, 3]
        await trio.sleep(2.5)
    assert sorted(line.results()) == [(1, True), (2, False), (3, False)]
    assert A in line.one.store.files


async def test_it_takes_the_incarnation_that_metad_gives(
    line: Line, autojump_clock: MockClock
) -> None:
    line.metad.incarnation = 7
    async with line.running():
        await trio.sleep(1.5)
        line.metad.wants_registration = True
        await trio.sleep(2)
    assert [each.incarnation for each in line.metad.registrations] == [1, 7]
    assert [each.first for each in line.metad.registrations] == [True, False]
    assert {each.incarnation for each in line.metad.heartbeats} == {7}
    (process,) = {each.process for each in line.metad.registrations + line.metad.heartbeats}
    assert process != ""


async def test_peers_that_are_not_reached_are_reported(
    line: Line, autojump_clock: MockClock
) -> None:
    line.transport.down(line.two.address)
    async with line.running():
        await trio.sleep(0.5)
        line.metad.orders = [line.order("copy")]
        await trio.sleep(4)
    (result,) = {
        each.order_id: each for beat in line.metad.heartbeats for each in beat.results
    }.values()
    assert result.unreachable == [line.two.address]
    met = [each for beat in line.metad.heartbeats for each in beat.peers]
    assert [(each.address, each.calls, each.failed) for each in met] == [(line.two.address, 1, 1)]
