"""Creating the tables, and refusing databases that are not ours."""

from __future__ import annotations

import lzma
import secrets
import sqlite3
import stat
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from peewee import SqliteDatabase

from dfswire.errors import NoEntry, UsageError
from dfswire.messages import ROOT_INODE
from dfswire.operations import Link
from metad.checks import fsck
from metad.copies import policies, redundancy
from metad.names import chunkmap, namespace
from metad.names.effects import Effects
from metad.storage import schema, upgrades
from metad.storage.database import setting
from metad.storage.opening import open_database
from metad.storage.sumsfile import forget_sums

if TYPE_CHECKING:
    from metad.storage.database import Database


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
        ("UPDATE setting SET value = '99' WHERE name = 'schema_version'", "newer metad"),
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
    forget_sums(str(tmp_path / "db"))
    for _ in range(2):  # the refusal leaves nothing locked or changed
        with pytest.raises(UsageError, match=message):
            open_database(url, inline=True)


def test_creation_is_all_or_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    database = SqliteDatabase(":memory:")

    def stop(_length: int) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(secrets, "token_hex", stop)
    with pytest.raises(KeyboardInterrupt):
        schema.prepare(database, 1)
    assert database.get_tables() == []
    database.close()


OLD = Path(__file__).parent / "data" / "version1.db.xz"  # made by the last metad of version 1


@pytest.fixture
def old(tmp_path: Path) -> Path:
    path = tmp_path / "db"
    path.write_bytes(lzma.decompress(OLD.read_bytes()))
    return path


def _description(db: Database) -> list[tuple[object, ...]]:
    tables = db.read("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")
    return [
        (table, *column) for (table,) in tables for column in db.read(f"PRAGMA table_info({table})")
    ]


def test_a_database_of_version_1_is_upgraded(old: Path, db: Database) -> None:
    upgraded = open_database(f"sqlite://{old}", inline=True)
    assert setting(upgraded, "schema_version") == str(schema.SCHEMA_VERSION)
    assert _description(upgraded) == _description(db)
    assert fsck.run(upgraded, 100).findings == []
    found = namespace.lookup(upgraded, ROOT_INODE, b"directory")
    assert found is not None and found.flags == 0
    entries, _end, _parent = namespace.readdir(upgraded, found.inode, 0, 100)
    assert [entry.name for entry in entries] == [b"inline", b"chunks", b"link"]
    extents, _located = chunkmap.layout(upgraded, entries[0].attr.inode, 0, 100)
    assert [each.data for each in extents] == [b"hello"]
    (orphan,) = chunkmap.orphans(upgraded)
    with upgraded.transaction(), pytest.raises(NoEntry):  # it had a name
        link = Link(inode=orphan, parent=ROOT_INODE, name=b"again")
        namespace.link(upgraded, link, 1, Effects())
    upgraded.close()
    again = open_database(f"sqlite://{old}", inline=True)
    assert fsck.run(again, 100).findings == []
    again.close()


OLDER = OLD.with_name("version2.db.xz")  # made by the last metad of version 2


def test_a_database_of_version_2_is_upgraded(tmp_path: Path, db: Database) -> None:
    (tmp_path / "db").write_bytes(lzma.decompress(OLDER.read_bytes()))
    upgraded = open_database(f"sqlite://{tmp_path}/db", inline=True)
    assert setting(upgraded, "schema_version") == str(schema.SCHEMA_VERSION)
    assert _description(upgraded) == _description(db)
    indexes = "SELECT name, sql FROM sqlite_master WHERE type = 'index' ORDER BY name"
    assert upgraded.read(indexes) == db.read(indexes)
    assert fsck.run(upgraded, 100).findings == []
    assert policies.settle(upgraded, policies.Policy(3, 1 << 20)).of(0).replicas == 3
    assert {admin for (admin,) in upgraded.read("SELECT admin FROM server")} == {"enabled"}
    assert redundancy.totals(upgraded, ["d1", "d2", "d3"], {0: 2}).by_replicas == [0, 0, 3]
    upgraded.close()


NEWER = OLD.with_name("version3.db.xz")  # made by the last metad of version 3


def test_a_database_of_version_3_is_upgraded(tmp_path: Path, db: Database) -> None:
    (tmp_path / "db").write_bytes(lzma.decompress(NEWER.read_bytes()))
    upgraded = open_database(f"sqlite://{tmp_path}/db", inline=True)
    assert setting(upgraded, "schema_version") == str(schema.SCHEMA_VERSION)
    assert _description(upgraded) == _description(db)
    assert fsck.run(upgraded, 100).findings == []
    servers = upgraded.read("SELECT id, admin, party FROM server ORDER BY id")
    assert servers == [("server1", "enabled", ""), ("server2", "draining", "")]
    upgraded.close()


def test_an_upgrade_is_all_or_nothing(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = (*upgrades.UPGRADES[1], "ALTER TABLE nothing ADD COLUMN x")
    with monkeypatch.context() as patch:
        patch.setitem(upgrades.UPGRADES, 1, broken)
        with pytest.raises(UsageError):
            open_database(f"sqlite://{old}", inline=True)
    with sqlite3.connect(old) as connection:
        columns = [row[1] for row in connection.execute("PRAGMA table_info(inode)")]
    connection.close()
    assert "flags" not in columns
    open_database(f"sqlite://{old}", inline=True).close()
