"""Is it only that the disk of metad's database is full?  That passes, and nothing is lost by it.

Whoever meets an error of SQLite or of the system there asks `lacks_room`: failure.py,
pagesums.py, connections.py and opening.py.
"""

from __future__ import annotations

import errno
import os
import sqlite3
from pathlib import Path

PRIMARY = 0xFF  # of SQLite's extended codes
ROOM_BYTES = 1 << 16
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT}
# SQLite calls a failed write an I/O error unless the system said ENOSPC, and the log's index that
# cannot be made as well.
_PERHAPS = {
    sqlite3.SQLITE_IOERR_SHMSIZE,
    sqlite3.SQLITE_IOERR_SHMMAP,
    sqlite3.SQLITE_IOERR_SHMOPEN,
    sqlite3.SQLITE_CANTOPEN,
}


def lacks_room(problem: BaseException | None, path: str) -> bool:
    """Was there no room for what was to be written to the database at `path`, or beside it?

    Also when peewee tells of it.
    """
    if isinstance(problem, OSError):
        return problem.errno in _NO_ROOM
    code = getattr(problem, "sqlite_errorcode", None)
    if code is None:
        return problem is not None and lacks_room(problem.__context__, path)
    return code & PRIMARY == sqlite3.SQLITE_FULL or (code in _PERHAPS and not _has_room(path))


def _has_room(path: str) -> bool:
    found = os.statvfs(Path(path).parent)
    return found.f_bavail * found.f_frsize >= ROOM_BYTES
