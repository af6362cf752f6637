"""Jobs: each step counts once, a restart goes on where it was, and failures are told."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from dfswire.errors import NoEntry, Unavailable, UsageError
from dfswire.jobs import JobRequest, JobsReply, JobsRequest, JobStatus, StartJob
from metad.jobs import rows as jobrows
from metad.jobs.rows import Job, Progress
from metad.jobs.runner import Kind
from metad.storage.database import Database
from tests.t2_metad.metad_for_tests import Metad


class Counting:
    """A kind of job that counts to `argument["to"]`, a step a second; errors can be planted."""

    def __init__(self) -> None:
        self.steps: list[int] = []
        self.trouble: list[Exception] = []
        self.gate: trio.Event | None = None

    def check(self, argument: dict[str, Any]) -> None:
        if not isinstance(argument.get("to"), int):
            raise UsageError("to: a number")

    async def step(self, job: Job) -> Progress:
        at = job.cursor or 0
        self.steps.append(at)
        if self.gate is not None:
            await self.gate.wait()
        if self.trouble:
            raise self.trouble.pop(0)
        to = job.argument["to"]
        finished = at + 1 >= to
        return Progress(at + 1, at + 1, to, "counted" if finished else "", finished, pause_s=1.0)


@pytest.fixture
def counting() -> Counting:
    return Counting()


@pytest.fixture
async def metad(db: Database, counting: Counting) -> AsyncIterator[Metad]:
    async with trio.open_nursery() as nursery:
        metad = Metad(db, nursery)
        await start(metad, counting)
        try:
            yield metad
        finally:
            metad.crash()


async def start(metad: Metad, counting: Counting) -> None:
    """(Again) with the kind registered."""
    await metad.start(background=False)
    metad.service.jobs.register(Kind("count", "numbers", counting.step, counting.check))
    scope = trio.CancelScope()
    metad._background = scope

    async def run() -> None:
        with scope:
            await metad.service.run()

    metad._nursery.start_soon(run)


async def begin(metad: Metad, to: int = 3, name: str = "") -> JobStatus:
    request = StartJob(kind="count", argument=f'{{"to": {to}}}', name=name)
    reply: JobStatus = await metad.call("job.start", request)
    return reply


async def look(metad: Metad, number: int) -> JobStatus:
    reply: JobsReply = await metad.call("job.list", JobsRequest(job=number))
    return reply.jobs[0]


async def until(metad: Metad, number: int, good: Callable[[JobStatus], bool]) -> JobStatus:
    with trio.fail_after(2000):
        while not good(now := await look(metad, number)):  # noqa: ASYNC110 - as an operator
            await trio.sleep(0.25)
    return now


def ended(job: JobStatus) -> bool:
    return job.state != "running"


async def kinds_of_events(metad: Metad) -> list[str]:
    await metad.service.state.event_log.finish()
    return [kind for (kind,) in metad.db.read("SELECT kind FROM event WHERE kind LIKE 'job.%'")]


async def test_a_job_goes_step_by_step_until_it_is_done(
    metad: Metad, autojump_clock: MockClock, counting: Counting
) -> None:
    begun = await begin(metad)
    assert (begun.name, begun.state, begun.unit) == ("count-1", "running", "numbers")
    half = await until(metad, begun.job, lambda job: job.done == 2)
    assert (half.total, half.rate > 0, half.remaining_s is not None) == (3, True, True)
    done = await until(metad, begun.job, ended)
    assert (done.state, done.done, done.message, done.errors) == ("done", 3, "counted", 0)
    assert done.ended_ns > done.started_ns
    assert counting.steps == [0, 1, 2]
    assert await kinds_of_events(metad) == ["job.started", "job.done"]


async def test_a_restart_goes_on_where_it_was(
    metad: Metad, autojump_clock: MockClock, counting: Counting
) -> None:
    begun = await begin(metad, to=10)
    await until(metad, begun.job, lambda job: job.done == 4)
    metad.crash()
    counting.steps.clear()
    await start(metad, counting)
    assert (await until(metad, begun.job, ended)).state == "done"
    assert counting.steps == [4, 5, 6, 7, 8, 9]


async def test_a_name_is_one_job(
    metad: Metad, autojump_clock: MockClock, counting: Counting
) -> None:
    one = await begin(metad, name="mine")
    again = await begin(metad, name="mine")
    assert one.job == again.job
    await until(metad, one.job, ended)
    assert (await begin(metad, name="mine")).state == "done"
    assert counting.steps == [0, 1, 2]
    with pytest.raises(UsageError, match="something else"):
        await begin(metad, to=4, name="mine")
    assert (await begin(metad)).job != one.job


async def test_what_is_stopped_goes_on_when_it_is_told_to(
    metad: Metad, autojump_clock: MockClock, counting: Counting
) -> None:
    begun = await begin(metad, to=10, name="mine")
    await until(metad, begun.job, lambda job: job.done == 4)
    stopped = await metad.call("job.stop", JobRequest(job=begun.job))
    assert (stopped.state, stopped.done) == ("stopped", 4)
    await trio.sleep(60)
    assert counting.steps == [0, 1, 2, 3]
    metad.crash()
    await start(metad, counting)
    await trio.sleep(60)
    assert counting.steps == [0, 1, 2, 3]
    assert (await metad.call("job.resume", JobRequest(job=begun.job))).state == "running"
    assert (await until(metad, begun.job, ended)).done == 10
    assert (await metad.call("job.stop", JobRequest(job=begun.job))).state == "done"
    events = await kinds_of_events(metad)
    assert events == ["job.started", "job.stopped", "job.started", "job.done"]


async def test_a_step_under_way_is_cut_short_by_stop_and_repeated(
    metad: Metad, autojump_clock: MockClock, counting: Counting
) -> None:
    counting.gate = trio.Event()
    begun = await begin(metad)
    await trio.sleep(1)
    await metad.call("job.stop", JobRequest(job=begun.job))
    assert (await metad.call("job.resume", JobRequest(job=begun.job))).state == "running"
    counting.gate.set()
    assert (await until(metad, begun.job, ended)).state == "done"
    assert counting.steps == [0, 0, 1, 2]


async def test_an_error_of_ours_is_tried_again_and_counted(
    metad: Metad, autojump_clock: MockClock, counting: Counting
) -> None:
    counting.trouble = [Unavailable("not now"), Unavailable("not yet")]
    begun = await begin(metad)
    seen = await until(metad, begun.job, lambda job: job.errors == 1)
    assert seen.message == "Unavailable: not now"
    done = await until(metad, begun.job, ended)
    assert (done.state, done.errors, done.message) == ("done", 2, "counted")
    assert counting.steps == [0, 0, 0, 1, 2]


@pytest.mark.parametrize(
    ("trouble", "steps"),
    [
        ([Unavailable("never")] * 30, 30),
        ([UsageError("wrong")], 1),
    ],
)
async def test_a_job_that_gives_up_says_why_and_can_start_again(
    metad: Metad,
    autojump_clock: MockClock,
    counting: Counting,
    trouble: list[Exception],
    steps: int,
) -> None:
    counting.trouble = list(trouble)
    begun = await begin(metad, name="mine")
    failed = await until(metad, begun.job, ended)
    assert (failed.state, str(trouble[0]) in failed.message) == ("failed", True)
    assert len(counting.steps) == steps
    assert (await begin(metad, name="mine")).state == "running"
    assert (await until(metad, begun.job, ended)).state == "done"
    events = await kinds_of_events(metad)
    assert events == ["job.started", "job.failed", "job.started", "job.done"]


async def test_a_bug_ends_the_job_not_metad(
    metad: Metad, autojump_clock: MockClock, counting: Counting, expect_log: Callable[[str], None]
) -> None:
    expect_log(r"job 1 \(count-1\) failed")
    counting.trouble = [ZeroDivisionError("oops")]
    begun = await begin(metad)
    failed = await until(metad, begun.job, ended)
    assert (failed.state, failed.message) == ("failed", "ZeroDivisionError: oops")
    assert (await until(metad, (await begin(metad)).job, ended)).state == "done"


async def test_a_kind_that_is_no_more_fails(
    metad: Metad, autojump_clock: MockClock, counting: Counting
) -> None:
    begun = await begin(metad, to=10)
    metad.crash()
    await metad.start()
    failed = await until(metad, begun.job, ended)
    assert "no jobs of kind 'count'" in failed.message


async def test_what_is_done_is_not_started_again(
    metad: Metad, autojump_clock: MockClock, counting: Counting
) -> None:
    begun = await begin(metad)
    await until(metad, begun.job, ended)
    with pytest.raises(UsageError, match=r"job 1 \(count-1\) is done, nothing was started"):
        await metad.call("job.resume", JobRequest(job=begun.job))
    assert counting.steps == [0, 1, 2]


async def test_most_kinds_take_no_argument(metad: Metad, autojump_clock: MockClock) -> None:
    for kind in ("rebalance", "spread", "compact", "policy"):
        with pytest.raises(UsageError, match="no argument, not even x"):
            await metad.call("job.start", StartJob(kind=kind, argument='{"x": 1}'))
    assert (await metad.call("job.list", JobsRequest())).jobs == []


async def test_nonsense_is_refused(metad: Metad, autojump_clock: MockClock) -> None:
    with pytest.raises(UsageError, match="kind 'dance'"):
        await metad.call("job.start", StartJob(kind="dance"))
    for argument in ('{"to": "x"}', "{", "[]"):
        with pytest.raises(UsageError):
            await metad.call("job.start", StartJob(kind="count", argument=argument))
    for call, request in (
        ("job.stop", JobRequest(job=7)),
        ("job.resume", JobRequest(job=7)),
        ("job.list", JobsRequest(job=7)),
        ("job.list", JobsRequest(name="x")),
    ):
        with pytest.raises(NoEntry):
            await metad.call(call, request)
    assert (await metad.call("job.list", JobsRequest())).jobs == []


async def test_an_end_that_cannot_be_written_is_written_later(
    metad: Metad,
    autojump_clock: MockClock,
    monkeypatch: pytest.MonkeyPatch,
    expect_log: Callable[[str], None],
) -> None:
    expect_log("cannot be ended now")
    with monkeypatch.context() as patch:

        def refuse(*_: Any) -> Any:
            raise Unavailable("busy")

        patch.setattr(jobrows, "end", refuse)
        begun = await begin(metad)
        await until(metad, begun.job, lambda job: job.done == 3)
        await trio.sleep(1)
    assert (await until(metad, begun.job, ended)).state == "done"


def test_old_jobs_are_forgotten(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobrows, "KEPT_MAX", 2)
    monkeypatch.setattr(jobrows, "UNENDED_MAX", 2)
    day_ns = 86_400 * 10**9

    def begin(now_ns: int) -> Job:
        return jobrows.begin(db, "k", "u", {}, "", now_ns)[0]

    with db.transaction():
        old = begin(0)
        jobrows.end(db, old.id, "done", "", 1)
        recent = [begin(6 * day_ns) for _ in range(2)]
        with pytest.raises(UsageError, match="enough"):
            begin(6 * day_ns)
        assert old in jobrows.all_jobs(db) or len(jobrows.all_jobs(db)) == 3
        for each in recent:
            jobrows.end(db, each.id, "failed", "x", 6 * day_ns)
        newest = begin(8 * day_ns)
        assert [each.id for each in jobrows.all_jobs(db)] == [
            newest.id,
            *(each.id for each in reversed(recent)),
        ]
        jobrows.end(db, newest.id, "done", "", 8 * day_ns)
        begin(8 * day_ns)
        assert recent[0].id not in [each.id for each in jobrows.all_jobs(db)]
