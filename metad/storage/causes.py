"""What an error of SQLite, or of the system at metad's database, comes from.

Damage needs a backup.  A full disk, somebody who is in the way, a disk that fails or a shortage of
descriptors pass, and nothing is lost by them: whoever took these for damage would have an operator
restore an old copy of a database that is whole.  Used by whoever opens the database (connections,
opening, tool) and by failure.py and pagesums.py while it is used.
"""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from dfswire.errors import DFSError, InputOutput, NoSpace, Unavailable, UsageError

PRIMARY = 0xFF  # of SQLite's extended codes
ROOM_BYTES = 1 << 16
_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_DISK = {
    *(sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM),
    *(sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_PROTOCOL, sqlite3.SQLITE_INTERRUPT),
}
_IN_THE_WAY = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT}
_FOR_PEOPLE = {errno.EACCES, errno.EPERM, errno.EISDIR, errno.ENOTDIR, errno.ENOENT, errno.EROFS}
# SQLite's words when it has no room for the index of its log.
_PERHAPS_NO_ROOM = {
    sqlite3.SQLITE_IOERR_SHMSIZE,
    sqlite3.SQLITE_IOERR_SHMMAP,
    sqlite3.SQLITE_IOERR_SHMOPEN,
    sqlite3.SQLITE_CANTOPEN,
}


def lacks_room(problem: BaseException, path: str) -> bool:
    """Was there no room for what was to be written to the database at `path`, or beside it?

    Only this error counts, not what it came from: after a full disk there may be a worse one.
    """
    code = getattr(problem, "sqlite_errorcode", 0)
    return (
        code & PRIMARY == sqlite3.SQLITE_FULL
        or (isinstance(problem, OSError) and problem.errno in _NO_ROOM)
        or (code in _PERHAPS_NO_ROOM and not has_room(path))
    )


def refusal(problem: Exception, path: str) -> DFSError:
    """Why the database at `path` cannot be used now, for people.

    UsageError when somebody must do something first; NoSpace, Unavailable or InputOutput when
    another try may do.
    """
    chain = list(_chain(problem))
    codes = {getattr(each, "sqlite_errorcode", 0) & PRIMARY for each in chain}
    numbers = {each.errno for each in chain if isinstance(each, OSError)}
    what = f"cannot use database {path}: {problem}"
    if any(lacks_room(each, path) for each in chain):
        return NoSpace(f"{what}; make room on its disk")
    if isinstance(problem, UsageError) or numbers & _FOR_PEOPLE:
        return UsageError(what)
    if not codes & _DAMAGED:
        if codes & _IN_THE_WAY:
            return Unavailable(f"{what}; another program uses it, end that first")
        if numbers or codes & _DISK:
            return InputOutput(
                f"{what}; is its disk whole, has it room, and may metad write there?"
            )
    return UsageError(f"database {path} is damaged, restore a backup: {problem}")


def _chain(problem: BaseException) -> Iterator[BaseException]:
    """The error, and those that it came from: peewee and failure.py put others before them."""
    waiting, seen = [problem], set[int]()
    while waiting:
        each = waiting.pop()
        if id(each) not in seen:
            seen.add(id(each))
            yield each
            waiting += filter(None, (each.__cause__, each.__context__))


def has_room(path: str) -> bool:
    """Is there any beside the database?  True, too, when nobody can say."""
    try:
        found = os.statvfs(Path(path).parent)
    except OSError:
        return True
    has_inodes = not found.f_files or found.f_favail > 0
    return has_inodes and found.f_bavail * found.f_frsize >= ROOM_BYTES
