"""Jobs as rows of table job: begun, noted, ended, forgotten.

Synchronous functions on the database for runner.py; those that change it belong in a mutation.
They promise that a name is one job, that only what is running is noted or ended, and that the table
stays small.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import msgspec

from dfswire.errors import NoEntry, UsageError
from dfswire.jobs import JobState
from metad.storage.database import Database
from metad.storage.statements import Row

KEPT_S = 7 * 86_400  # ended jobs
KEPT_MAX = 1000
UNENDED_MAX = 1000  # an operator has a few; a script that goes wrong must not fill the database
MESSAGE_MAX_CHARS = 1000
_COLUMNS = (
    "id, name, kind, argument, state, cursor, done, total, unit, errors, message, started_ns, "
    "ended_ns"
)
_ENDED = "state IN ('done', 'failed')"


@dataclass(frozen=True)
class Progress:
    """What a step did: the next one begins at `cursor`, after `pause_s`; `finished`: none does."""

    cursor: Any = None  # in terms of JSON
    done: int = 0
    total: int = 0
    message: str = ""
    finished: bool = False
    pause_s: float = 0.0


@dataclass(frozen=True)
class Job:
    """A row.  `cursor` is None until a step has set it."""

    id: int
    name: str
    kind: str
    argument: dict[str, Any] = field(default_factory=dict)
    state: JobState = "running"
    cursor: Any = None
    done: int = 0
    total: int = 0
    unit: str = ""
    errors: int = 0
    message: str = ""
    started_ns: int = 0
    ended_ns: int = 0


def all_jobs(db: Database) -> list[Job]:
    """The newest first."""
    return [_job(row) for row in db.read(f"SELECT {_COLUMNS} FROM job ORDER BY id DESC")]


def need(db: Database, number: int) -> Job:
    """Raises NoEntry."""
    row = db.read_one(f"SELECT {_COLUMNS} FROM job WHERE id = ?", (number,))
    if row is None:
        raise NoEntry(f"there is no job {number} (any more)")
    return _job(row)


def begin(
    db: Database, kind: str, unit: str, argument: dict[str, Any], name: str, now_ns: int
) -> tuple[Job, bool]:
    """The job of this name, running unless it is done; whether that is news.

    Raises UsageError when the name is that of other work, or when there are too many jobs.
    """
    found = db.read_one(f"SELECT {_COLUMNS} FROM job WHERE name = ?", (name,)) if name else None
    if found is not None:
        job = _job(found)
        if (job.kind, job.argument) != (kind, argument):
            raise UsageError(f"job {job.id} has the name {name!r} and does something else")
        if job.state not in ("stopped", "failed"):
            return job, False
        db.change(
            "UPDATE job SET state = 'running', message = '', ended_ns = 0 WHERE id = ?", (job.id,)
        )
        return need(db, job.id), True
    ((unended,),) = db.read(f"SELECT count(*) FROM job WHERE NOT {_ENDED}")
    if unended >= UNENDED_MAX:
        raise UsageError(f"{unended} jobs run or are stopped; that is enough")
    forget_old(db, now_ns)
    ((number,),) = db.read(
        "INSERT INTO job (name, kind, argument, state, cursor, done, total, unit, errors, "
        "message, started_ns, ended_ns) "
        "VALUES (?, ?, ?, 'running', 'null', 0, 0, ?, 0, '', ?, 0) RETURNING id",
        (name, kind, _json(argument), unit, now_ns),
    )
    if not name:
        db.change("UPDATE job SET name = ? WHERE id = ?", (f"{kind}-{number}", number))
    return need(db, number), True


def note(db: Database, job: Job, progress: Progress) -> None:
    """How far a running job is, and what it met on the way (`job.errors`)."""
    db.change(
        "UPDATE job SET cursor = ?, done = ?, total = ?, errors = ?, message = ? "
        "WHERE id = ? AND state = 'running'",
        (
            _json(progress.cursor),
            progress.done,
            progress.total,
            job.errors,
            progress.message[:MESSAGE_MAX_CHARS],
            job.id,
        ),
    )


def end(db: Database, number: int, state: JobState, message: str, now_ns: int) -> tuple[Job, bool]:
    """A running job is not any more; False when it was not.  Raises NoEntry."""
    job = need(db, number)
    if job.state != "running":
        return job, False
    db.change(
        "UPDATE job SET state = ?, message = ?, ended_ns = ? WHERE id = ?",
        (state, message[:MESSAGE_MAX_CHARS], now_ns, number),
    )
    return need(db, number), True


def forget_old(db: Database, now_ns: int) -> None:
    """Jobs that ended long ago, or before many others, go."""
    db.change(
        f"DELETE FROM job WHERE {_ENDED} AND (ended_ns < ? OR id NOT IN "
        f"(SELECT id FROM job WHERE {_ENDED} ORDER BY id DESC LIMIT ?))",
        (now_ns - KEPT_S * 10**9, KEPT_MAX),
    )


def _job(row: Row) -> Job:
    number, name, kind, argument, state, cursor, *rest = row
    return Job(
        number, name, kind, msgspec.json.decode(argument), state, msgspec.json.decode(cursor), *rest
    )


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()
