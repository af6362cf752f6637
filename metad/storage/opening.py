"""Opening metad's database safely: for one process, of our making, whole.

A damaged database is refused.  One of up to CHECKED_FIRST_BYTES is read through before it is used.
A larger one is used at once and read through beside that (`check_large`): metad ends when it is
damaged, as it does when a read meets damage.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

import trio
from peewee import PeeweeException

from dfswire.errors import InputOutput, Unavailable, UsageError
from metad.storage import schema
from metad.storage.connections import connect, connection_of, path_of, take
from metad.storage.database import Database
from metad.storage.statements import Row

log = logging.getLogger(__name__)

# Measured: 2 s of CPU for a GiB that is in memory (5 million rows; with its indexes 8 s).  So much
# may be added to a start; programs wait meanwhile.
CHECKED_FIRST_BYTES = 1 << 30
CHECK = "PRAGMA quick_check(1)"
WHOLE = ("ok",)


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
    cluster.  Raises UsageError for what cannot be opened, AlreadyRunning when another process has
    it.
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
        lock = take(path)
    try:
        database = Database(path, inline=inline, lock=lock)
    except BaseException:
        if lock is not None:
            os.close(lock)
        raise
    try:
        examine(database, now_ns())
        _check_cluster(database, cluster_id)
        database.start_recording(now_ns)
    except BaseException:
        database.close()
        raise
    return database


def _check_cluster(database: Database, cluster_id: str) -> None:
    found = schema.cluster_of(database.peewee)
    if cluster_id and found != cluster_id:
        raise UsageError(
            f"database {database.path} is of cluster {found}; the settings say {cluster_id}"
        )


def examine(database: Database, now_ns: int) -> None:
    """Make sure that it is ours, of this version, and whole if that is found out soon.

    Raises UsageError.
    """
    path = database.path
    try:
        if path != ":memory:" and Path(path).stat().st_size > CHECKED_FIRST_BYTES:
            database.is_examined = False
        elif path != ":memory:" and (verdict := database.read_one(CHECK)) != WHOLE:
            raise UsageError(f"database {path} is damaged, restore a backup: {verdict}")
        schema.prepare(database.peewee, now_ns)
    except (sqlite3.DatabaseError, PeeweeException, Unavailable, InputOutput) as problem:
        raise UsageError(f"database {path} is damaged, restore a backup: {problem}") from problem
    except UsageError as problem:
        raise UsageError(f"cannot use database {path}: {problem}") from problem


async def check_large(database: Database) -> None:
    """Read a database through that was too large for it before it was used.

    What is wrong with it is the end of this metad, see Failure.
    """
    if database.is_examined:
        return
    log.info("the database is large: it is read through while metad serves")
    began_s = time.perf_counter()
    apart = connect(database.path)
    connection = connection_of(apart)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_interrupt_when_cancelled, connection)
            with trio.CancelScope(shield=True):
                verdict = await trio.to_thread.run_sync(_read_through, connection)
            nursery.cancel_scope.cancel()
    finally:
        apart.close()
    if isinstance(verdict, sqlite3.Error):
        database.failure.translated(verdict)
    elif verdict != WHOLE:
        database.failure.damaged(f"{database.path} is damaged: {' '.join(verdict[0].split())}")
    else:
        log.info("the database is whole: read in %.1f s", time.perf_counter() - began_s)


async def _interrupt_when_cancelled(connection: sqlite3.Connection) -> None:
    try:
        await trio.sleep_forever()
    finally:
        connection.interrupt()


def _read_through(connection: sqlite3.Connection) -> Row | sqlite3.Error:
    """What SQLite says, or what it met."""
    try:
        verdict: Row = connection.execute(CHECK).fetchone()
    except sqlite3.Error as problem:
        return problem
    return verdict
