"""A copy of a database that does again what the journal of the original says.

`Shadow` collects the entries where a transaction seals them, which is where followers get them from
too, and replays them on a copy taken at the start;
`differences` compares the two row by row.
"""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING, Any

import pytest

from metad.journal.replay import replay

if TYPE_CHECKING:
    from dfswire.journal import Entry
    from metad.storage.database import Database


class Shadow:
    """See the module's text.  Close it."""

    def __init__(self, db: Database) -> None:
        self.copy = sqlite3.connect(":memory:", isolation_level=None)
        self.entries: list[Entry] = []
        self._db = db
        db._writer.backup(self.copy)
        self._seal = db.seal
        self._patch = pytest.MonkeyPatch()
        self._patch.setattr(db, "seal", self._keep)

    def _keep(self) -> Entry | None:
        entry = self._seal()
        if entry is not None:
            self.entries.append(entry)
        return entry

    def catch_up(self) -> list[str]:
        """Replay what came since; what is different afterwards."""
        for entry in self.entries:
            self.copy.execute("BEGIN")
            replay(self.copy, entry)
            self.copy.execute("COMMIT")
        self.entries.clear()
        return differences(self.copy, self._db._writer)

    def close(self) -> None:
        self._patch.undo()
        self.copy.close()


def differences(one: sqlite3.Connection, other: sqlite3.Connection) -> list[str]:
    """Rows and tables that only one of two databases has."""
    mine, yours = contents(one), contents(other)
    return [
        f"{table}: {row} is only in the {'first' if row in mine.get(table, []) else 'second'}"
        for table in sorted({*mine, *yours})
        for row in set(mine.get(table, [])) ^ set(yours.get(table, []))
    ]


def contents(connection: sqlite3.Connection) -> dict[str, list[tuple[Any, ...]]]:
    """All rows of all tables, with the types of their values."""
    tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
    return {
        table: [
            tuple((type(value).__name__, value) for value in row)
            for row in connection.execute(f'SELECT * FROM "{table}"').fetchall()
        ]
        for (table,) in tables
    }
