"""The line to metad: registration, heartbeats, results and reports that must not get lost."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from chunkd.heartbeat import REFUSED_MAX_S
from dfswire.errors import (
    AlreadyRunning,
    CorruptChunk,
    IdentityTaken,
    Invalid,
    Removed,
    WrongCluster,
    WrongVersion,
)
from dfswire.hosts import Register
from tests.suites.chunkstore import A, B, ExpectLog, put
from tests.t2_chunkd.lines import DATA, Line


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
