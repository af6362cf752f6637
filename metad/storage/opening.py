"""Opening metad's database safely: for one process, of our making, whole.

A damaged database is refused.  One of up to CHECKED_FIRST_BYTES is read through before it is used,
and each page compared with its checksum before SQLite sees it.  A larger one is used at once and
read through beside that (verification.py): metad ends when it is damaged, as it does when a read
meets damage.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from peewee import PeeweeException

from dfswire.errors import InputOutput, Unavailable, UsageError
from metad.storage import schema
from metad.storage.causes import refusal
from metad.storage.connections import path_of, take
from metad.storage.database import Database
from metad.storage.sumsfile import damaged_at_rest, described, forget_sums
from metad.storage.writeaheadlog import size_of

log = logging.getLogger(__name__)

# Measured: 2 s of CPU for a GiB that is in memory (5 million rows; with its indexes 8 s).  So much
# may be added to a start; programs wait meanwhile.
CHECKED_FIRST_BYTES = 1 << 30
CHECK = "PRAGMA quick_check(1)"
WHOLE = ("ok",)
_PROBLEMS = (sqlite3.Error, PeeweeException, Unavailable, InputOutput, ValueError, OSError)


def open_database(
    url: str,
    *,
    inline: bool = False,
    now_ns: Callable[[], int] = time.time_ns,
    cluster_id: str = "",
) -> Database:
    """Open (or create) the database that `url` names and take it for this process.

    `sqlite:///abs/path`, or `sqlite://` for one in memory, which needs `inline`: then writes run at
    once in the caller's task and no thread exists.  With `cluster_id` it must be there, and of this
    cluster.  Raises AlreadyRunning when another process has it; UsageError for what cannot be
    opened; NoSpace, Unavailable, InputOutput when it perhaps can with the next try.
    """
    if url == "sqlite://":
        if not inline:
            raise UsageError("a database in memory keeps nothing: use sqlite:///path/of/a/file")
        path, lock = ":memory:", None
    else:
        path = path_of(url)
        if cluster_id and not (Path(path).exists() and Path(path).stat().st_size):
            raise UsageError(
                f"there is no database of cluster {cluster_id} at {path}: is its disk mounted? If "
                "it is lost, 'dfs metad restore' makes it again from what the chunkds keep"
            )
        try:
            lock = take(path)
        except OSError as problem:
            raise refusal(problem, path) from problem
    try:
        doubtful = _check_at_rest(path) if lock is not None else []
        database = Database(path, inline=inline, lock=lock)
    except BaseException:
        if lock is not None:
            os.close(lock)
        raise
    try:
        examine(database, now_ns(), doubtful)
        _check_cluster(database, cluster_id)
        database.start_recording(now_ns)
    except BaseException:
        database.close()
        raise
    return database


def _check_at_rest(path: str) -> list[int]:
    """Before SQLite sees it: what it does with a damaged page is anybody's guess.

    Which pages are damaged unless the log has them.
    """
    try:
        if not size_of(path):
            forget_sums(path)  # those of another one
        elif size_of(path) <= CHECKED_FIRST_BYTES:
            damaged, doubtful = damaged_at_rest(path)
            if damaged:
                raise UsageError(described(damaged, path))
            return doubtful
    except (UsageError, OSError) as problem:
        raise refusal(problem, path) from problem
    return []


def _check_cluster(database: Database, cluster_id: str) -> None:
    found = schema.cluster_of(database.peewee)
    if cluster_id and found != cluster_id:
        raise UsageError(
            f"database {database.path} is of cluster {found}; the settings say {cluster_id}"
        )


def examine(database: Database, now_ns: int, doubtful: Sequence[int] = ()) -> None:
    """Make sure that it is ours, of this version, and whole if that is found out soon.

    `doubtful` pages are to be looked at when the log is in the database.  Raises what
    causes.refusal gives.
    """
    path = database.path
    try:
        if path != ":memory:" and (found := database.guard_pages(doubtful)):
            raise UsageError(described(found, path))
        if size_of(path) > CHECKED_FIRST_BYTES:
            database.is_examined = False
        elif path != ":memory:" and (verdict := database.read_one(CHECK)) != WHOLE:
            raise UsageError(f"it is damaged, restore a backup: {verdict}")
        schema.prepare(database.peewee, now_ns)
    except (*_PROBLEMS, UsageError) as problem:
        raise refusal(problem, path) from problem
