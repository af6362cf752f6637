"""Jobs: long work that metad does in steps, and goes on with after a restart; the job.* calls.

A job has a name that whoever starts it chooses: the same name again is the same job, so a repeated
request starts nothing twice.
"""

from __future__ import annotations

from typing import Literal

from dfswire.messages import Message, Natural

JobState = Literal["running", "stopped", "done", "failed"]


class JobStatus(Message, frozen=True, kw_only=True):
    """One job.  `done` of `total` (0: not known yet) are in `unit`.

    `message` is how it ended, or what it does or waits for; `errors` counts steps that failed and
    were tried again.  `rate` is in units a second; `remaining_s` is None while nobody can tell.
    `figures` are what the kind counts besides, such as copies that were bad.
    """

    job: Natural
    name: str
    kind: str
    argument: str  # JSON
    state: JobState
    done: int
    total: int
    unit: str
    rate: float = 0.0
    remaining_s: float | None = None
    errors: int = 0
    message: str = ""
    figures: dict[str, int] = {}
    started_ns: int
    ended_ns: int = 0


class JobsRequest(Message, frozen=True, kw_only=True):
    """All jobs, or one: by its number, or by its name."""

    job: Natural = 0
    name: str = ""


class JobsReply(Message, frozen=True, kw_only=True):
    """The newest first."""

    jobs: list[JobStatus]


class StartJob(Message, frozen=True, kw_only=True):
    """Start a job of a kind; without a `name` it gets one of its own.

    A name that is known already starts nothing: the job is told of, and goes on if it was stopped
    or had failed.
    """

    kind: str
    argument: str = "{}"  # JSON object; what is in it depends on the kind
    name: str = ""


class JobRequest(Message, frozen=True, kw_only=True):
    """Stop a job, or let it go on."""

    job: Natural
