"""`dfs jobs` and `dfs job`: what is asked, what is shown, and how they end."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from dfsmount.cli import jobs
from dfsmount.cli.app import main
from dfswire.errors import Unavailable
from dfswire.jobs import JobRequest, JobsReply, JobsRequest, JobStatus, StartJob

JOB = JobStatus(
    job=7,
    name="drain-7",
    kind="drain",
    argument="{}",
    state="running",
    done=1 << 20,
    total=4 << 20,
    unit="bytes",
    rate=1024.0,
    remaining_s=3600.0,
    errors=2,
    message="copies [3]",
    started_ns=10**18,
)


def with_(**changes: Any) -> JobStatus:
    return msgspec.structs.replace(JOB, **changes)


class Asked(list[Any]):
    """The questions that were asked; all get `answer`."""

    answer: Any = JobsReply(jobs=[JOB])

    def __call__(self, *question: Any) -> Any:
        self.append(question)
        return self.answer


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    asked = Asked()
    monkeypatch.setattr(jobs, "ask", asked)
    return asked


def run(*arguments: str) -> int:
    return main([*arguments, "--url", "h:1"])


def test_jobs(asked: Asked, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("jobs") == 0
    assert asked == [("h:1", "job.list", JobsRequest())]
    shown = capsys.readouterr().out
    for text in ("drain", "running", "1.0 MB of 4.2 MB", "1:00:00", "copies [3]"):
        assert text in shown
    assert run("jobs", "--json") == 0
    assert json.loads(capsys.readouterr().out)["jobs"][0]["name"] == "drain-7"


@pytest.mark.parametrize(
    ("arguments", "question"),
    [
        (["start", "scan"], ("job.start", StartJob(kind="scan"))),
        (
            ["start", "scan", "--argument", "{}", "--name", "n"],
            ("job.start", StartJob(kind="scan", name="n")),
        ),
        (["start", "7"], ("job.resume", JobRequest(job=7))),
        (["stop", "7"], ("job.stop", JobRequest(job=7))),
    ],
)
def test_what_is_asked(
    asked: Asked,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    question: tuple[str, Any],
) -> None:
    asked.answer = JOB
    assert run("job", *arguments) == 0
    assert asked == [("h:1", *question)]
    shown = capsys.readouterr()
    assert "job 7 (drain-7) running: 1.0 MB of 4.2 MB\ncopies [3]\n1:00:00 left" in shown.out
    assert "2 steps failed" in shown.err
    assert run("job", *arguments, "--json") == 0
    assert json.loads(capsys.readouterr().out)["job"] == 7


@pytest.mark.parametrize(("state", "ended"), [("running", 0), ("done", 0), ("failed", 1)])
def test_status_ends_with_1_for_a_job_that_failed(
    asked: Asked, capsys: pytest.CaptureFixture[str], state: str, ended: int
) -> None:
    asked.answer = JobsReply(
        jobs=[with_(state=state, errors=0, total=0, unit="chunks", done=3, remaining_s=None)]
    )
    assert run("job", "status", "7") == ended
    assert f"{state}: 3 chunks" in capsys.readouterr().out


def conversation(answers: list[Any]) -> Callable[[str, Any], Any]:
    """A stand-in for `talk`: its client gives these answers."""

    class Client:
        async def call(self, *_: Any, **__: Any) -> Any:
            answer = answers.pop(0)
            if isinstance(answer, Exception):
                raise answer
            return JobsReply(jobs=[answer])

    def talk(_address: str, talker: Any) -> Any:
        import trio
        from trio.testing import MockClock

        return trio.run(talker, Client(), clock=MockClock(autojump_threshold=0))

    return talk


def test_wait_follows_it_to_its_end_through_an_absence_of_metad(
    asked: Asked, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked.answer = JOB
    answers = [
        with_(done=2 << 20),
        Unavailable("gone"),
        with_(state="done", message="ok", errors=0),
    ]
    monkeypatch.setattr(jobs, "talk", conversation(answers))
    assert run("job", "start", "7", "--wait") == 0
    assert answers == []
    shown = capsys.readouterr()
    assert "done: 1.0 MB of 4.2 MB\nok\n" in shown.out
    assert "Traceback" not in shown.err


@pytest.mark.parametrize("options", [["--argument", '{"x": 1}'], ["--name", "n"]])
def test_a_job_that_is_known_has_its_argument_and_name(
    asked: Asked, capsys: pytest.CaptureFixture[str], options: list[str]
) -> None:
    assert run("job", "start", "7", *options) == 2
    assert "job 7 has its argument and its name already" in capsys.readouterr().err
    assert asked == []
