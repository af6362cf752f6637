"""Event streams: a push is confirmed by an acknowledgement, a reopened stream, or the end."""

from __future__ import annotations

import itertools

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from dfswire.errors import SessionLost, Stale
from dfswire.messages import Event, EventPosition, Invalidated, Invalidation
from metad.sessions import events
from metad.sessions.events import EventStreams, Follower

ATTR, DATA, GONE = int(Invalidated.ATTR), int(Invalidated.DATA), int(Invalidated.GONE)


def change(inode: int, what: int = ATTR, name: bytes = b"") -> Invalidation:
    return Invalidation(inode=inode, what=what, name=name)


NUMBERS = itertools.count(1)


@pytest.fixture
def streams() -> EventStreams:
    made = EventStreams(5.0)
    made.open("a")
    return made


async def following(streams: EventStreams, session: str = "a") -> Follower:
    """An open stream whose first event, a sign of life, has arrived."""
    follower = streams.follow(session, next(NUMBERS))
    first = await anext(follower)
    assert not first.invalidations and not first.drop_all
    return follower


async def test_the_first_event_comes_at_once(streams: EventStreams) -> None:
    follower = streams.follow("a", next(NUMBERS))
    assert await anext(follower) == Event(number=1)
    assert streams.connected("a")


async def test_a_push_is_done_when_acknowledged(streams: EventStreams) -> None:
    follower = await following(streams)
    delivery = streams.push({"a": [change(5)]})
    assert await anext(follower) == Event(number=2, tick=1, invalidations=[change(5)])
    streams.acknowledge("a", 1)
    assert not delivery.done
    streams.acknowledge("a", 2)
    await delivery.wait()


async def test_every_session_of_the_plan_must_confirm(streams: EventStreams) -> None:
    streams.open("b")
    one, other = await following(streams), await following(streams, "b")
    delivery = streams.push({"a": [change(5)], "b": [change(5)]})
    await anext(one)
    await anext(other)
    streams.acknowledge("a", 2)
    assert not delivery.done
    streams.acknowledge("b", 2)
    assert delivery.done


async def test_a_plan_for_nobody_is_done(streams: EventStreams) -> None:
    assert streams.push({}).done
    assert streams.push({"gone": [change(5)]}).done


async def test_what_is_pushed_while_the_client_is_slow_is_merged(streams: EventStreams) -> None:
    follower = await following(streams)
    first = streams.push({"a": [change(5, ATTR), change(1, 4, b"x")]})
    second = streams.push({"a": [change(5, DATA), change(1, 4, b"y")]})
    event = await anext(follower)
    assert event.invalidations == [change(5, ATTR | DATA), change(1, 4, b"x"), change(1, 4, b"y")]
    streams.acknowledge("a", event.number)
    assert first.done and second.done


async def test_an_acknowledgement_confirms_no_later_push(streams: EventStreams) -> None:
    follower = await following(streams)
    streams.push({"a": [change(5)]})
    await anext(follower)
    later = streams.push({"a": [change(6)]})
    streams.acknowledge("a", 2)
    assert not later.done


async def test_drop_all_replaces_everything_but_questions(streams: EventStreams) -> None:
    follower = await following(streams)
    streams.push({"a": [change(5, ATTR), change(6, ATTR | GONE)]})
    streams.drop_all("a")
    event = await anext(follower)
    assert event.drop_all and event.invalidations == [change(6, ATTR | GONE)]


async def test_without_a_connection_only_reopening_confirms(streams: EventStreams) -> None:
    delivery = streams.push({"a": [change(5)]})
    streams.acknowledge("a", 100)
    assert not delivery.done
    await following(streams)
    assert delivery.done


async def test_a_late_acknowledgement_of_the_previous_connection_confirms_nothing(
    streams: EventStreams,
) -> None:
    first = await following(streams)
    streams.push({"a": [change(5)]})
    late = (await anext(first)).number
    await first.aclose()
    assert not streams.connected("a")
    second = await following(streams)
    delivery = streams.push({"a": [change(6)]})
    await anext(second)
    streams.acknowledge("a", late)
    streams.acknowledge("a", 1000)
    assert not delivery.done


async def test_a_new_connection_ends_the_old_one(streams: EventStreams) -> None:
    first = await following(streams)
    second = await following(streams)
    with pytest.raises(StopAsyncIteration):
        await anext(first)
    await first.aclose()
    assert streams.connected("a")
    assert await anext_soon(second, streams)


async def anext_soon(follower: Follower, streams: EventStreams) -> Event:
    streams.push({follower.session: [change(7)]})
    return await anext(follower)


async def test_the_end_of_a_session_confirms_and_ends_the_stream(streams: EventStreams) -> None:
    follower = await following(streams)
    delivery = streams.push({"a": [change(5)]})
    streams.end("a")
    streams.end("a")
    assert delivery.done
    assert [event async for event in follower] == []
    with pytest.raises(SessionLost):
        streams.follow("a", next(NUMBERS))
    streams.acknowledge("a", 1)


async def test_an_idle_stream_gives_signs_of_life(
    streams: EventStreams, autojump_clock: MockClock
) -> None:
    follower = await following(streams)
    began = trio.current_time()
    assert await anext(follower) == Event(number=2)
    assert trio.current_time() - began == pytest.approx(5.0)


async def test_a_push_wakes_an_idle_stream(
    streams: EventStreams, nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    follower = await following(streams)
    got: list[Event] = []

    async def wait_for_one() -> None:
        got.append(await anext(follower))

    nursery.start_soon(wait_for_one)
    await wait_all_tasks_blocked()
    streams.push({"a": [change(5)]})
    await wait_all_tasks_blocked()
    assert got == [Event(number=2, tick=1, invalidations=[change(5)])]


async def test_a_client_that_lags_too_far_must_reconnect(
    streams: EventStreams, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "PENDING_MAX", 3)
    follower = await following(streams)
    delivery = streams.push({"a": [change(inode) for inode in range(2, 6)]})
    with pytest.raises(StopAsyncIteration):
        await anext(follower)
    assert not delivery.done
    await following(streams)
    assert delivery.done


async def test_waiting_for_sessions_that_have_not_reconnected(streams: EventStreams) -> None:
    delivery = streams.wait_for_reopening(["a", "gone"])
    assert not delivery.done
    streams.follow("a", next(NUMBERS))
    assert delivery.done


async def test_a_late_copy_does_not_open_the_stream_again(streams: EventStreams) -> None:
    follower = streams.follow("a", 7)
    delivery = streams.push({"a": [change(5)]})
    for number in (6, 7):
        with pytest.raises(Stale):
            streams.check_new("a", number)
    streams.check_new("a", 8)
    assert not delivery.done
    assert (await anext(follower)).number == 1


async def test_what_has_not_been_heard(streams: EventStreams) -> None:
    assert streams.unheard("a") is None
    assert streams.unheard("gone") is None
    follower = streams.follow("a", 7)
    assert streams.unheard("a") is None
    streams.push({"a": [change(5)]})
    assert streams.unheard("a") == EventPosition(stream=7, tick=1)
    assert (await anext(follower)).tick == 1
    streams.acknowledge("a", 1)
    assert streams.unheard("a") is None
