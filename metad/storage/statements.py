"""Running SQL on metad's database: what reads, what changes, and what one moment sees.

The lower half of database.Database.  Reads run on a connection of their own that sees only what is
committed; in a mutation every statement, reads included, goes to the writer's connection, so the
same functions serve both sides.  What changes something is recorded for the journal (recording.py).
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator, Sequence
from typing import Any

from metad.journal.recording import Recording, changes_something
from metad.storage.connections import connect, connection_of
from metad.storage.failure import Failure
from metad.storage.writeaheadlog import size_of

Row = tuple[Any, ...]


class Statements:
    """See the module's text."""

    def __init__(self, path: str, *, read_only: bool = False) -> None:
        self.path = path
        self._reading = connect(path, read_only=True) if size_of(path + "-wal") else None
        try:
            self.peewee = connect(path, read_only=read_only)
        except BaseException:
            if self._reading is not None:
                self._reading.close()
            raise
        self._writer = connection_of(self.peewee)
        # An in-memory database exists in one connection only, so there reads share it.
        if self._reading is None and path != ":memory:":
            self._reading = connect(path, read_only=True)
        self._reader = connection_of(self._reading) if self._reading else self._writer
        self._active = self._reader
        self._mutating = False
        self.failure = Failure(path)
        self._recording: Recording | None = None  # until the schema is known to be ours

    def disconnect(self, *, folds_in: bool) -> None:
        """Close it.  SQLite folds the log in when the last connection that may write is closed
        last; without `folds_in` it does not: then its pages would have no checksums."""
        last = [self._reading, self.peewee] if folds_in else [self.peewee, self._reading]
        for each in filter(None, last):
            each.close()

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
