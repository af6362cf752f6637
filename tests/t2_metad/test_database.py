"""Opening the database, snapshots, transactions."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING

import pytest

from dfswire.errors import AlreadyRunning, NoEntry, UsageError
from metad.storage.database import Database
from metad.storage.opening import open_database

if TYPE_CHECKING:
    from pathlib import Path

ADD = "INSERT INTO xattr (inode, name, value) VALUES (1, ?, x'')"
COUNT = "SELECT count(*) FROM xattr"


def count(db: Database) -> int:
    ((number,),) = db.read(COUNT)
    return int(number)


@pytest.mark.parametrize("url", ["postgresql://h/db", "sqlite:relative", "sqlite://relative/db"])
def test_urls_that_metad_does_not_know(url: str) -> None:
    with pytest.raises(UsageError, match="sqlite:///absolute/path"):
        open_database(url)


def test_a_database_in_memory_is_for_tests() -> None:
    with pytest.raises(UsageError):
        open_database("sqlite://")


def test_the_directory_must_exist(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="make directory"):
        open_database(f"sqlite://{tmp_path}/none/db")


def test_what_is_not_a_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("hello, " * 1000)
    (tmp_path / "directory").mkdir()
    for name, why in (("text", "file is not a database"), ("directory", "it is a directory")):
        with pytest.raises(UsageError, match=why):
            open_database(f"sqlite://{tmp_path}/{name}")


def test_a_link_to_a_database(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    open_database(f"sqlite://{tmp_path}/link").close()
    db = open_database(f"sqlite://{tmp_path}/elsewhere")
    with pytest.raises(AlreadyRunning):
        open_database(f"sqlite://{tmp_path}/link")
    db.close()


def test_a_lock_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "db.lock").mkdir()
    with pytest.raises(UsageError, match=r"cannot use database .*db.lock"):
        open_database(f"sqlite://{tmp_path}/db")


def test_a_damaged_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "db"
    for name in ("dentry", "dentry_parent"):
        path.unlink(missing_ok=True)
        db = open_database(f"sqlite://{path}", inline=True)
        ((page,),) = db.read("SELECT rootpage FROM sqlite_master WHERE name = ?", (name,))
        db.close()
        with path.open("r+b") as file:
            file.seek((page - 1) * 4096)
            file.write(b"\xff" * 4096)
        with pytest.raises(UsageError, match="restore a backup"):
            open_database(f"sqlite://{path}")


def test_one_process_at_a_time(tmp_path: Path) -> None:
    url = f"sqlite://{tmp_path}/db"
    db = open_database(url)
    with pytest.raises(AlreadyRunning):
        open_database(url)
    db.close()
    db.close()
    open_database(url).close()


def test_it_is_durable_by_settings(tmp_path: Path) -> None:
    db = open_database(f"sqlite://{tmp_path}/db")
    for connection in (db.read, lambda sql: in_transaction(db, sql)):
        assert connection("PRAGMA journal_mode") == [("wal",)]
        assert connection("PRAGMA synchronous") == [(2,)]
    db.close()


def in_transaction(db: Database, sql: str) -> list[tuple[object, ...]]:
    with db.transaction():
        return db.read(sql)


def test_transactions_are_undone_when_an_exception_passes(tmp_path: Path) -> None:
    db = open_database(f"sqlite://{tmp_path}/db")
    with pytest.raises(NoEntry), db.transaction():
        db.change(ADD, (b"a",))
        assert count(db) == 1
        raise NoEntry
    assert count(db) == 0
    with db.transaction():
        assert db.change(ADD, (b"a",)) == 1
        with pytest.raises(NoEntry), db.savepoint():
            db.change_many(ADD, [(b"b",), (b"c",)])
            raise NoEntry
        assert count(db) == 1
    assert count(db) == 1
    db.close()


def test_a_savepoint_does_not_hide_that_sqlite_ended_the_transaction(tmp_path: Path) -> None:
    db = open_database(f"sqlite://{tmp_path}/db")
    with pytest.raises(sqlite3.OperationalError, match="full"), db.transaction(), db.savepoint():
        db.change(ADD, (b"a",))
        db.change("ROLLBACK")  # what SQLite does by itself when the disk is full
        raise sqlite3.OperationalError("full")
    assert count(db) == 0
    db.close()


def test_a_snapshot_does_not_see_later_commits(tmp_path: Path) -> None:
    db = open_database(f"sqlite://{tmp_path}/db")
    other = Database(db.path, inline=True, lock=None)
    with db.snapshot(), db.snapshot():
        assert count(db) == 0
        with other.transaction():
            other.change(ADD, (b"a",))
        assert count(db) == 0
    assert count(db) == 1
    assert [row[0] for row in db.iterate("SELECT name FROM xattr")] == [b"a"]
    other.close()
    db.close()


@pytest.mark.parametrize("inline", [False, True])
async def test_reading_in_a_thread(tmp_path: Path, inline: bool) -> None:
    db = open_database(f"sqlite://{tmp_path}/db", inline=inline)
    await db.write(lambda: db.change(ADD, (b"a",)))
    assert await db.read_in_thread(count) == 1
    db.close()


def test_a_lost_database_is_not_replaced_by_a_new_one(tmp_path: Path) -> None:
    """Its disk may not be mounted; programs would see an empty directory."""
    url = f"sqlite://{tmp_path}/db"
    with pytest.raises(UsageError, match="is its disk mounted"):
        open_database(url, cluster_id="c" * 32)
    database = open_database(url)
    (cluster_id,) = database.read_one("SELECT value FROM setting WHERE name = 'cluster_id'")
    database.close()
    open_database(url, cluster_id=cluster_id).close()
    with pytest.raises(UsageError, match=f"is of cluster {cluster_id}; the settings say c"):
        open_database(url, cluster_id="c" * 32)
