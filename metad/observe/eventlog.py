"""The event log: what happened to the cluster, in a table, for `dfs events`.

Everybody in metad who learns of something that an operator should be told calls `add`, which
returns at once; `run_forever` writes it down soon after.  What metad's own log says at the same
time survives a crash in between.  The table is bounded in rows and, by eventrate.py, in rate.
"""

from __future__ import annotations

import json
import logging
import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import trio

from dfswire.errors import DFSError, UsageError
from dfswire.observe import EVENTS_WAIT_MAX_S, ClusterEvent, EventsReply, EventsRequest, Severity
from metad.observe.eventrate import Entry, Intake
from metad.storage.database import Database

log = logging.getLogger(__name__)

ROWS_MAX = 10_000
TEXT_MAX_CHARS = 1000
RETRY_S = 1.0  # when the database could not be written

KINDS: dict[str, Severity] = {
    "metad.started": "info",
    "metad.stopped": "info",
    "metad.restored": "warning",
    "metad.released": "info",
    "journal.copies_lost": "warning",
    "journal.copies_regained": "info",
    "journal.diverged": "error",
    "journal.snapshot_failed": "error",
    "session.fenced": "warning",
    "server.registered": "info",
    "server.up": "info",
    "server.suspect": "info",
    "server.down": "warning",
    "server.refused": "error",
    "disk.failed": "error",
    "disk.back": "info",
    "chunk.bad": "warning",
    "chunk.missing": "warning",
    "chunk.lost": "critical",
    "chunk.damaged": "critical",
    "chunk.rebuilt": "info",
    "reclaim.early": "warning",
    "fsck.repaired": "warning",
    "repair.begun": "info",
    "repair.finished": "info",
    "server.enabled": "info",
    "server.draining": "info",
    "server.drained": "info",
    "server.removed": "warning",
    "disk.enabled": "info",
    "disk.draining": "info",
    "disk.drained": "info",
    "disk.removed": "warning",
    "party.invited": "info",
    "party.joined": "info",
    "party.revoked": "warning",
    "policy.changed": "info",
    "job.started": "info",
    "job.stopped": "info",
    "job.done": "info",
    "job.failed": "error",
}
"""Every kind of event, and how bad it is.  A kind is what it is about, a dot, what happened."""


class EventLog:
    """See the module's text."""

    def __init__(
        self, db: Database, *, clock: Callable[[], float], wall_ns: Callable[[], int]
    ) -> None:
        self._db = db
        self._clock = clock
        self._wall_ns = wall_ns
        self._intake = Intake()
        self.counts: Counter[str] = Counter()
        """Events by kind since metad started."""
        self._wanted = trio.Event()  # there is something to write
        self._grown = trio.Event()  # something was written

    def add(self, kind: str, subject: str, message: str) -> None:
        """Remember that something happened to `subject`; `kind` is one of KINDS.

        Not inside of a mutation, which may be undone.
        """
        if kind not in KINDS:
            raise ValueError(f"{kind!r} is not in the table of kinds of events")
        self.counts[kind] += 1
        log.info("event %s: %s: %s", kind, subject, message)
        subject, message = subject[:TEXT_MAX_CHARS], message[:TEXT_MAX_CHARS]
        self._intake.add(self._clock(), self._wall_ns(), kind, subject, message)
        self._wanted.set()

    async def run_forever(self) -> None:
        """Write down what was added."""
        while True:
            self._wanted = trio.Event()
            try:
                await self._write(self._intake.take(self._clock()))
            except DFSError as problem:  # the committer has logged what is wrong
                log.debug("events wait: %s", problem)
                await trio.sleep(RETRY_S)
            due_s = self._intake.due_in_s(self._clock())
            with trio.move_on_after(math.inf if due_s is None else due_s):
                await self._wanted.wait()

    async def finish(self) -> None:
        """Write down everything, as metad ends.  Raises what Database.write raises."""
        await self._write(self._intake.take_all())

    async def answer(self, request: EventsRequest) -> EventsReply:
        """The call cluster.events.  Raises UsageError for a kind that does not exist."""
        for kind in request.kinds:
            if not any(f"{each}.".startswith(f"{kind}.") for each in KINDS):
                raise UsageError(f"no events of kind {kind!r}; there are {', '.join(KINDS)}")
        wait_s = max(0.0, min(request.wait_s, EVENTS_WAIT_MAX_S))
        with trio.move_on_after(wait_s):
            while True:
                grown = self._grown
                reply = self._find(request)
                if reply.events or not wait_s:
                    return reply
                await grown.wait()
        return self._find(request)

    async def _write(self, entries: list[Entry]) -> None:
        if not entries:
            return
        try:
            await self._db.write(lambda: self._insert(entries))
        except DFSError:
            self._intake.put_back(entries)
            raise
        self._grown.set()
        self._grown = trio.Event()

    def _insert(self, entries: Sequence[Entry]) -> None:
        _first, last = self._range()
        self._db.change_many(
            "INSERT INTO event VALUES (?, ?, ?, ?, ?, ?, ?)",
            [_row(number, each) for number, each in enumerate(entries, start=last + 1)],
        )
        oldest = last + len(entries) - ROWS_MAX
        self._db.change("DELETE FROM event WHERE number <= ?", (oldest,))

    def _range(self) -> tuple[int, int]:
        """The first and the last number; (0, 0) when there are no events."""
        row = self._db.read_one(
            "SELECT coalesce(min(number), 0), coalesce(max(number), 0) FROM event"
        )
        assert row is not None
        return row[0], row[1]

    def _find(self, request: EventsRequest) -> EventsReply:
        order = "DESC" if request.newest else "ASC"
        with self._db.snapshot():
            first, last = self._range()
            rows = self._db.read(
                "SELECT number, time_ns, kind, severity, subject, message, times FROM event "
                "WHERE number > ?1 AND time_ns >= ?2 AND (?3 = '[]' OR EXISTS (SELECT 1 FROM "
                "json_each(?3) WHERE kind || '.' GLOB value || '.*')) "
                f"ORDER BY number {order} LIMIT ?4",
                (request.after, request.since_ns, json.dumps(request.kinds), request.limit),
            )
        events = sorted((_event(*row) for row in rows), key=lambda each: each.number)
        full = len(events) == request.limit and not request.newest
        return EventsReply(
            events=events,
            first=first,
            last=last,
            next_after=events[-1].number if full else last,
        )


def _row(number: int, entry: Entry) -> tuple[Any, ...]:
    severity = KINDS[entry.kind]
    return (
        number,
        entry.time_ns,
        entry.kind,
        severity,
        entry.subject,
        entry.message,
        entry.times,
    )


def _event(
    number: int,
    time_ns: int,
    kind: str,
    severity: Severity,
    subject: str,
    message: str,
    times: int,
) -> ClusterEvent:
    return ClusterEvent(
        number=number,
        time_ns=time_ns,
        kind=kind,
        severity=severity,
        subject=subject,
        message=message,
        times=times,
    )
