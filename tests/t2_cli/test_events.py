"""What `dfs events` shows, and how it follows."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from dfsmount.cli import events
from dfsmount.cli.app import main
from dfswire.client import Client
from dfswire.errors import DFSError, Unavailable, UsageError
from dfswire.observe import EVENTS_MAX, ClusterEvent, EventsReply, EventsRequest


def event(number: int, times: int = 1) -> ClusterEvent:
    return ClusterEvent(
        number=number,
        time_ns=number * 10**9,
        kind="server.down",
        severity="warning",
        subject="s[1]",
        message="gone",
        times=times,
    )


def reply(*numbers: int, first: int = 1, last: int = 0, next_after: int = 0) -> EventsReply:
    return EventsReply(
        events=[event(number) for number in numbers],
        first=first,
        last=last or numbers[-1],
        next_after=next_after or last or numbers[-1],
    )


class Metad:
    """Answers one after the other, then ends the conversation."""

    def __init__(self, *answers: EventsReply | DFSError) -> None:
        self.answers = list(answers)
        self.requests: list[EventsRequest] = []

    async def call(self, name: str, address: str, request: Any, *, deadline_s: float) -> Any:
        assert (name, address) == ("cluster.events", "h:1")
        await trio.lowlevel.checkpoint()
        self.requests.append(request)
        if not self.answers:
            raise KeyboardInterrupt
        answer = self.answers.pop(0)
        if isinstance(answer, DFSError):
            raise answer
        return answer


Ask = Callable[..., tuple[int, list[EventsRequest]]]


@pytest.fixture
def ask(monkeypatch: pytest.MonkeyPatch) -> Ask:
    def run(metad: Metad, *options: str) -> tuple[int, list[EventsRequest]]:
        def talk(address: str, conversation: Callable[[Any], Any]) -> None:
            trio.run(conversation, metad, clock=MockClock(autojump_threshold=0))

        monkeypatch.setattr(events, "talk", talk)
        return main(["events", "--url", "h:1", *options]), metad.requests

    return run


def test_for_people(ask: Ask, capsys: pytest.CaptureFixture[str]) -> None:
    found = EventsReply(events=[event(1), event(2, times=7)], first=1, last=2, next_after=2)
    assert ask(Metad(found)) == (0, [EventsRequest(limit=100, newest=True)])
    first, second = capsys.readouterr().out.splitlines()
    assert first.endswith("  warning   server.down              s[1]: gone")
    assert second.endswith("s[1]: gone (x7)")


def test_json(ask: Ask, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--json", "--kind", "server", "--kind", "disk.failed", "--limit", "5"]
    ended, requests = ask(Metad(reply(1, 2)), *options)
    assert ended == 0
    assert requests == [EventsRequest(kinds=["server", "disk.failed"], limit=5, newest=True)]
    lines = capsys.readouterr().out.splitlines()
    assert [json.loads(line)["number"] for line in lines] == [1, 2]
    assert json.loads(lines[0])["times"] == 1


def test_since_asks_for_all_pages(ask: Ask, capsys: pytest.CaptureFixture[str]) -> None:
    metad = Metad(reply(1, 2, last=5, next_after=2), reply(4, last=5))
    ended, requests = ask(metad, "--since", "2026-11-21T12:00+00:00")
    assert ended == 0
    since_ns = 1795262400 * 10**9
    assert requests == [
        EventsRequest(since_ns=since_ns, limit=EVENTS_MAX),
        EventsRequest(since_ns=since_ns, after=2),
    ]
    assert len(capsys.readouterr().out.splitlines()) == 3


@pytest.mark.parametrize(
    ("text", "ago_s"), [("90s", 90), ("10m", 600), ("2h", 7200), ("7d", 604_800)]
)
def test_ago(text: str, ago_s: int) -> None:
    assert events.moment_ns(text, 10**6) == (10**6 - ago_s) * 10**9


@pytest.mark.parametrize("text", ["", "10", "10x", "-1s", "yesterday"])
def test_no_time(text: str) -> None:
    with pytest.raises(UsageError, match="not a time"):
        events.moment_ns(text, 0)


def test_following(ask: Ask, capsys: pytest.CaptureFixture[str]) -> None:
    metad = Metad(
        reply(3, 4),
        Unavailable("away"),
        Unavailable("away"),
        reply(9, first=8),
        EventsReply(events=[], first=1, last=2, next_after=2),  # metad was restored
    )
    ended, requests = ask(metad, "--follow")
    assert ended == 130
    assert [each.after for each in requests] == [0, 4, 4, 4, 9, 2]
    assert [each.wait_s for each in requests] == [0, 30, 30, 30, 30, 30]
    shown = capsys.readouterr()
    assert len(shown.out.splitlines()) == 3
    assert shown.err.splitlines() == [
        "dfs: metad does not answer, trying again: away",
        "dfs: events 5 to 7 are not kept any more",
    ]


def test_no_metad_at_first(ask: Ask, capsys: pytest.CaptureFixture[str]) -> None:
    assert ask(Metad(Unavailable("away")), "--follow")[0] == 2
    assert capsys.readouterr().err == "dfs: away\n"


def test_an_error_names_the_request(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def call(self: Client, *question: Any, **more: Any) -> Any:
        await trio.lowlevel.checkpoint()
        raise UsageError("no such kind")

    monkeypatch.setattr(Client, "call", call)
    assert main(["events", "--url", "h:1"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("dfs: no such kind (request ")
    assert len(error) == len("dfs: no such kind (request )\n") + 12
