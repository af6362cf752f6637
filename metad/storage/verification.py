"""Reading metad's database through while metad serves: for what has rotted since it was written.

A database that is too large to be read before it is used is read at once (`check_large`), and every
database each day (`verify_forever`).  What is found wrong is the end of this metad, see Failure:
it starts again, refuses to serve, and says what to do.
"""

from __future__ import annotations

import logging
import sqlite3
import time

import trio

from metad.storage.connections import connect, connection_of
from metad.storage.database import Database
from metad.storage.opening import CHECK, WHOLE
from metad.storage.statements import Row
from metad.storage.sumsfile import described

log = logging.getLogger(__name__)

INTERVAL_S = 86400.0
PAUSE_S = 0.02  # after a MiB or so, for whoever else needs the disk


async def check_large(database: Database) -> None:
    """Read a database through that was too large for it before it was used."""
    if database.is_examined:
        return
    log.info("the database is large: it is read through while metad serves")
    began_s = time.perf_counter()
    await verify(database, pause_s=0)
    if database.failure.problem is not None:
        return
    apart = connect(database.path, read_only=True)
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


async def verify_forever(database: Database, interval_s: float = INTERVAL_S) -> None:
    """Compare its pages with their checksums each `interval_s`, as they are on the disk."""
    while not database.inline:
        await trio.sleep(interval_s)
        database.forget_cached_pages()
        began_s = time.perf_counter()
        pages = await verify(database, pause_s=PAUSE_S)
        if pages and database.failure.problem is None:
            log.info(
                "the database is whole: %d pages in %.1f s", pages, time.perf_counter() - began_s
            )


async def verify(database: Database, *, pause_s: float) -> int:
    """Compare its pages with their checksums; how many there were.  Notes damage as the end."""
    first, count = 1, 1
    while count and database.failure.problem is None:
        count = await trio.to_thread.run_sync(_verify_some, database, first)
        first += count
        await trio.sleep(pause_s)
    return first - 1


def verify_at_once(database: Database) -> None:
    """The same in this thread.  Raises Unavailable after damage."""
    first = 1
    while count := _verify_some(database, first):
        first += count
    database.failure.check()


def _verify_some(database: Database, first: int) -> int:
    try:
        found, count = database.damaged_pages(first)
    except OSError as problem:
        database.failure.damaged(f"{database.path} cannot be read: {problem}")
        return 0
    if found:
        database.failure.damaged(f"{database.path}: {described(found, database.path)}")
        return 0
    return count


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
