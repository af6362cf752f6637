"""metad's database: opening it safely, and the few ways to run SQL on it.

`open_database` gives the one Database of this process.  Reads run at once, on a connection of their
own that sees only what is committed; mutations are functions given to `await Database.write(...)`,
which runs them in group commits (group_commit.py) and returns when they are on disk.  Inside such a
function every statement, reads included, goes to the writer's connection, so the same functions
serve both sides.  Every statement that changes something is recorded for the journal (recording.py)
and must do the same whenever it is repeated: times, ids and random numbers are parameters, and what
has a LIMIT has an ORDER BY.  Everything but COMMIT runs on the caller's thread: in a second one,
beside a busy loop, each statement waits for the interpreter lock (measured: 300 inserts 15 ms
instead of 0.4 ms).

SQLite's errors arrive as ours (NoSpace, InputOutput).  After an I/O error or damage every read and
write is refused, and metad ends (failure.py).
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import trio
from peewee import PeeweeException

from dfswire.errors import InputOutput, UsageError
from dfswire.journal import Entry, Position
from metad.journal.followers import Followers
from metad.journal.recording import Recording, changes_something
from metad.journal.replay import position_of, set_position
from metad.storage import schema
from metad.storage.connections import connect, connection_of, path_of, take
from metad.storage.failure import Failure
from metad.storage.group_commit import GroupCommitter

log = logging.getLogger(__name__)

T = TypeVar("T")
Row = tuple[Any, ...]

# Reading a database through takes about a second per GB; larger ones are left to `dfs fsck`.
QUICK_CHECK_MAX_BYTES = 256 << 20
FAILURES_BITS = 32  # of a term: how many commits failed; above them, how many starts there were


class Database:
    """An open database; see the module's text.  Made by open_database."""

    def __init__(self, path: str, *, inline: bool, lock: int | None) -> None:
        self.path = path
        self.inline = inline
        self._lock = lock
        self._closed = False
        self._peewee = connect(path)
        self._writer = connection_of(self._peewee)
        # An in-memory database exists in one connection only, so there reads share it.
        self._reading = None if path == ":memory:" else connect(path)
        self._reader = connection_of(self._reading) if self._reading else self._writer
        self._active = self._reader
        self._mutating = False
        self.failure = Failure(path)
        self._committer = GroupCommitter(self, inline=inline)
        self.followers: Followers | None = None  # who keeps the journal, once metad serves
        self._recording: Recording | None = None  # until the schema is known to be ours

    # -- statements -----------------------------------------------------------------------------

    def read(self, sql: str, parameters: Sequence[Any] = ()) -> list[Row]:
        """All rows of a query, or in a mutation of a statement with RETURNING."""
        self.failure.check()
        try:
            rows: list[Row] = self._active.execute(sql, parameters).fetchall()
        except sqlite3.Error as problem:
            if self._mutating:
                raise
            raise self.failure.translated(problem) from problem
        self._record(sql, parameters)
        return rows

    def read_one(self, sql: str, parameters: Sequence[Any] = ()) -> Row | None:
        """The first row of a query, or None."""
        self.failure.check()
        try:
            row: Row | None = self._active.execute(sql, parameters).fetchone()
        except sqlite3.Error as problem:
            if self._mutating:
                raise
            raise self.failure.translated(problem) from problem
        self._record(sql, parameters)
        return row

    def iterate(self, sql: str, parameters: Sequence[Any] = ()) -> Iterator[Row]:
        """The rows of a query one by one, for results that may not fit in memory."""
        self.failure.check()
        try:
            yield from self._active.execute(sql, parameters)
        except sqlite3.Error as problem:
            if self._mutating:
                raise
            raise self.failure.translated(problem) from problem

    def change(self, sql: str, parameters: Sequence[Any] = ()) -> int:
        """Run one INSERT, UPDATE or DELETE in a mutation; how many rows it touched."""
        count = self._writer.execute(sql, parameters).rowcount
        if self._recording is not None:
            self._recording.add(sql, parameters)
        return count

    def change_many(self, sql: str, rows: Sequence[Sequence[Any]]) -> None:
        """Run one statement for each of `rows`, in a mutation."""
        self._writer.executemany(sql, rows)
        if self._recording is not None:
            self._recording.add_many(sql, rows)

    def _record(self, sql: str, parameters: Sequence[Any]) -> None:
        """Of what may return rows, record what changes some."""
        if self._active is self._writer and self._recording is not None and changes_something(sql):
            self._recording.add(sql, parameters)

    # -- mutations ------------------------------------------------------------------------------

    async def write(self, work: Callable[[], T]) -> T:
        """Run `work()` in a transaction; return its result when that is safely on disk.

        Works run in the order of the calls and share commits; one that raises is undone alone. A
        cancelled caller loses the result only: the work is done nevertheless.  Raises what `work`
        raises; NoSpace, InputOutput or Unavailable (busy) when the database cannot keep it, and
        then it did not happen.
        """
        return await self._committer.write(work)

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """A whole transaction, committed at the end; undone when an exception passes."""
        self.begin()
        try:
            yield
            entry = self.seal()
            self.commit()
        except BaseException:
            self.roll_back()
            raise
        finally:
            self.end()
        if entry is not None and self.followers is not None:
            self.followers.offer(entry)

    @contextlib.contextmanager
    def savepoint(self) -> Iterator[None]:
        """Inside a mutation: what happens in here is undone when an exception passes.

        A full disk makes SQLite undo the whole transaction by itself; then there is nothing left
        to undo here, and the exception must end the transaction (it is a sqlite3.Error).
        """
        mark = self._recording.mark() if self._recording is not None else 0
        self._writer.execute("SAVEPOINT step")
        try:
            yield
        except BaseException:
            if self._recording is not None:
                self._recording.cut(mark)
            if self._writer.in_transaction:
                self._writer.execute("ROLLBACK TO step")
                self._writer.execute("RELEASE step")
            raise
        self._writer.execute("RELEASE step")

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[None]:
        """Let several reads see one and the same state, though commits happen meanwhile.

        No await inside.  May be nested; inside a mutation it does nothing.
        """
        if self._active.in_transaction:
            yield
            return
        self._active.execute("BEGIN")
        try:
            yield
        finally:
            self._active.execute("ROLLBACK")  # nothing was written, and this cannot fail

    async def read_in_thread(self, work: Callable[[Database], T]) -> T:
        """Run a long read off the loop, on a snapshot and a connection of its own.

        `work` gets the database to read from.  Inline databases run it at once.
        """
        if self.inline:
            await trio.lowlevel.checkpoint()
            with self.snapshot():
                return work(self)
        return await trio.to_thread.run_sync(self._read_apart, work)

    def _read_apart(self, work: Callable[[Database], T]) -> T:
        try:
            apart = Database(self.path, inline=True, lock=None)
        except UsageError as problem:  # no more descriptors, perhaps
            raise InputOutput(str(problem)) from problem
        apart.failure = self.failure
        try:
            with apart.snapshot():
                return work(apart)
        finally:
            apart.close()

    # -- for the group commit -------------------------------------------------------------------

    def begin(self) -> None:
        """Start a transaction; statements go to the writer until end()."""
        if self._recording is not None and not self._recording.claimed:
            self._claim_term(self._recording)
        self._writer.execute("BEGIN IMMEDIATE")
        self._active = self._writer
        self._mutating = True

    def seal(self) -> Entry | None:
        """Number what the transaction has changed, at its end; None when that is nothing."""
        entry = self._recording.seal() if self._recording is not None else None
        if entry is not None:
            set_position(self._writer, entry.position)
        return entry

    def end(self) -> None:
        """Reads go to the reader again; the transaction may still be waiting for its commit."""
        self._active = self._reader
        self._mutating = False

    def commit(self) -> None:
        """Make the transaction durable.  May be called in another thread, after end()."""
        self._writer.execute("COMMIT")
        if self._recording is not None:
            self._recording.committed()

    def roll_back(self) -> None:
        """Undo the transaction, unless SQLite has done so already."""
        if self._writer.in_transaction:
            self._writer.execute("ROLLBACK")
        if self._recording is not None:
            self._recording.undone()

    @property
    def in_transaction(self) -> bool:
        """Is the writer's transaction (still) open?"""
        return self._writer.in_transaction

    @property
    def position(self) -> Position:
        """The last entry of the journal that is in the database."""
        assert self._recording is not None
        return self._recording.position

    def start_recording(self, now_ns: Callable[[], int]) -> None:
        """From here on the journal goes on, in a term of its own."""
        self._recording = Recording(position_of(self._writer), now_ns)

    def image(self) -> bytes:
        """The whole database as the bytes of a file; of an inline one."""
        return self._writer.serialize()

    def new_term(self) -> Position:
        """Whoever uses the database now is another than before; the position, in its term.

        On a full disk that is done later, before anything else is written.
        """
        assert self._recording is not None
        self._recording.claimed = False
        try:
            self._claim_term(self._recording)
        except sqlite3.OperationalError as problem:
            log.warning("the database cannot be written now: %s", problem)
        position = self._recording.position
        return msgspec.structs.replace(position, term=self._recording.term)

    @property
    def visible(self) -> int:
        """The number of the last entry whose changes a read sees."""
        self.failure.check()
        try:
            ((number,),) = self._reader.execute("SELECT number FROM journal").fetchall()
        except sqlite3.Error as problem:
            raise self.failure.translated(problem) from problem
        return int(number)

    @property
    def sealed(self) -> int:
        """The number of the last entry, be it committed or not."""
        recording = self._recording
        assert recording is not None
        return recording.sealed.number if recording.sealed else recording.position.number

    @property
    def term(self) -> int:
        """What orders entries of one number; higher after a commit that failed."""
        assert self._recording is not None
        return self._recording.term

    def _claim_term(self, recording: Recording) -> None:
        """Raise the term, durably, before anything is recorded in it.

        So an entry that an earlier metad gave to chunkds, and then had no time to commit, can be
        told from the one that gets its number now.
        """
        ((term,),) = self._writer.execute(
            "UPDATE journal SET term = ((term >> ?1) + 1) << ?1 RETURNING term", (FAILURES_BITS,)
        ).fetchall()
        recording.term = term
        recording.claimed = True

    @property
    def commits(self) -> int:
        """How many group commits there were."""
        return self._committer.commits

    @property
    def works(self) -> int:
        """How many works there were in them."""
        return self._committer.works

    @property
    def commit_seconds(self) -> float:
        """How long all commits took together."""
        return self._committer.commit_seconds

    # -- closing --------------------------------------------------------------------------------

    def close(self) -> None:
        """Finish what `write` has accepted, fold the log into the database, let go of it."""
        if self._closed:
            return
        self._closed = True
        self._committer.close()
        if self._reading is not None:
            self._reading.close()
        self._peewee.close()
        if self._lock is not None:
            os.close(self._lock)


def setting(db: Database, name: str) -> str:
    """A row of table setting that exists since creation, such as `cluster_id`."""
    row = db.read_one("SELECT value FROM setting WHERE name = ?", (name,))
    assert row is not None
    value: str = row[0]
    return value


def open_database(
    url: str, *, inline: bool = False, now_ns: Callable[[], int] = time.time_ns
) -> Database:
    """Open (or create) the database that `url` names and take it for this process.

    `sqlite:///abs/path`, or `sqlite://` for one in memory, which needs `inline`: then writes run at
    once in the caller's task and no thread exists.  Raises UsageError for what cannot be opened,
    AlreadyRunning when another process has it.
    """
    if url == "sqlite://":
        if not inline:
            raise UsageError("a database in memory keeps nothing: use sqlite:///path/of/a/file")
        path, lock = ":memory:", None
    else:
        path = path_of(url)
        lock = take(path)
    try:
        database = Database(path, inline=inline, lock=lock)
    except BaseException:
        if lock is not None:
            os.close(lock)
        raise
    try:
        _examine(database, now_ns())
        database.start_recording(now_ns)
    except BaseException:
        database.close()
        raise
    return database


def _examine(database: Database, now_ns: int) -> None:
    path = database.path
    try:
        if path != ":memory:" and Path(path).stat().st_size <= QUICK_CHECK_MAX_BYTES:
            verdict = database.read_one("PRAGMA quick_check(1)")
            if verdict != ("ok",):
                raise UsageError(f"database {path} is damaged, restore a backup: {verdict}")
        schema.prepare(database._peewee, now_ns)
    except (sqlite3.DatabaseError, PeeweeException) as problem:
        raise UsageError(f"database {path} is damaged, restore a backup: {problem}") from problem
    except UsageError as problem:
        raise UsageError(f"cannot use database {path}: {problem}") from problem
