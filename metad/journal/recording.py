"""What the open transaction has changed: the statements of its journal entry.

Used by database.Database only, which adds each changing statement as it runs it, forgets those of
savepoints that are undone, and seals the rest into an entry when the transaction is to be
committed.  The entry's number and digest are written into table `journal` by that same transaction,
so the database always knows which entries it contains.
"""

from __future__ import annotations

import functools
import re
import sqlite3
from collections.abc import Callable, Sequence
from typing import Any

from dfswire.journal import Change, Entry, Position, encode_changes, seal

_READING = re.compile(
    r"\s*(SELECT|PRAGMA|EXPLAIN|WITH\b(?!.*\b(INSERT|UPDATE|DELETE)\b))", re.I | re.S
)
CACHED_TEXTS = 4096
FAILURES_BITS = 32  # of a term: how many commits failed; above them, how many starts there were
_CLAIM = "UPDATE journal SET term = ((term >> ?1) + 1) << ?1 RETURNING term"


@functools.lru_cache(CACHED_TEXTS)
def changes_something(sql: str) -> bool:
    """Is it a statement that the journal must have?"""
    return _READING.match(sql) is None


class Recording:
    """The changes of one transaction after the other; `position` is that of the last commit."""

    def __init__(self, position: Position, now_ns: Callable[[], int]) -> None:
        self.term = position.term
        self.claimed = False  # is the term this metad's own, and on disk?
        self.position = position
        self.sealed: Entry | None = None  # not yet committed
        self._now_ns = now_ns
        self._changes: list[Change] = []

    def claim(self, connection: sqlite3.Connection) -> None:
        """Raise the term, durably, before anything is recorded in it.

        So an entry that an earlier metad gave to chunkds, and then had no time to commit, can be
        told from the one that gets its number now.
        """
        ((self.term,),) = connection.execute(_CLAIM, (FAILURES_BITS,)).fetchall()
        self.claimed = True

    def add(self, sql: str, parameters: Sequence[Any]) -> None:
        """A statement that was run once."""
        self._changes.append((sql, (parameters,)))

    def add_many(self, sql: str, rows: Sequence[Sequence[Any]]) -> None:
        """A statement that was run for each of `rows`."""
        if rows:
            self._changes.append((sql, rows))

    def mark(self) -> int:
        """Where the recording is; for cut()."""
        return len(self._changes)

    def cut(self, mark: int) -> None:
        """What came after `mark` was undone."""
        del self._changes[mark:]

    def seal(self) -> Entry | None:
        """The entry of the transaction, unless it changed nothing."""
        if self._changes:
            time_ns = max(self._now_ns(), self.position.time_ns)
            body = encode_changes(self._changes)
            self._changes.clear()
            self.sealed = seal(self.position, self.term, time_ns, body)
        return self.sealed

    def committed(self) -> None:
        """The transaction is in the database."""
        if self.sealed is not None:
            self.position = self.sealed.position
            self.sealed = None

    def undone(self) -> None:
        """The transaction is not in the database; an entry that was sealed gets a rival.

        Whoever was given it must be able to tell that it does not count: hence a new term.
        """
        self._changes.clear()
        if self.sealed is not None:
            self.sealed = None
            self.term += 1
