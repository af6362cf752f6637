"""`dfs top` shows picture after picture, and outlives metad."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import pytest
import trio
from rich.console import Console, RenderableType
from trio.testing import MockClock

from dfsmount.cli import top
from dfsmount.cli.app import main
from dfswire.errors import Unavailable
from dfswire.jobs import JobsReply, JobState, JobStatus
from dfswire.observe import Traffic
from dfswire.status import ClusterStatus
from tests.t2_cli.answers import cluster, server


def job(state: JobState) -> JobStatus:
    return JobStatus(
        job=1,
        name=f"drain [{state}]",
        kind="drain",
        argument="{}",
        state=state,
        done=1,
        total=4,
        unit="chunks",
        remaining_s=90,
        started_ns=0,
    )


class Metad:
    """Answers one after the other; then Ctrl-C."""

    def __init__(self, *answers: ClusterStatus | None) -> None:
        self.answers = list(answers)

    async def call(self, name: str, address: str, request: Any) -> Any:
        assert address == "h:1"
        await trio.lowlevel.checkpoint()
        if name == "job.list":
            return JobsReply(jobs=[job("running"), job("done")])
        assert name == "cluster.status"
        if not self.answers:
            raise KeyboardInterrupt
        answer = self.answers.pop(0)
        if answer is None:
            raise Unavailable("away")
        return answer


def text_of(picture: RenderableType) -> str:
    screen = Console(width=200)
    with screen.capture() as capture:
        screen.print(picture)
    return capture.get()


def busy() -> ClusterStatus:
    traffic = Traffic(read_bytes_per_s=2e6, reads_per_s=7)
    return cluster(*(msgspec.structs.replace(server(port=n), traffic=traffic) for n in (1, 2)))


async def test_pictures_go_on_while_metad_is_away(autojump_clock: MockClock) -> None:
    shown: list[tuple[float, str]] = []
    began = trio.current_time()

    def show(reply: ClusterStatus, jobs: Sequence[JobStatus], problem: str) -> None:
        shown.append((trio.current_time() - began, text_of(top.picture_of(reply, jobs, problem))))

    metad: Any = Metad(busy(), None, None, cluster())
    with pytest.raises(KeyboardInterrupt):
        await top.watch(metad, "h:1", show, 2.0)
    assert [at for at, _ in shown] == [0, 2, 4, 6]
    assert shown[0][1].startswith("health   OK\n")
    assert "traffic  4.0 MB/s read, - written, 14/s operations" in shown[0][1]
    assert "job      drain [running]: 1 of 4 chunks, done in 90 s\n" in shown[0][1]
    assert "drain [done]" not in shown[0][1]
    assert "127.0.0.1:2" in shown[0][1]
    assert shown[2][1].startswith(
        "health   UNKNOWN: metad has not answered for 4 s: away; this is what it said last\ncluster"
    )
    assert shown[3][1].startswith("health   DEGRADED: there are no servers")


async def test_without_a_first_answer_it_ends(autojump_clock: MockClock) -> None:
    metad: Any = Metad(None)
    with pytest.raises(Unavailable):
        await top.watch(metad, "h:1", lambda *answers: None, 1.0)


@pytest.fixture
def metad(monkeypatch: pytest.MonkeyPatch) -> Metad:
    one = Metad(busy())

    def talk(address: str, conversation: Callable[[Any], Any]) -> None:
        trio.run(conversation, one, clock=MockClock(autojump_threshold=0))

    monkeypatch.setattr(top, "talk", talk)
    return one


def test_once(metad: Metad, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["top", "--url", "h:1", "--once"]) == 0
    assert capsys.readouterr().out.startswith("health   OK\n")


def test_until_it_is_interrupted(metad: Metad, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["top", "--url", "h:1"]) == 0
    assert "health   OK\n" in capsys.readouterr().out


def test_json(metad: Metad, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["top", "--url", "h:1", "--json"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    answer = json.loads(line)
    assert answer["health"]["state"] == "ok"
    assert [each["state"] for each in answer["jobs"]] == ["running", "done"]
    assert len(answer["servers"]) == 2


@pytest.mark.parametrize(("answer", "worries"), [(busy(), 1), (cluster(), 2)])
def test_json_says_that_nobody_knows_while_metad_is_away(
    metad: Metad, capsys: pytest.CaptureFixture[str], answer: ClusterStatus, worries: int
) -> None:
    metad.answers = [answer, None]
    assert main(["top", "--url", "h:1", "--json", "--interval", "2"]) == 0
    before, after = map(json.loads, capsys.readouterr().out.splitlines())
    assert before["problem"] == ""
    assert after["problem"] == "metad has not answered for 2 s: away"
    assert after["health"]["state"] == "unknown"
    assert len(after["health"]["worries"]) == worries
    assert after["health"]["worries"][0]["what"] == after["problem"]


def test_servers_can_be_told_apart_on_a_narrow_screen() -> None:
    servers = [
        msgspec.structs.replace(
            each,
            address=f"192.168.100.{number}:19500",
            chunks=1_000_000,
            total_bytes=10**13,
            free_bytes=5 * 10**12,
            traffic=Traffic(read_bytes_per_s=123e6, written_bytes_per_s=456e6, reads_per_s=99_999),
        )
        for number, each in enumerate([server(port=1), server(port=2)])
    ]
    screen = Console(width=100)
    with screen.capture() as capture:
        screen.print(top.picture_of(cluster(*servers), []))
    for each in servers:
        assert each.address in capture.get()
