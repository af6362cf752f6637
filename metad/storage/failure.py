"""What SQLite's errors mean, and the moment after which metad must not serve.

Used by database.Database and group_commit.  Full and busy pass; so does a statement that is wrong.
An I/O error or damage found while metad serves does not: what the next read would give, and whether
a failed COMMIT is on disk, nobody knows.  From then on every read and write is refused as
Unavailable, so callers ask again until a metad answers that has looked at the disk anew; `watch`
raises, and the process ends.  It also ends when the database's file is not in its place any more.
"""

from __future__ import annotations

import logging
import math
import sqlite3
from pathlib import Path

import trio

from dfswire.errors import DFSError, InputOutput, NoSpace, Unavailable
from metad.storage.causes import PRIMARY, lacks_room

log = logging.getLogger(__name__)

FATAL = {
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_CORRUPT,
    sqlite3.SQLITE_NOTADB,
    sqlite3.SQLITE_READONLY,  # the kernel has made its file system read-only, or the file was moved
}


class Failure:
    """Has the database of this process failed?  `path` is its file; ":memory:" has none."""

    def __init__(self, path: str) -> None:
        self.problem: InputOutput | None = None
        self._path = path
        self._file = None if path == ":memory:" else _identity(path)
        self._token: trio.lowlevel.TrioToken | None = None
        self._failed = trio.Event()

    def check(self) -> None:
        """Raises Unavailable when nothing may be read or written any more."""
        if self.problem is not None:
            raise Unavailable(f"this metad ends: {self.problem}")

    def translated(self, problem: sqlite3.Error | MemoryError) -> DFSError:
        """The error in our words; from any thread.  Notes what is the end of this metad."""
        if isinstance(problem, MemoryError):
            log.error("metadata database: out of memory")
            return Unavailable("the metadata database is out of memory")
        code = getattr(problem, "sqlite_errorcode", 0)  # the module's own errors have none
        log.error("metadata database: %s", problem)
        text = f"the metadata database failed: {problem}"
        kind: type[DFSError] = InputOutput
        if lacks_room(problem, self._path):
            kind = NoSpace
        elif code & PRIMARY == sqlite3.SQLITE_BUSY:
            kind = Unavailable  # a person works on the database with another program
        elif code & PRIMARY in FATAL:
            self._fail(InputOutput(text))
            kind = Unavailable
        failure = kind(text)
        failure.__cause__ = problem
        return failure

    def damaged(self, text: str) -> None:
        """Somebody has looked, and it cannot be used any more."""
        log.error("metadata database: %s", text)
        self._fail(InputOutput(text))

    def unsure(self, problem: BaseException) -> DFSError:
        """Whether a transaction was committed or undone is not known: the end of this metad."""
        log.error("metadata database: %r", problem)
        text = f"the metadata database failed: {problem!r}"
        self._fail(InputOutput(text))
        return Unavailable(text)

    async def watch(self, interval_s: float) -> None:
        """Until the database has failed.  Raises InputOutput."""
        self._token = trio.lowlevel.current_trio_token()
        while self.problem is None:
            with trio.move_on_after(math.inf if self._file is None else interval_s):
                await self._failed.wait()
            if self.problem is None and self._file != self._now():
                self._fail(InputOutput(f"{self._path} is not there any more, or another file"))
        raise self.problem

    def _fail(self, problem: InputOutput) -> None:
        if self.problem is None:
            self.problem = problem
            if self._token is not None:
                self._token.run_sync_soon(self._failed.set)

    def _now(self) -> tuple[int, int] | None:
        return None if self._file is None else _identity(self._path)


def _identity(path: str) -> tuple[int, int]:
    """Of a file; (0, 0) when there is none."""
    try:
        found = Path(path).stat()
    except OSError as problem:
        log.debug("%s: %s", path, problem)
        return 0, 0
    return found.st_dev, found.st_ino
