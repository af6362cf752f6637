"""Group commit with the real thing: a database on disk and its thread."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trio
import trio.testing

from dfswire.daemon import REQUEST_ID
from dfswire.errors import InputOutput, NoEntry, NoSpace, Unavailable
from metad.storage.database import Database
from metad.storage.group_commit import GROUP_MAX_WORKS
from metad.storage.opening import open_database

ADD = "INSERT INTO xattr (inode, name, value) VALUES (1, ?, x'')"


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Database]:
    """A database on disk."""
    database = open_database(f"sqlite://{tmp_path}/db")
    yield database
    database.close()


def names(db: Database) -> list[bytes]:
    return [name for (name,) in db.read("SELECT name FROM xattr ORDER BY id")]


async def add(db: Database, name: bytes) -> int:
    return await db.write(lambda: db.change(ADD, (name,)))


class SlowCommit:
    """Holds a database's commits back until it is told to let them go."""

    def __init__(self, db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
        self.entered = threading.Semaphore(0)
        self.go = threading.Semaphore(0)
        self._commit = db.commit
        monkeypatch.setattr(db, "commit", self._wait)

    def _wait(self) -> None:
        self.entered.release()
        self.go.acquire()
        self._commit()

    async def until_entered(self) -> None:
        await trio.to_thread.run_sync(self.entered.acquire)


async def test_each_work_knows_for_whom_it_is_done(disk: Database) -> None:
    """Though all are done in one go, for the first who came."""
    seen: dict[str, str] = {}

    async def write(request_id: str) -> None:
        REQUEST_ID.set(request_id)
        await disk.write(lambda: seen.update({request_id: REQUEST_ID.get()}))

    async with trio.open_nursery() as nursery:
        for number in range(5):
            nursery.start_soon(write, f"request {number}")
    assert seen == {f"request {number}": f"request {number}" for number in range(5)}


async def test_a_write_returns_what_its_work_returns(disk: Database) -> None:
    assert await add(disk, b"a") == 1
    assert names(disk) == [b"a"]


async def test_concurrent_writers_share_commits(disk: Database) -> None:
    async with trio.open_nursery() as nursery:
        for number in range(50):
            nursery.start_soon(add, disk, b"%d" % number)
    assert len(names(disk)) == 50
    assert disk.commits <= 3


async def test_works_run_in_the_order_of_the_calls(
    disk: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = SlowCommit(disk, monkeypatch)
    expected = [b"%d" % number for number in range(GROUP_MAX_WORKS + 10)]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(add, disk, b"first")
        await slow.until_entered()
        for name in expected:
            nursery.start_soon(add, disk, name)
            await trio.testing.wait_all_tasks_blocked()
        slow.go.release(10)
    assert names(disk) == [b"first", *expected]
    assert disk.commits == 3  # the first alone, then a full group, then the rest


async def test_nothing_is_seen_or_acknowledged_before_its_commit(
    disk: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = SlowCommit(disk, monkeypatch)
    acknowledged = []

    async def add_and_tell(name: bytes) -> None:
        await add(disk, name)
        acknowledged.append(name)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(add_and_tell, b"a")
        await slow.until_entered()
        nursery.start_soon(add_and_tell, b"b")
        await trio.testing.wait_all_tasks_blocked()
        assert names(disk) == acknowledged == []
        slow.go.release()
        await slow.until_entered()
        await trio.testing.wait_all_tasks_blocked()
        assert names(disk) == acknowledged == [b"a"]
        slow.go.release()
    assert names(disk) == acknowledged == [b"a", b"b"]


async def test_a_work_that_raises_is_undone_alone(disk: Database) -> None:
    caught: list[Exception] = []

    def fail(error: Exception) -> None:
        disk.change(ADD, (b"undone",))
        raise error

    async def expect(error: Exception) -> None:
        with pytest.raises(type(error)) as info:
            await disk.write(lambda: fail(error))
        caught.append(info.value)

    errors = [NoEntry("ours"), ZeroDivisionError("a bug")]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(add, disk, b"a")
        for error in errors:
            nursery.start_soon(expect, error)
        nursery.start_soon(add, disk, b"b")
    assert sorted(names(disk)) == [b"a", b"b"]
    assert {id(error) for error in caught} == {id(error) for error in errors}


async def test_sqlite_errors_of_a_work_are_translated(
    disk: Database, expect_log: Callable[[str], None]
) -> None:
    expect_log("UNIQUE constraint failed")
    await add(disk, b"a")
    with pytest.raises(InputOutput):
        await add(disk, b"a")
    assert names(disk) == [b"a"]


async def test_a_full_disk(disk: Database, expect_log: Callable[[str], None]) -> None:
    expect_log("disk is full")

    def fill() -> None:
        disk.read("PRAGMA max_page_count = 1")  # not below the present size
        disk.change("INSERT INTO xattr (inode, name, value) VALUES (1, x'61', zeroblob(1 << 20))")

    with pytest.raises(NoSpace):
        await disk.write(fill)
    await disk.write(lambda: disk.read("PRAGMA max_page_count = 1000000"))
    await add(disk, b"b")
    assert names(disk) == [b"b"]


async def test_when_sqlite_ends_the_transaction_the_whole_group_fails(
    disk: Database, expect_log: Callable[[str], None]
) -> None:
    expect_log("gone")
    failed = []

    def lose() -> None:
        disk.change("ROLLBACK")
        raise sqlite3.OperationalError("gone")

    async def expect(work: Callable[[], object]) -> None:
        with pytest.raises(InputOutput):
            await disk.write(work)
        failed.append(work)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(expect, lambda: disk.change(ADD, (b"a",)))
        nursery.start_soon(expect, lose)
        nursery.start_soon(expect, lambda: disk.change(ADD, (b"b",)))
    assert len(failed) == 3
    assert names(disk) == []
    await add(disk, b"c")
    assert names(disk) == [b"c"]


async def test_a_failed_commit_fails_its_group_and_no_other(
    disk: Database, expect_log: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    expect_log("disk I/O error")

    def fail() -> None:
        raise sqlite3.OperationalError("disk I/O error")

    async def expect(name: bytes) -> None:
        with pytest.raises(InputOutput):
            await add(disk, name)

    with monkeypatch.context() as patch:
        patch.setattr(disk, "commit", fail)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(expect, b"a")
            nursery.start_soon(expect, b"b")
    assert names(disk) == []
    await add(disk, b"c")
    assert names(disk) == [b"c"]


async def test_a_database_that_another_program_holds_is_busy(
    disk: Database, expect_log: Callable[[str], None]
) -> None:
    expect_log("locked")
    with disk.transaction():
        disk.read("PRAGMA busy_timeout = 1")
    person = sqlite3.connect(disk.path, isolation_level=None)
    person.execute("BEGIN IMMEDIATE")
    with pytest.raises(Unavailable):
        await add(disk, b"a")
    person.close()
    await add(disk, b"b")
    assert names(disk) == [b"b"]


@pytest.mark.parametrize("inline", [False, True])
async def test_a_cancelled_caller_loses_the_result_only(tmp_path: Path, inline: bool) -> None:
    db = open_database(f"sqlite://{tmp_path}/db", inline=inline)
    with trio.CancelScope() as scope:
        scope.cancel()
        await add(db, b"a")
    assert scope.cancelled_caught
    await add(db, b"b")
    assert names(db) == [b"a", b"b"]
    db.close()


async def test_inline_needs_no_thread(tmp_path: Path) -> None:
    threads = threading.active_count()
    db = open_database(f"sqlite://{tmp_path}/db", inline=True)
    await add(db, b"a")
    with pytest.raises(NoEntry):
        await db.write(lambda: lookup_nothing())
    assert threading.active_count() == threads
    assert names(db) == [b"a"]
    db.close()


def lookup_nothing() -> None:
    raise NoEntry


async def test_closing_finishes_what_was_accepted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    db = open_database(f"sqlite://{tmp_path}/db")
    slow = SlowCommit(db, monkeypatch)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(add, db, b"a")
        await slow.until_entered()
        nursery.start_soon(add, db, b"b")
        await trio.testing.wait_all_tasks_blocked()
        slow.go.release(2)
        db.close()
    with pytest.raises(Unavailable):
        await add(db, b"c")
    db = open_database(f"sqlite://{tmp_path}/db")
    assert names(db) == [b"a", b"b"]
    db.close()


async def test_closing_before_the_first_group_began(tmp_path: Path) -> None:
    db = open_database(f"sqlite://{tmp_path}/db")

    async def close() -> None:
        db.close()

    async with trio.open_nursery() as nursery:
        with trio.CancelScope() as scope:
            scope.cancel()
            await add(db, b"a")
        nursery.start_soon(close)
    db.close()
    db = open_database(f"sqlite://{tmp_path}/db")
    assert names(db) == [b"a"]
    db.close()


def test_the_loop_may_end_before_the_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    db = open_database(f"sqlite://{tmp_path}/db")
    slow = SlowCommit(db, monkeypatch)

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(add, db, b"a")
            await slow.until_entered()
            nursery.cancel_scope.cancel()

    trio.run(main)
    slow.go.release()
    db.close()
    db = open_database(f"sqlite://{tmp_path}/db")
    assert names(db) == [b"a"]
    db.close()


async def test_acknowledged_rows_survive_a_power_cut(disk: Database, tmp_path: Path) -> None:
    """The twin of a power cut: the files as they are at some moment, with the log not folded in."""
    for number in range(20):
        await add(disk, b"%d" % number)
    (tmp_path / "copy").mkdir()
    for name in ("db", "db-wal"):
        shutil.copy(tmp_path / name, tmp_path / "copy" / name)
    after = open_database(f"sqlite://{tmp_path}/copy/db")
    assert names(after) == [b"%d" % number for number in range(20)]
    after.close()


CRASHING = """
import os, sys, trio
from metad.storage.opening import open_database

acknowledged = 0

async def write(db, number):
    global acknowledged
    await db.write(lambda: db.change(sys.argv[2], (b"%d" % number,)))
    os.write(1, b"%d\\n" % number)
    acknowledged += 1
    if acknowledged == 100:
        os._exit(7)

async def main():
    db = open_database(sys.argv[1])
    async with trio.open_nursery() as nursery:
        for number in range(1000):
            nursery.start_soon(write, db, number)
            if number % 7 == 0:
                await trio.sleep(0)

trio.run(main)
"""


def test_acknowledged_rows_survive_a_crash(tmp_path: Path) -> None:
    url = f"sqlite://{tmp_path}/db"
    process = subprocess.run(
        [sys.executable, "-c", CRASHING, url, ADD], capture_output=True, check=False
    )
    assert process.returncode == 7, process.stderr.decode()
    acknowledged = set(process.stdout.split())
    db = open_database(url)
    assert len(acknowledged) == 100
    assert acknowledged <= set(names(db))
    db.close()


def test_a_process_that_fails_ends(tmp_path: Path) -> None:
    failing = CRASHING.replace("os._exit(7)", "raise SystemExit(5)")
    command = [sys.executable, "-c", failing, f"sqlite://{tmp_path}/db", ADD]
    process = subprocess.run(command, capture_output=True, check=False, timeout=30)
    assert process.returncode == 1
    assert b"SystemExit" in process.stderr
