"""Connections to SQLite as metad wants them, and the lock that keeps a database for one process.

Whoever else looks at the database while metad has it may only read: the last one that closes it
folds the log in if it may write, and its pages would have no checksums then (pagesums.py).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

from peewee import PeeweeException, SqliteDatabase

from dfswire.errors import AlreadyRunning, InputOutput, NoSpace, UsageError
from metad.storage.causes import has_room, refusal

CACHED_STATEMENTS = 512  # all our SQL, so that nothing is parsed twice
PRAGMAS = {
    "journal_mode": "wal",
    "synchronous": "full",  # a commit is on disk when it returns, not at the next checkpoint
    "foreign_keys": 0,  # invariants live in the functions of metad/names and in fsck
    "cache_size": -65_536,  # KiB
    "temp_store": "memory",
    "wal_autocheckpoint": 0,  # pagesums.py does that
}
BUSY_TIMEOUT_S = 5  # only a person with the sqlite3 shell can be in our way
TAKE_TRIES, TAKE_PAUSE_S = 5, 0.05  # whoever asks is_taken has the lock for a moment


def path_of(url: str) -> str:
    """Of sqlite:///absolute/path.  Raises UsageError."""
    prefix = "sqlite://"
    path = url.removeprefix(prefix)
    if not url.startswith(prefix) or not path.startswith("/"):
        raise UsageError(f"cannot use database {url!r}: metad knows sqlite:///absolute/path")
    if not Path(path).parent.is_dir():
        raise UsageError(f"cannot use database {url!r}: make directory {Path(path).parent} first")
    if Path(path).is_dir():
        raise UsageError(f"cannot use database {url!r}: it is a directory")
    return str(Path(path).resolve())  # SQLite's log is beside what a link leads to


def take(path: str) -> int:
    """Lock the file beside the database; the descriptor holds the lock.

    Raises AlreadyRunning, OSError.
    """
    descriptor = os.open(path + ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        _lock(descriptor)
    except BlockingIOError as problem:
        os.close(descriptor)
        raise AlreadyRunning(f"another metad uses {path}") from problem
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _lock(descriptor: int) -> None:
    for _ in range(TAKE_TRIES - 1):
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        time.sleep(TAKE_PAUSE_S)
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def is_taken(path: str) -> bool:
    """Does a metad use it now?  Raises OSError."""
    try:
        descriptor = os.open(path + ".lock", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def connect(path: str, *, read_only: bool = False) -> SqliteDatabase:
    """With `read_only` no byte of the file changes, also if its journal mode is not ours.

    Raises what causes.refusal gives.
    """
    pragmas = {name: value for name, value in PRAGMAS.items() if name != "journal_mode"}
    database = SqliteDatabase(
        read_only_uri(path) if read_only else path,
        uri=read_only,
        pragmas=pragmas if read_only else PRAGMAS,
        timeout=BUSY_TIMEOUT_S,
        thread_safe=False,
        check_same_thread=False,  # COMMIT runs in another thread; the two never overlap
        cached_statements=CACHED_STATEMENTS,
    )
    try:
        database.connect()
        # From now on it counts as open, also for who closes another connection.
        connection_of(database).execute("SELECT count(*) FROM sqlite_master").fetchone()
        ((mode,),) = connection_of(database).execute("PRAGMA journal_mode").fetchall()
    except (PeeweeException, sqlite3.Error, UnicodeDecodeError) as problem:
        database.close()
        raise refusal(problem, path) from problem
    if mode not in ("wal", "memory") and not read_only:  # SQLite goes on without a word
        database.close()
        if not has_room(path):
            raise NoSpace(f"cannot use database {path}: no room for a log; make room on its disk")
        raise InputOutput(
            f"cannot use database {path}: SQLite can keep no write-ahead log there; is it on a "
            "local file system?"
        )
    return database


def read_only_uri(path: str) -> str:
    """What sqlite3 and peewee take with `uri=True`."""
    return Path(path).resolve().as_uri() + "?mode=ro"


def connection_of(database: SqliteDatabase) -> sqlite3.Connection:
    """What peewee has opened."""
    connection: Callable[[], sqlite3.Connection] = database.connection
    return connection()
