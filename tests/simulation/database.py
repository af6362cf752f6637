"""metad's database in memory, with a disk below it that forgets.

The image that a power cut leaves is that of the last COMMIT that SQLite was told to make durable
(`synchronous` FULL).  A start opens a copy of that image.  COMMITs can be made to fail as on a full
or broken disk, and the power can go just before or just after one: executed, and not committed; or
committed, and nobody was told.
"""

from __future__ import annotations

import functools
import sqlite3
from collections.abc import Callable

from dfswire.journal import Entry
from metad.journal.recording import Recording
from metad.journal.replay import position_of, replay
from metad.recovery.epoch import begin_epoch
from metad.storage.database import Database
from metad.storage.opening import examine, open_database
from tests.simulation.disk import Crash

SYNCHRONOUS_FULL = 2


@functools.cache
def _empty_image() -> bytes:
    """A fresh database; always the same one, for a new one draws an id for its cluster."""
    database = open_database("sqlite://", inline=True, now_ns=lambda: 1_700_000_000 * 10**9)
    database._writer.execute("UPDATE setting SET value = ? WHERE name = 'cluster_id'", ("5" * 32,))
    image = database._writer.serialize()
    database.close()
    return image


class MetadDisk:
    """What metad's disk holds, and what is wrong with it."""

    def __init__(self) -> None:
        self.image = _empty_image()
        self.journal: list[Entry] = []  # of every commit that was made durable
        self.failing = 0  # so many of the next COMMITs fail
        self.code = sqlite3.SQLITE_IOERR
        self.crash_in = -1  # COMMITs until the power goes, just before or just after one
        self.crash_after = False
        self.crashed: Callable[[], None] = lambda: None  # tells whoever runs metad

    def restore(self) -> None:
        """A new disk, with what the journal gives, as `dfs metad restore` makes it."""
        connection = sqlite3.connect(":memory:")
        connection.isolation_level = None
        connection.deserialize(_empty_image())
        for entry in self.journal:
            replay(connection, entry)
        self.journal.append(
            begin_epoch(connection, position_of(connection).epoch + 1, leaves_behind=False)
        )
        self.image = connection.serialize()
        connection.close()

    def is_last_commit(self) -> bool:
        """Does the power go at this one?"""
        if self.crash_in < 0:
            return False
        self.crash_in -= 1
        return self.crash_in < 0

    def fail(self) -> None:
        """Raise what SQLite raises."""
        if self.failing > 0:
            self.failing -= 1
            problem = sqlite3.OperationalError("cannot write (injected)")
            problem.sqlite_errorcode = self.code
            raise problem


class SimulatedDatabase(Database):
    """See the module's text."""

    def __init__(self, disk: MetadDisk) -> None:
        super().__init__(":memory:", inline=True, lock=None)
        self._disk = disk
        (level,) = self._writer.execute("PRAGMA synchronous").fetchone()  # the next call resets it
        self._is_durable: bool = level >= SYNCHRONOUS_FULL
        self._writer.deserialize(disk.image)
        self._off = False

    def begin(self) -> None:
        if self._off:
            raise Crash("metad is off")
        super().begin()

    def switch_off(self) -> None:
        """metad is dead: what was about to write, and cannot be cancelled, does not any more."""
        self._off = True

    @property
    def is_busy(self) -> bool:
        """Cannot be looked at now: it is being changed, or its disk has failed and metad ends."""
        return self.in_transaction or self.failure.problem is not None

    def commit(self) -> None:
        self._disk.fail()
        is_last = self._disk.is_last_commit()
        if is_last and not self._disk.crash_after:
            self.roll_back()  # nobody sees any more what was executed
            self._crash("before")
        entry = self._recording.sealed if self._recording is not None else None
        super().commit()
        if self._keep() and entry is not None:
            self._disk.journal.append(entry)
        if is_last:
            self._crash("after")

    def _crash(self, when: str) -> None:
        self._off = True
        self._disk.crashed()
        raise Crash(f"metad loses its power {when} a COMMIT")

    def _claim_term(self, recording: Recording) -> None:
        self._disk.fail()
        super()._claim_term(recording)
        self._keep()

    def _keep(self) -> bool:
        """What is committed is on the platters, if SQLite was told to see to that."""
        if self._is_durable:
            self._disk.image = self._writer.serialize()
        return self._is_durable


def open_simulated(disk: MetadDisk, now_ns: Callable[[], int]) -> SimulatedDatabase:
    """As metad starts on what the disk holds."""
    disk.crash_in = -1
    database = SimulatedDatabase(disk)
    examine(database, now_ns())
    database.start_recording(now_ns)
    return database


def replayed(disk: MetadDisk) -> str:
    """What differs when the journal is replayed on an empty database; empty when nothing does."""
    connection, original = sqlite3.connect(":memory:"), sqlite3.connect(":memory:")
    try:
        connection.deserialize(_empty_image())
        original.deserialize(disk.image)
        for entry in disk.journal:
            replay(connection, entry)
        for (table,) in original.execute("SELECT name FROM sqlite_master WHERE type = 'table'"):
            rows = [
                sorted(each.execute(f"SELECT * FROM {table}").fetchall(), key=repr)
                for each in (connection, original)
            ]
            if rows[0] != rows[1]:
                different = [row for row in rows[1] if row not in rows[0]]
                return f"table {table} is different, such as {different[:1]}"
        return ""
    finally:
        connection.close()
        original.close()
