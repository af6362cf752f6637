"""metad's disk fails while it serves: nothing is read or written any more, and metad ends."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import pytest
import trio
import trio.testing

from dfswire.errors import InputOutput, NoSpace, Unavailable
from metad.storage import causes
from metad.storage.database import Database
from metad.storage.opening import open_database

ADD = "INSERT INTO xattr (inode, name, value) VALUES (1, ?, zeroblob(3000))"
ExpectLog = Callable[[str], None]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Database]:
    """A database on disk, of which no connection has read much yet."""
    url = f"sqlite://{tmp_path}/db"
    first = open_database(url)
    with first.transaction():
        first.change_many(ADD, [(b"%d" % number,) for number in range(200)])
    first.close()
    database = open_database(url)
    yield database
    database.close()


def take_away(db: Database, *, replaced: bool) -> None:
    """The file is somewhere else now."""
    path = Path(db.path)
    path.rename(path.with_name("elsewhere"))
    if replaced:
        path.touch()


def spoil(db: Database) -> None:
    """The second half of the file; and what was read of it before is forgotten."""
    db.read("PRAGMA shrink_memory")
    file = Path(db.path)
    size = file.stat().st_size
    with file.open("r+b") as opened:
        opened.seek(size // 2)
        opened.write(b"\xa5" * (size // 2))


def failing(code: int) -> Callable[[], NoReturn]:
    """What SQLite raises."""

    def fail() -> NoReturn:
        problem = sqlite3.OperationalError("disk I/O error")
        problem.sqlite_errorcode = code
        raise problem

    return fail


def refuses_everything(db: Database) -> bool:
    for read in (db.read, db.read_one, lambda sql: list(db.iterate(sql))):
        with pytest.raises(Unavailable):
            read("SELECT 1")
    with pytest.raises(Unavailable):
        assert db.visible
    return db.failure.problem is not None


@pytest.mark.parametrize("how", ["read", "read_one", "iterate"])
def test_damage_is_the_end(disk: Database, how: str, expect_log: ExpectLog) -> None:
    expect_log("malformed")
    spoil(disk)
    sql = "SELECT sum(length(value)), max(name) FROM xattr"
    with pytest.raises(Unavailable, match="malformed"):
        list(getattr(disk, how)(sql))
    assert refuses_everything(disk)


async def test_damage_that_a_thread_finds_is_the_end(disk: Database, expect_log: ExpectLog) -> None:
    expect_log("malformed")
    async with trio.open_nursery() as nursery:
        ended = trio.Event()

        async def watch() -> None:
            with pytest.raises(InputOutput, match="malformed"):
                await disk.failure.watch(60)
            ended.set()

        nursery.start_soon(watch)
        await trio.testing.wait_all_tasks_blocked()
        spoil(disk)
        with pytest.raises(Unavailable):
            await disk.read_in_thread(lambda db: db.read("SELECT sum(length(value)) FROM xattr"))
        await ended.wait()
    assert refuses_everything(disk)


async def test_after_a_work_that_met_damage_nothing_of_its_group_is_committed(
    disk: Database, expect_log: ExpectLog
) -> None:
    expect_log("malformed")
    with disk.transaction():
        disk.change(ADD, (b"before",))
    spoil(disk)
    refused = 0

    async def write(sql: str) -> None:
        nonlocal refused
        with pytest.raises(Unavailable):
            await disk.write(lambda: disk.read(sql))
        refused += 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(write, "UPDATE setting SET value = 'x' WHERE name = 'test'")
        nursery.start_soon(write, "SELECT sum(length(value)) FROM xattr")
        nursery.start_soon(write, "UPDATE setting SET value = 'y' WHERE name = 'test'")
    assert refused == 3
    assert not disk.in_transaction
    assert refuses_everything(disk)


async def test_a_failed_fsync_is_the_end(
    disk: Database, monkeypatch: pytest.MonkeyPatch, expect_log: ExpectLog
) -> None:
    """Nobody hears that it happened or not: the next metad looks."""
    expect_log("disk I/O error")
    with monkeypatch.context() as patch:
        patch.setattr(disk, "commit", failing(sqlite3.SQLITE_IOERR_FSYNC))
        with pytest.raises(Unavailable):
            await disk.write(lambda: disk.change(ADD, (b"a",)))
    with pytest.raises(Unavailable):
        await disk.write(lambda: disk.change(ADD, (b"b",)))
    assert refuses_everything(disk)


async def test_a_roll_back_may_fail_as_well(
    disk: Database, monkeypatch: pytest.MonkeyPatch, expect_log: ExpectLog
) -> None:
    expect_log("disk I/O error")
    with monkeypatch.context() as patch:
        patch.setattr(disk, "commit", failing(sqlite3.SQLITE_IOERR_FSYNC))
        patch.setattr(disk, "roll_back", failing(sqlite3.SQLITE_IOERR_WRITE))
        with pytest.raises(Unavailable):
            await disk.write(lambda: disk.change(ADD, (b"a",)))


@pytest.mark.parametrize("has_room", [False, True])
def test_no_room_for_the_index_of_the_log(
    disk: Database, monkeypatch: pytest.MonkeyPatch, expect_log: ExpectLog, has_room: bool
) -> None:
    """On a full disk it is ENOSPC; else the disk is broken."""
    expect_log("disk I/O error")
    monkeypatch.setattr(causes, "has_room", lambda _path: has_room)
    with pytest.raises(sqlite3.Error) as caught:
        failing(sqlite3.SQLITE_IOERR_SHMSIZE)()
    found = disk.failure.translated(caught.value)
    assert isinstance(found, Unavailable if has_room else NoSpace)
    assert (disk.failure.problem is not None) == has_room


@pytest.mark.parametrize("replaced", [False, True])
async def test_a_database_that_was_taken_away_is_the_end(disk: Database, replaced: bool) -> None:
    async with trio.open_nursery() as nursery:

        async def watch() -> None:
            with pytest.raises(InputOutput, match="not there any more"):
                await disk.failure.watch(0.01)

        nursery.start_soon(watch)
        await trio.sleep(0.05)
        assert disk.failure.problem is None
        take_away(disk, replaced=replaced)
    assert refuses_everything(disk)
