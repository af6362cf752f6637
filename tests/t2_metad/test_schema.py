"""Creating the tables, and refusing databases that are not ours."""

from __future__ import annotations

import sqlite3
import stat
from typing import TYPE_CHECKING

import pytest
from peewee import SqliteDatabase

from dfswire.errors import UsageError
from dfswire.messages import ROOT_INODE
from metad import schema
from metad.database import open_database, setting

if TYPE_CHECKING:
    from pathlib import Path

    from metad.database import Database


def test_a_new_database_has_a_root_and_an_identity(db: Database) -> None:
    assert db.read("SELECT inode, mode, nlink, parent, mtime_ns > 0 FROM inode") == [
        (ROOT_INODE, stat.S_IFDIR | 0o755, 2, ROOT_INODE, 1)
    ]
    assert setting(db, "schema_version") == str(schema.SCHEMA_VERSION)
    assert len(bytes.fromhex(setting(db, "cluster_id"))) == 16


def test_identities_differ_and_stay(tmp_path: Path) -> None:
    found = []
    for name in ("a", "b", "a"):
        db = open_database(f"sqlite://{tmp_path}/{name}", inline=True)
        found.append(setting(db, "cluster_id"))
        db.close()
    assert found[0] != found[1]
    assert found[0] == found[2]


def test_every_table_has_rows_of_its_models_columns(db: Database) -> None:
    for table in schema.TABLES:
        columns = [row[1] for row in db.read(f"PRAGMA table_info({table._meta.table_name})")]
        assert columns == list(table._meta.columns)


@pytest.mark.parametrize(
    ("breakage", "message"),
    [
        ("UPDATE setting SET value = '2' WHERE name = 'schema_version'", "newer metad"),
        ("UPDATE setting SET value = 'odd' WHERE name = 'schema_version'", "no schema version"),
        ("DELETE FROM setting", "no schema version"),
        ("DROP TABLE setting", "another program"),
    ],
)
def test_databases_that_are_not_ours_are_refused(
    tmp_path: Path, breakage: str, message: str
) -> None:
    url = f"sqlite://{tmp_path}/db"
    open_database(url, inline=True).close()
    with sqlite3.connect(tmp_path / "db") as connection:
        connection.execute(breakage)
    connection.close()
    for _ in range(2):  # the refusal leaves nothing locked or changed
        with pytest.raises(UsageError, match=message):
            open_database(url, inline=True)


def test_creation_is_all_or_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    database = SqliteDatabase(":memory:")

    def stop(_length: int) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(schema.secrets, "token_hex", stop)
    with pytest.raises(KeyboardInterrupt):
        schema.prepare(database, 1)
    assert database.get_tables() == []
    database.close()
