"""The simulated network's own rules, where they are finer than those of tests/fakes.py."""

from __future__ import annotations

import random

import pytest
import trio
import trio.testing

from dfswire.client import Client
from dfswire.errors import Unavailable
from dfswire.messages import Event
from dfswire.metadata import FollowEvents
from tests.simulation.network import Network
from tests.t1_wire.services import Metad

A = "metad:1"
FOLLOW = FollowEvents(session="s")


async def test_a_stream_ends_with_the_process_that_opened_it(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    """Its answer waits at a cut link while another process takes the server's place."""
    network = Network(nursery, random.Random(0), lambda text: None)
    client, first, second = Client(transport=network.endpoint("client0")), Metad(), Metad()
    network.up(A, first.dispatcher)
    network.cut("metad", "client0")
    await first.sender.send(Event(number=1))

    async def restart() -> None:
        await trio.sleep(1)
        network.down(A)
        network.up(A, second.dispatcher)
        network.heal()

    nursery.start_soon(restart)
    with pytest.raises(Unavailable, match="died"):
        async with client.stream("session.events", A, FOLLOW) as events:
            await anext(events)
