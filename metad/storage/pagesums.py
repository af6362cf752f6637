"""Checksums of the pages of a database that metad has open, kept true through every crash.

Pages change in two steps.  A commit writes them to SQLite's log, which has checksums of its own;
`committed` reads there what they will be, and puts it into the sums (sumsfile.py).  A checkpoint
moves them into the database, which happens through `checkpoint` only (SQLite's own are switched
off), and the sums are synced before.  So after any crash a page of the database that is not in the
log is what the sums say, or is damaged.

Database uses this from the thread that commits; `damaged` may run in another one.  Descriptors of
the database and of the log's index stay open until SQLite has closed its own: POSIX takes away all
locks of a process, and so those of SQLite, when it closes any descriptor of a file.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import threading
from collections.abc import Iterator, Sequence

from metad.storage.causes import lacks_room
from metad.storage.sumsfile import READ_PAGES, SumsFile, differing, page_sum
from metad.storage.writeaheadlog import NOTHING, Log, size_of

log = logging.getLogger(__name__)

CHECKPOINT_FRAMES = 4000  # pages: a 16 MiB log; at 4 MiB, SQLite's default, it is done too often
AGAIN_FRAMES = 250  # after that many more, while readers keep the log from beginning anew


class PageSums:
    """Of the database at `path`, which `connection` has open and nobody else writes.

    Raises OSError, sqlite3.Error, UsageError (the sums are damaged).
    """

    def __init__(self, path: str, connection: sqlite3.Connection) -> None:
        self._path = path
        self._connection = connection
        ((self._page_bytes,),) = connection.execute("PRAGMA page_size").fetchall()
        connection.execute("SELECT count(*) FROM sqlite_master").fetchall()  # makes the index
        with contextlib.ExitStack() as opened:
            self._file = SumsFile(path)
            opened.callback(self._file.close)
            self._log = Log(path)
            opened.callback(self._log.close)
            self._database = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            opened.pop_all()
        self._moving = threading.Lock()  # held while sums and database change
        self._noted = NOTHING  # of the log
        self._ahead: set[int] = set()  # pages that are noted and may not be in the database yet
        self._tried_frames = 0  # of the log, when it was last checkpointed
        self._has_room = True

    def begin(self, doubtful: Sequence[int] = ()) -> list[int]:
        """Before the database is used.  Damaged ones among the pages of the log and the `doubtful`.

        Without sums this is a new database, or one from before there were any: what is there
        counts.  On a full disk the log stays as it is, and reads can go on.  Raises OSError,
        ValueError, sqlite3.Error.
        """
        known = self._file.page_bytes
        with self._moving, self._if_there_is_room():
            self._note()
        suspects = sorted(self._ahead.union(doubtful))
        with self._if_there_is_room():
            self.checkpoint()
            if not known:
                self._learn()
        return [number for number in suspects if self._compare(number, 1)[0]] if known else []

    def committed(self) -> None:
        """After a commit: note its pages, and move the log into the database when it has grown.

        What finds no room now is done with a later commit; until then the log grows.
        Raises OSError, ValueError, sqlite3.Error.
        """
        with self._if_there_is_room():
            with self._moving:
                self._note()
            frames = self._noted.frames
            if frames < self._tried_frames:
                self._tried_frames = 0  # it has begun anew
            if frames >= max(CHECKPOINT_FRAMES, self._tried_frames + AGAIN_FRAMES):
                self._tried_frames = frames
                self.checkpoint("PASSIVE")
            self._has_room = True

    def checkpoint(self, mode: str = "TRUNCATE") -> None:
        """Move the log into the database as far as its readers allow.

        Raises OSError, ValueError, sqlite3.Error.
        """
        with self._moving:
            self._note()
            noted, self._noted = self._noted, NOTHING  # after a sync that fails all is put again
            self._file.sync()
            self._noted = noted
            pragma = f"PRAGMA wal_checkpoint({mode})"
            busy, frames, moved = self._connection.execute(pragma).fetchone()
            if not busy and frames == moved:
                self._ahead.clear()

    @contextlib.contextmanager
    def _if_there_is_room(self) -> Iterator[None]:
        """What is in it can be left half-done, and is done again later."""
        try:
            yield
        except (OSError, sqlite3.Error) as problem:
            if not lacks_room(problem, self._path):
                raise
            if self._has_room:
                log.warning("the log of the database grows until there is room: %s", problem)
            self._has_room = False

    def _note(self) -> None:
        """Put the sums of what the log has got.

        They would be found again in the log after a crash, but for a person who looks at the
        database with SQLite's shell first: it folds the log in.
        """
        extent = self._log.extent()
        first = self._noted.frames + 1 if extent.salt == self._noted.salt else 1
        sums = {
            number: page_sum(number, content)
            for number, content in self._log.pages(first, extent, self._page_bytes)
        }
        self._ahead.update(sums)  # first: one that cannot be put would make its page look damaged
        self._put(sums)
        if sums:
            self._file.cut(extent.pages)
        self._noted = extent

    def _put(self, sums: dict[int, int]) -> None:
        """All that can be: after a crash a person's shell may fold the log in before metad does."""
        no_room: OSError | None = None
        for number, value in sums.items():
            try:
                self._file.put(number, value)
            except OSError as problem:
                if not lacks_room(problem, self._path):
                    raise
                no_room = problem
        if no_room is not None:
            raise no_room

    def damaged(self, first: int) -> tuple[list[int], int]:
        """Pages from `first` on that are not what they should be, and how many were looked at: 0
        after the last one.  While the database is used, in any thread.  Raises OSError."""
        with self._moving:
            return self._compare(first, READ_PAGES)

    def forget_cached(self) -> None:
        """Let the kernel read the database from its disk again."""
        os.posix_fadvise(self._database, 0, 0, os.POSIX_FADV_DONTNEED)

    def close(self) -> None:
        """After SQLite has closed the database."""
        os.close(self._database)
        self._log.close()
        self._file.close()

    def _compare(self, first: int, count: int) -> tuple[list[int], int]:
        size = self._page_bytes
        data = os.pread(self._database, count * size, (first - 1) * size)
        found = differing(data, self._file.of(first, count), size, first)
        return [number for number in found if number not in self._ahead], -(-len(data) // size)

    def _learn(self) -> None:
        """What is there now counts; of pages that are still on their way from the log, the log."""
        for number in range(1, 1 + size_of(self._path) // self._page_bytes):
            if number in self._ahead:
                continue
            place = (number - 1) * self._page_bytes
            content = os.pread(self._database, self._page_bytes, place)
            self._file.put(number, page_sum(number, content))
        self._file.finish(self._page_bytes)
