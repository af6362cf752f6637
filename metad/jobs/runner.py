"""Jobs: long work in small steps that outlives a restart of metad.

A kind of work registers itself with a function that does one bounded piece and says where the next
one begins; Jobs keeps that in table job, calls the function until it says that all is done, and
tells operators.  A step may be repeated (metad may end between the work and the note of it), so it
must not mind.  Errors of ours are tried again with growing pauses; a job that gives up says why,
and can be started again where it was.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec
import trio

from dfswire.errors import DFSError, NoEntry, UsageError
from dfswire.jobs import JobRequest, JobsReply, JobsRequest, JobState, JobStatus, StartJob
from metad.jobs import rows as jobrows
from metad.jobs.rows import Job, Progress
from metad.observe.eventlog import EventLog
from metad.storage.database import Database

log = logging.getLogger(__name__)

FAILURES_MAX = 30  # in a row, with pauses: about ten minutes
PAUSE_FIRST_S = 0.5
PAUSE_MOST_S = 30.0
RATE_OVER_S = 20.0  # a rate is that of about the last so many seconds


def takes_no_argument(argument: dict[str, Any]) -> None:
    """The check of most kinds.  Raises UsageError."""
    if argument:
        raise UsageError(f"jobs of this kind take no argument, not even {', '.join(argument)}")


@dataclass(frozen=True)
class Kind:
    """A kind of job.

    `step` does a bounded piece of the work from `job.cursor` on.  `check` raises UsageError for an
    argument that makes no sense, before anything is started; most kinds take none.  `figures` is
    what operators are told of a cursor, beside `done` and `total`.
    """

    name: str
    unit: str
    step: Callable[[Job], Awaitable[Progress]]
    check: Callable[[dict[str, Any]], None] = takes_no_argument
    figures: Callable[[Any], dict[str, int]] = lambda cursor: {}


@dataclass
class _Run:
    """A job that is being worked on, as far as it is now."""

    job: Job
    since_s: float
    since_done: int
    rate: float = 0.0
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)

    def measure(self, now: float, done: int) -> None:
        elapsed_s = now - self.since_s
        if elapsed_s > 0:
            self.rate = max(done - self.since_done, 0) / elapsed_s
        if elapsed_s >= RATE_OVER_S:
            self.since_s, self.since_done = now, done


class Jobs:
    """All jobs of a metad; handlers of the job.* calls."""

    def __init__(
        self,
        db: Database,
        event_log: EventLog,
        *,
        clock: Callable[[], float],
        wall_ns: Callable[[], int],
    ) -> None:
        self._db = db
        self._event_log = event_log
        self._clock = clock
        self._wall_ns = wall_ns
        self._kinds: dict[str, Kind] = {}
        self._runs: dict[int, _Run] = {}
        self._wanted = trio.Event()

    def register(self, kind: Kind) -> None:
        """From now on there are jobs of this kind."""
        self._kinds[kind.name] = kind

    # -- for the rest of metad ------------------------------------------------------------------

    async def begin(
        self,
        kind: str,
        argument: dict[str, Any],
        name: str = "",
        *,
        also: Callable[[], None] = lambda: None,
    ) -> Job:
        """Start a job, or go on with the one of this name; `also` is done in the same transaction.

        Raises UsageError.
        """
        known = self._kinds.get(kind)
        if known is None:
            raise UsageError(f"no jobs of kind {kind!r}; there are {', '.join(self._kinds)}")
        known.check(argument)
        now_ns = self._wall_ns()

        def both() -> tuple[Job, bool]:
            also()
            return jobrows.begin(self._db, kind, known.unit, argument, name, now_ns)

        job, begun = await self._db.write(both)
        if begun:
            self._event_log.add("job.started", str(job.id), f"{job.name} begins")
        self._wanted.set()
        return job

    async def halt(self, number: int) -> Job:
        """Stop a job; a step that it is at is repeated later.  Raises NoEntry.

        One that has ended stays so.
        """
        now_ns = self._wall_ns()
        job, halted = await self._db.write(
            lambda: jobrows.end(self._db, number, "stopped", "stopped by an operator", now_ns)
        )
        if halted:
            self._event_log.add("job.stopped", str(job.id), f"{job.name} was stopped")
        if (run := self._runs.get(number)) is not None:
            run.scope.cancel()
        return job

    def find(self, kind: str, **argument: Any) -> Job | None:
        """The newest job of a kind that has these in its argument and is not done."""
        for job in jobrows.all_jobs(self._db):
            if (
                job.kind == kind
                and job.state != "done"
                and argument.items() <= job.argument.items()
            ):
                return job
        return None

    # -- calls ----------------------------------------------------------------------------------

    async def list(self, request: JobsRequest) -> JobsReply:
        """Raises NoEntry for a job that is not known (any more)."""
        jobs = jobrows.all_jobs(self._db)
        if request.job or request.name:
            jobs = [each for each in jobs if request.job == each.id or request.name == each.name]
            if not jobs:
                raise NoEntry(f"no job {request.job or request.name}")
        return JobsReply(jobs=[self.status(each) for each in jobs])

    def running(self) -> Sequence[JobStatus]:
        """Those that are not stopped, done or failed."""
        return [self.status(each) for each in self.running_jobs()]

    def running_jobs(self) -> Sequence[Job]:
        """The same, as they are in the table."""
        return [each for each in jobrows.all_jobs(self._db) if each.state == "running"]

    async def start(self, request: StartJob) -> JobStatus:
        """Raises UsageError."""
        try:
            argument = msgspec.json.decode(request.argument, type=dict[str, Any])
        except msgspec.DecodeError as problem:
            raise UsageError(f"the argument of a job is a JSON object: {problem}") from problem
        return self.status(await self.begin(request.kind, argument, request.name))

    async def stop(self, request: JobRequest) -> JobStatus:
        """Raises NoEntry."""
        return self.status(await self.halt(request.job))

    async def resume(self, request: JobRequest) -> JobStatus:
        """A stopped or failed job goes on where it was.  Raises NoEntry, UsageError (done)."""
        job = jobrows.need(self._db, request.job)
        if job.state == "done":
            raise UsageError(
                f"job {job.id} ({job.name}) is done, nothing was started; start another {job.kind}"
            )
        return self.status(await self.begin(job.kind, job.argument, job.name))

    def status(self, job: Job) -> JobStatus:
        """A job as operators are told of it."""
        run = self._runs.get(job.id)
        rate = 0.0
        if run is not None and job.state == "running":
            job, rate = run.job, run.rate
        left = job.total - job.done
        kind = self._kinds.get(job.kind)  # one of another version is not known
        figures = kind.figures(job.cursor) if kind is not None else {}
        return JobStatus(
            job=job.id,
            name=job.name,
            kind=job.kind,
            argument=msgspec.json.encode(job.argument).decode(),
            state=job.state,
            done=job.done,
            total=job.total,
            unit=job.unit,
            rate=rate,
            remaining_s=left / rate if rate and job.total else None,
            errors=job.errors,
            message=job.message,
            figures=figures,
            started_ns=job.started_ns,
            ended_ns=job.ended_ns,
        )

    # -- the work -------------------------------------------------------------------------------

    async def run_forever(self) -> None:
        """Work on every running job, those of an earlier metad too, until cancelled."""
        async with trio.open_nursery() as nursery:
            while True:
                self._wanted = trio.Event()
                for job in jobrows.all_jobs(self._db):
                    if job.state == "running" and job.id not in self._runs:
                        self._runs[job.id] = run = _Run(job, self._clock(), job.done)
                        nursery.start_soon(self._run, run)
                await self._wanted.wait()

    async def _run(self, run: _Run) -> None:
        try:
            with run.scope:
                state, message = await self._work(run)
                await self._end(run.job, state, message)
        finally:
            del self._runs[run.job.id]
            self._wanted.set()  # it may have been stopped and started again meanwhile

    async def _work(self, run: _Run) -> tuple[JobState, str]:
        """Step by step, until it is done or has failed; how that ended."""
        kind = self._kinds.get(run.job.kind)
        if kind is None:
            return "failed", f"this metad knows no jobs of kind {run.job.kind!r}"
        failures = 0
        while True:
            try:
                progress = await kind.step(run.job)
                await self._note(run, progress)
            except DFSError as problem:
                failures += 1
                text = f"{type(problem).__name__}: {problem}"
                if failures >= FAILURES_MAX or isinstance(problem, UsageError):
                    return "failed", text
                log.info("job %d (%s) is tried again: %s", run.job.id, run.job.name, text)
                run.job = replace(run.job, errors=run.job.errors + 1, message=text)
                await trio.sleep(min(PAUSE_FIRST_S * 2.0**failures, PAUSE_MOST_S))
                continue
            except Exception as bug:
                # Ending metad would not help: the job would go on at its next start, and so on.
                log.exception("job %d (%s) failed", run.job.id, run.job.name)
                return "failed", f"{type(bug).__name__}: {bug}"
            failures = 0
            if progress.finished:
                return "done", progress.message
            await trio.sleep(progress.pause_s)

    async def _note(self, run: _Run, progress: Progress) -> None:
        noted = replace(
            run.job,
            cursor=progress.cursor,
            done=progress.done,
            total=progress.total,
            message=progress.message,
        )
        if noted != run.job:
            await self._db.write(lambda: jobrows.note(self._db, run.job, progress))
            run.job = noted
        run.measure(self._clock(), noted.done)

    async def _end(self, job: Job, state: JobState, message: str) -> None:
        """Note it, however long that takes; unless an operator was faster and stopped it."""

        def end() -> bool:
            return jobrows.end(self._db, job.id, state, message, self._wall_ns())[1]

        while True:
            try:
                ended = await self._db.write(end)
                break
            except DFSError as problem:
                log.warning("job %d cannot be ended now: %s", job.id, problem)
                await trio.sleep(PAUSE_MOST_S)
        if ended:
            text = f"{job.name}: {message}" if message else job.name
            self._event_log.add(f"job.{state}", str(job.id), text)
