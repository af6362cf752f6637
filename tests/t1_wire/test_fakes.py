"""The in-memory network behaves like the real one where it matters."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from typing import Any

import pytest
import trio
import trio.testing

from dfswire.client import Client
from dfswire.errors import NotSupported, Unavailable
from dfswire.messages import Empty, Event
from dfswire.metadata import FollowEvents
from tests.fakes import DirectTransport, Faults, FaultyTransport
from tests.t1_wire.services import Chunkd, Metad, read_request, write_request
from tests.t1_wire.test_server import _open_files

A = "a:1"
FOLLOW = FollowEvents(session="s")


@pytest.fixture(params=["in the caller's task", "apart"])
async def network(request: pytest.FixtureRequest, nursery: trio.Nursery) -> DirectTransport:
    return DirectTransport({}, nursery=nursery if request.param == "apart" else None)


async def test_calls_and_bodies(network: DirectTransport) -> None:
    chunkd, client = Chunkd(), Client(transport=network)
    network.up(A, chunkd.dispatcher)

    async def pieces() -> AsyncIterator[bytes]:
        yield b"abc"
        yield b""
        yield b"defg"

    await client.call("chunk.write", A, write_request(7), body=pieces(), body_length=7)
    assert chunkd.content == b"abcdefg"
    with pytest.raises(Unavailable, match="early"):
        await client.call("chunk.write", A, write_request(8), body=pieces(), body_length=8)
    await client.call("chunk.write", A, write_request(7), body=b"abcdefg")
    buffer, open_before = bytearray(10), _open_files()
    for disk in ("file", "memory"):
        request = read_request(3, disk, offset=2)
        _, body = await client.call("chunk.read", A, request, into=memoryview(buffer))
        assert bytes(body) == bytes(buffer[:3]) == b"cde"
    assert _open_files() == open_before
    with pytest.raises(NotSupported):
        await client.call("chunk.write", A, write_request(1, "full"), body=b"x")


async def test_who_is_not_there_is_unavailable(network: DirectTransport) -> None:
    with pytest.raises(Unavailable, match="nobody listens"):
        await Client(transport=network).call("chunkd.hello", A, Empty())


async def test_a_server_that_dies_fails_calls_under_way(
    network: DirectTransport, autojump_clock: trio.testing.MockClock
) -> None:
    chunkd, client = Chunkd(), Client(transport=network)
    network.up(A, chunkd.dispatcher)
    chunkd.hang = True

    async def kill() -> None:
        await trio.sleep(1)
        network.down(A)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(kill)
        with pytest.raises(Unavailable, match="died"):
            await client.call("chunkd.hello", A, Empty(), attempts=1)
    assert trio.current_time() < 2


async def test_streams(network: DirectTransport) -> None:
    metad, client = Metad(), Client(transport=network)
    network.up(A, metad.dispatcher)
    async with client.stream("session.events", A, FOLLOW) as events:
        await metad.sender.send(Event(number=1))
        assert (await anext(events)).number == 1
    assert metad.stream_ended.is_set()


@pytest.mark.parametrize("waiting", [True, False])
async def test_a_server_that_dies_breaks_its_streams(
    network: DirectTransport, nursery: trio.Nursery, waiting: bool
) -> None:
    metad, client = Metad(), Client(transport=network)
    network.up(A, metad.dispatcher)

    async def kill() -> None:
        await trio.testing.wait_all_tasks_blocked()
        network.down(A)

    async with client.stream("session.events", A, FOLLOW) as events:
        await metad.sender.send(Event(number=1))
        await anext(events)
        if waiting:
            nursery.start_soon(kill)
        else:
            network.down(A)
            network.up(A, Metad().dispatcher)  # a new server knows nothing of the old stream
        with pytest.raises(Unavailable, match="died"):
            await anext(events)


async def test_a_caller_that_gives_up_does_not_stop_a_server_apart(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    chunkd, done, open_before = Chunkd(content=b"abc"), trio.Event(), _open_files()
    real_read = chunkd.read

    async def slow_read(request: Any, body: Any) -> Any:
        with trio.CancelScope(shield=True):
            await trio.sleep(10)
        reply = await real_read(request, body)
        done.set()
        return reply

    chunkd.dispatcher._handlers["chunk.read"] = slow_read
    client = Client(transport=DirectTransport({A: chunkd.dispatcher}, nursery=nursery))
    with trio.move_on_after(1):
        await client.call("chunk.read", A, read_request(3, "file"), deadline_s=100)
    assert not done.is_set()
    await done.wait()
    await trio.testing.wait_all_tasks_blocked()
    assert _open_files() == open_before, "the reply that nobody wanted was leaked"


def _faulty(chunkd: Chunkd, **how: Any) -> tuple[Client, FaultyTransport]:
    network = FaultyTransport(DirectTransport({A: chunkd.dispatcher}), **how)
    return Client(transport=network), network


async def test_scripted_faults(autojump_clock: trio.testing.MockClock) -> None:
    chunkd = Chunkd()
    client, network = _faulty(chunkd, script=".xrds", delay_s=2.0)
    executed = []
    for _ in range(6):
        before, started = chunkd.counts["hello"], trio.current_time()
        try:
            await client.call("chunkd.hello", A, Empty(), attempts=1)
            outcome = "ok"
        except Unavailable:
            outcome = "lost"
        executed.append((outcome, chunkd.counts["hello"] - before, trio.current_time() - started))
    assert executed == [
        ("ok", 1, 0),
        ("lost", 0, 0),
        ("lost", 1, 0),
        ("ok", 2, 0),
        ("ok", 1, 2),
        ("ok", 1, 0),
    ]
    assert network.history == ".xrds."


async def test_random_faults_are_repeatable(autojump_clock: trio.testing.MockClock) -> None:
    faults = Faults(lost_request=0.2, lost_reply=0.2, duplicate=0.2, delay=0.2)
    histories = []
    for _ in range(2):
        client, network = _faulty(Chunkd(), faults=faults, source=random.Random(7), delay_s=0.01)
        for _ in range(30):
            try:
                await client.call("chunkd.hello", A, Empty(), attempts=1)
            except Unavailable:
                continue
        histories.append(network.history)
    assert histories[0] == histories[1]
    assert set(histories[0]) == set(".xrds")


def test_unknown_letters_are_refused() -> None:
    with pytest.raises(ValueError, match="q"):
        _faulty(Chunkd(), script="..q")
