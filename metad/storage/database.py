"""metad's database: the few ways to run SQL on it.

`open_database` (opening.py) gives the one Database of this process.  Reads run at once, on a
connection of their own that sees only what is committed (statements.py); mutations are functions
given to `await Database.write(...)`, which runs them in group commits (group_commit.py) and returns
when they are on disk.  Inside such a function every statement, reads included, goes to the writer's
connection, so the same functions serve both sides.  Every statement that changes something is
recorded for the journal (recording.py) and must do the same whenever it is repeated: times, ids and
random numbers are parameters, and what has a LIMIT has an ORDER BY.  Everything but COMMIT runs on
the caller's thread: in a second one, beside a busy loop, each statement waits for the interpreter
lock (measured: 300 inserts 15 ms instead of 0.4 ms).

SQLite's errors arrive as ours (NoSpace, InputOutput).  After an I/O error or damage every read and
write is refused, and metad ends (failure.py).
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import msgspec
import trio

from dfswire.errors import DFSError, InputOutput
from dfswire.journal import Entry, Position
from metad.journal.followers import Followers
from metad.journal.recording import Recording
from metad.journal.replay import position_of, set_position
from metad.storage.group_commit import GroupCommitter
from metad.storage.pagesums import PageSums
from metad.storage.statements import Statements

log = logging.getLogger(__name__)

T = TypeVar("T")


class Database(Statements):
    """An open database; see the module's text.  Made by open_database."""

    def __init__(
        self, path: str, *, inline: bool, lock: int | None, read_only: bool = False
    ) -> None:
        super().__init__(path, read_only=read_only)
        self.inline = inline
        self._lock = lock
        self._closed = False
        self._committer = GroupCommitter(self, inline=inline)
        self.followers: Followers | None = None  # who keeps the journal, once metad serves
        self.is_examined = True  # was it read through before it was used?
        self._sums: PageSums | None = None

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
            apart = Database(self.path, inline=True, lock=None, read_only=True)
        except DFSError as problem:  # no more descriptors, perhaps
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
        if self._sums is not None:
            self._note_pages(self._sums)

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
        recording.claim(self._writer)

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

    # -- checksums of pages ---------------------------------------------------------------------

    def guard_pages(self, doubtful: Sequence[int] = ()) -> list[int]:
        """Before it is used: keep checksums of its pages from now on; which are damaged already.

        Looked at are those of the log and the `doubtful` ones: all others have been.  Raises
        OSError, ValueError, sqlite3.Error, UsageError.
        """
        self._sums = PageSums(self.path, self._writer)
        return self._sums.begin(doubtful)

    def damaged_pages(self, first: int = 1) -> tuple[list[int], int]:
        """Of the pages from `first` on, those that are not what they should be; and how many were
        looked at, 0 after the last one.  In any thread, until it is closed.  Raises OSError."""
        return ([], 0) if self._sums is None else self._sums.damaged(first)

    def forget_cached_pages(self) -> None:
        """What is read next comes from the disk, not from the kernel's memory."""
        if self._sums is not None:
            self._sums.forget_cached()

    def _note_pages(self, sums: PageSums) -> None:
        """What was committed stays so, whatever comes of this."""
        try:
            sums.committed()
        except (OSError, ValueError) as problem:
            self.failure.damaged(f"its checksums cannot be kept: {problem}")
        except sqlite3.Error as problem:
            self.failure.translated(problem)

    # -- closing --------------------------------------------------------------------------------

    def close(self) -> None:
        """Finish what `write` has accepted, fold the log into the database, let go of it."""
        if self._closed:
            return
        self._closed = True
        self._committer.close()
        self.disconnect(folds_in=self._sums is not None and self._fold(self._sums))
        if self._sums is not None:
            self._sums.close()
        if self._lock is not None:
            os.close(self._lock)

    def _fold(self, sums: PageSums) -> bool:
        """Move the log into the database; False when that was not possible."""
        try:
            sums.checkpoint()
        except (OSError, ValueError, sqlite3.Error) as problem:
            log.warning("the log of the database stays as it is: %s", problem)
            return False
        return True


def setting(db: Database, name: str) -> str:
    """A row of table setting that exists since creation, such as `cluster_id`."""
    row = db.read_one("SELECT value FROM setting WHERE name = ?", (name,))
    assert row is not None
    value: str = row[0]
    return value
