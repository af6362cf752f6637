"""What a client tells of servers, and how it uses that itself."""

from __future__ import annotations

import trio
from trio.testing import MockClock

from dfsmount.remote.experience import AVOIDED_S, Meetings
from dfsmount.remote.serverhealth import FAILED_FOR_S, ServerHealth
from dfswire.health import EXPERIENCES_MAX, Experience
from dfswire.messages import Replica


def usual(meetings: Meetings, *addresses: str, seconds: float = 0.01) -> None:
    for address in addresses:
        for _ in range(8):
            meetings.took(address, "read", seconds, 0.0)
    meetings.take()


def test_slow_is_what_takes_many_times_as_long_as_elsewhere() -> None:
    meetings = Meetings()
    usual(meetings, "a", "b")
    meetings.took("c", "read", 0.2, 0.0)
    meetings.took("b", "read", 0.09, 0.0)
    meetings.failed("b")
    assert meetings.take() == [
        Experience(address="c", calls=1, slow=1),
        Experience(address="b", calls=2, failed=1),
    ]
    assert meetings.take() == []


def test_when_everything_is_slow_no_server_is() -> None:
    meetings = Meetings()
    usual(meetings, "a", "b", "c", seconds=3.0)
    meetings.took("a", "read", 6.0, 0.0)
    assert meetings.take() == [Experience(address="a", calls=1)]


def test_kinds_are_not_compared_with_each_other_nor_a_server_with_itself() -> None:
    meetings = Meetings()
    usual(meetings, "a")
    meetings.took("a", "read", 5.0, 0.0)
    meetings.took("b", "store", 5.0, 0.0)
    assert [each.slow for each in meetings.take()] == [0, 0]


def test_trouble_is_more_than_one_bad_call() -> None:
    meetings = Meetings()
    usual(meetings, "a", "b")
    meetings.failed("c")
    assert not meetings.is_trouble
    meetings.took("c", "read", 0.5, 1.0)
    assert meetings.is_trouble
    assert meetings.slow_ones(1.0) == []
    meetings.took("c", "read", 0.5, 2.0)
    assert meetings.slow_ones(2.0) == ["c"]
    assert meetings.slow_ones(1.0 + AVOIDED_S) == []


def test_the_worst_are_told_when_there_are_too_many() -> None:
    meetings = Meetings()
    for number in range(EXPERIENCES_MAX + 5):
        meetings.took(f"s{number}", "read", 0.01, 0.0)
    meetings.failed("bad")
    told = meetings.take()
    assert len(told) == EXPERIENCES_MAX
    assert told[0].address == "bad"


async def test_replicas_that_metad_doubts_come_later_unless_they_answered(
    autojump_clock: MockClock,
) -> None:
    health = ServerHealth()
    doubted = Replica(disk="x", address="a:1", doubtful=True)
    other = Replica(disk="y", address="b:1")
    health.succeeded("b:1", 100, 0.2)
    assert health.order([doubted, other], 100) == [other, doubted]
    health.succeeded("a:1", 100, 0.1)
    assert health.order([doubted, other], 100) == [doubted, other]
    await trio.sleep(FAILED_FOR_S)
    assert health.order([doubted, other], 100) == [other, doubted]


async def test_slow_servers_get_nothing_new_and_metad_hears_of_them(
    autojump_clock: MockClock,
) -> None:
    health = ServerHealth()
    told: list[float] = []
    health.on_trouble = lambda: told.append(trio.current_time())
    for _ in range(8):
        health.stored("a:1", 100, 0.01)
        health.stored("b:1", 100, 0.01)
    health.stored("c:1", 100, 1.0)
    assert (health.to_avoid(), told) == ([], [])
    health.stored("c:1", 100, 1.0)
    assert health.to_avoid() == ["c:1"]
    assert told
    replicas = [Replica(disk="x", address="c:1"), Replica(disk="y", address="a:1")]
    assert health.order(replicas, 100)[0].address == "a:1"
    assert health.take()[0] == Experience(address="c:1", calls=2, slow=2)
