"""Checksums of the database's pages: no bit that rots is served, nothing whole is refused."""

from __future__ import annotations

import errno
import os
import random
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from dfswire.errors import InputOutput, Unavailable, UsageError
from metad.storage import pagesums
from metad.storage.database import Database
from metad.storage.opening import open_database
from metad.storage.pagesums import PageSums
from metad.storage.sumsfile import SumsFile, differing, forget_sums, page_sum
from metad.storage.verification import verify, verify_at_once, verify_forever

PAGE = 4096
FRAMES = 100  # a log so long is folded in
SHELL = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1])
connection.execute("SELECT * FROM extra").fetchall()
connection.close()
"""
ExpectLog = Callable[[str], None]


@pytest.fixture(autouse=True)
def _short_log(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pagesums, "CHECKPOINT_FRAMES", FRAMES)
    monkeypatch.setattr(pagesums, "AGAIN_FRAMES", FRAMES)


def opened(path: Path) -> Database:
    return open_database(f"sqlite://{path}", inline=True)


def fill(db: Database, first: int, count: int, size: int = 300) -> None:
    """Rows of a table of our own; each in a transaction."""
    for number in range(first, first + count):
        with db.transaction():
            db.change("INSERT INTO extra VALUES (?, ?)", (number, os.urandom(size)))


def rows(db: Database) -> int:
    ((count,),) = db.read("SELECT count(*) FROM extra")
    return int(count)


def sums_of(db: Database) -> PageSums:
    assert db._sums is not None
    return db._sums


def log_of(path: Path) -> Path:
    return path.with_name("db-wal")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A database that was closed, of some dozens of pages."""
    db = opened(tmp_path / "db")
    with db.transaction():
        db._writer.execute("CREATE TABLE extra (id INTEGER PRIMARY KEY, data BLOB)")
    fill(db, 0, 100)
    db.close()
    return tmp_path / "db"


def copied(path: Path, name: str, *suffixes: str) -> Path:
    """The files as they are now, somewhere else."""
    place = path.parent / name
    place.mkdir()
    for suffix in ("", *suffixes):
        shutil.copy(f"{path}{suffix}", place)
    return place / "db"


def flip(path: Path, bit: int) -> None:
    with path.open("r+b") as file:
        file.seek(bit // 8)
        (byte,) = file.read(1)
        file.seek(bit // 8)
        file.write(bytes([byte ^ 1 << bit % 8]))


# -- at a start -----------------------------------------------------------------------------------


def test_every_bit_counts(path: Path, rng: random.Random) -> None:
    """F19: bits anywhere in the file."""
    bits = path.stat().st_size * 8
    before = path.read_bytes()
    for _round in range(200):
        flip(path, rng.randrange(bits))
        with pytest.raises(UsageError, match=r"page [0-9]+ is damaged, restore a backup"):
            opened(path)
        path.write_bytes(before)
    opened(path).close()


def test_every_bit_counts_beside_a_log(path: Path, rng: random.Random) -> None:
    """A process that died has left one: pages in it come from there, all others are looked at."""
    db = opened(path)
    fill(db, 1000, 5)
    copy = copied(path, "copy", "-wal", "-sums")
    db.close()
    kept = {file: file.read_bytes() for file in copy.parent.iterdir()}
    refused = 0
    for _round in range(100):
        flip(copy, rng.randrange(len(kept[copy]) * 8))
        try:
            again = opened(copy)
        except UsageError:
            refused += 1
        else:
            assert rows(again) == 105
            again.close()
        for file, data in kept.items():
            file.write_bytes(data)
    assert 50 < refused < 100


def test_two_pages_that_are_exchanged(path: Path) -> None:
    data = path.read_bytes()
    last = len(data) // PAGE
    one, other = data[-2 * PAGE : -PAGE], data[-PAGE:]
    path.write_bytes(data[: -2 * PAGE] + other + one)
    with pytest.raises(UsageError, match=rf"2 pages \({last - 1}, {last}\) are damaged"):
        opened(path)


def test_a_database_that_was_cut_off(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 5 * PAGE)
    with pytest.raises(UsageError, match="damaged, restore a backup"):
        opened(path)


def test_sums_are_learned_where_there_are_none(path: Path) -> None:
    forget_sums(str(path))
    opened(path).close()
    flip(path, 20 * PAGE * 8)
    with pytest.raises(UsageError, match=r"page 21 is damaged.*remove .*db-sums"):
        opened(path)


def test_sums_that_were_not_finished_are_learned_again(path: Path) -> None:
    os.truncate(path.with_name("db-sums"), 0)
    opened(path).close()
    SumsFile(str(path)).close()
    opened(path).close()
    flip(path, 20 * PAGE * 8)
    with pytest.raises(UsageError, match="page 21 is damaged"):
        opened(path)


def test_text_that_is_none_is_damage(path: Path) -> None:
    """Without sums SQLite's driver meets it, as a ValueError."""
    forget_sums(str(path))
    data = path.read_bytes().replace(b"CREATE TABLE extra", b"CR\xff\xffTE TABLE extra")
    path.write_bytes(data)
    with pytest.raises(UsageError, match=r"decode.* damaged, restore a backup"):
        opened(path)


def test_an_older_database_in_its_place(path: Path) -> None:
    before = path.read_bytes()
    db = opened(path)
    fill(db, 1000, 10)
    db.close()
    path.write_bytes(before)
    with pytest.raises(UsageError, match="put here on purpose"):
        opened(path)


def test_a_new_database_in_its_place(path: Path) -> None:
    path.unlink()
    db = opened(path)
    db.close()
    opened(path).close()


def test_pages_that_were_never_written(path: Path) -> None:
    """Taken and freed in one transaction: SQLite makes the file longer, and leaves them out."""
    db = opened(path)
    with db.transaction():
        db.change("INSERT INTO extra VALUES (5000, zeroblob(400000))", ())
        db.change("DELETE FROM extra WHERE id = 5000", ())
    verify_at_once(db)
    sums_of(db).checkpoint()
    verify_at_once(db)
    db.close()
    opened(path).close()


def test_pages_that_are_gone(path: Path) -> None:
    """Of a database that became smaller, and grows again."""
    db = opened(path)
    fill(db, 1000, 10, size=50 * PAGE)
    with db.transaction():
        db.change("DELETE FROM extra WHERE id >= 1000", ())
    sums_of(db).checkpoint()
    before = path.stat().st_size
    db._writer.execute("VACUUM")
    sums_of(db).checkpoint()
    assert path.stat().st_size < before // 2
    with db.transaction():
        db.change("INSERT INTO extra VALUES (5000, zeroblob(1000000))", ())
        db.change("DELETE FROM extra WHERE id = 5000", ())
    sums_of(db).checkpoint()
    assert path.stat().st_size > before // 2
    db.close()
    opened(path).close()


def test_the_page_that_sqlite_keeps_for_its_locks() -> None:
    """Of a database of more than a GiB; nothing is ever written there."""
    first = (1 << 30) // PAGE
    pages = [b"a" * PAGE, bytes(PAGE), b"c" * PAGE]
    sums = [page_sum(first, pages[0]), 0, page_sum(first + 2, pages[2])]
    assert differing(b"".join(pages), sums, PAGE, first) == []


def test_damaged_sums(path: Path) -> None:
    flip(path.with_name("db-sums"), 3)
    with pytest.raises(UsageError, match="db-sums is damaged: remove it"):
        opened(path)


def test_sums_of_a_newer_version(path: Path) -> None:
    with path.with_name("db-sums").open("r+b") as file:
        file.write(b"DFSsums2")
    with pytest.raises(UsageError, match=r"db-sums was written by a newer metad \(version 2"):
        opened(path)


def test_sums_that_cannot_be_opened(path: Path) -> None:
    path.with_name("db-sums").unlink()
    path.with_name("db-sums").mkdir()
    with pytest.raises(UsageError, match=r"cannot use database .*db-sums"):
        opened(path)


# -- while it is used -----------------------------------------------------------------------------


def test_a_process_that_dies_leaves_no_damage(path: Path) -> None:
    """With all of it in the log, or a part; after a checkpoint or none."""
    db = opened(path)
    for round_ in range(6):
        fill(db, 1000 + 10 * round_, 10)
        if round_ == 3:
            sums_of(db).checkpoint()
        copy = copied(path, f"copy{round_}", "-wal", "-sums")
        again = opened(copy)
        assert rows(again) == 110 + 10 * round_
        again.close()
        opened(copy).close()
    db.close()


def test_sums_that_are_newer_than_the_database(path: Path) -> None:
    """It died after the sums were written, before the log was folded in."""
    db = opened(path)
    fill(db, 1000, 10)
    before = copied(path, "copy", "-wal")
    sums_of(db).checkpoint()
    shutil.copy(f"{path}-sums", before.parent)
    db.close()
    again = opened(before)
    assert rows(again) == 110
    again.close()
    opened(before).close()


def test_a_long_log_is_folded_in_beside_the_work(path: Path) -> None:
    db = opened(path)
    fill(db, 1000, 40, size=FRAMES * PAGE // 10)
    assert path.stat().st_size > FRAMES * PAGE
    assert log_of(path).stat().st_size < 3 * FRAMES * PAGE
    verify_at_once(db)
    db.close()
    opened(path).close()


def test_a_log_that_cannot_be_folded_in_grows(path: Path) -> None:
    """Somebody reads for a long time."""
    db = opened(path)
    with sqlite3.connect(path, isolation_level=None) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM extra").fetchone()
        fill(db, 1000, 60, size=FRAMES * PAGE // 10)
        assert log_of(path).stat().st_size > 3 * FRAMES * PAGE
        verify_at_once(db)
        opened(copied(path, "copy", "-wal", "-sums")).close()
        reader.execute("COMMIT")
    reader.close()
    fill(db, 2000, 30, size=FRAMES * PAGE // 10)
    assert path.stat().st_size > 3 * FRAMES * PAGE
    verify_at_once(db)
    db.close()
    opened(path).close()


def test_a_reader_in_the_way_is_not_waited_for_long(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log begins anew soon after he has gone, not when it has grown as far again."""
    monkeypatch.setattr(pagesums, "AGAIN_FRAMES", 10)
    db = opened(path)
    with sqlite3.connect(path, isolation_level=None) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM extra").fetchone()
        fill(db, 1000, 11, size=FRAMES * PAGE // 10)
        assert log_of(path).stat().st_size > FRAMES * PAGE
        reader.execute("COMMIT")
    reader.close()
    fill(db, 2000, 40, size=FRAMES * PAGE // 20)
    assert log_of(path).stat().st_size < 1.7 * FRAMES * PAGE
    db.close()
    opened(path).close()


def test_a_person_with_the_shell_changes_nothing(path: Path) -> None:
    """Opens the database while it is used, and closes it: the log stays, and its locks."""
    db = opened(path)
    fill(db, 1000, 10)
    for _round in range(2):
        verify_at_once(db)
        assert os.spawnlp(os.P_WAIT, "python3", "python3", "-c", SHELL, str(path)) == 0
        assert log_of(path).stat().st_size > 10 * PAGE
        fill(db, 1010 + 10 * _round, 10)
    assert rows(db) == 130
    db.close()
    opened(path).close()


def test_a_person_with_the_shell_looks_after_a_crash(path: Path) -> None:
    """SQLite folds the log in when the last one closes the database."""
    db = opened(path)
    fill(db, 1000, 10)
    copy = copied(path, "copy", "-wal", "-sums")
    db.close()
    assert os.spawnlp(os.P_WAIT, "python3", "python3", "-c", SHELL, str(copy)) == 0
    assert not log_of(copy).exists()
    again = opened(copy)
    assert rows(again) == 110
    again.close()


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_no_room_for_sums_passes(
    path: Path, monkeypatch: pytest.MonkeyPatch, expect_log: ExpectLog, code: int
) -> None:
    expect_log("no room for the checksums")
    db = opened(path)
    with monkeypatch.context() as patch:
        patch.setattr(SumsFile, "put", failing(code))
        fill(db, 1000, 20, size=FRAMES * PAGE // 10)
    assert path.stat().st_size < FRAMES * PAGE, "nothing was folded in"
    fill(db, 2000, 20, size=FRAMES * PAGE // 10)
    assert path.stat().st_size > FRAMES * PAGE
    db.close()
    opened(path).close()


def test_sums_that_cannot_be_written_are_the_end(
    path: Path, monkeypatch: pytest.MonkeyPatch, expect_log: ExpectLog
) -> None:
    """A failed sync is never tried again; what was committed stays in the log."""
    expect_log("its checksums cannot be kept")
    expect_log("the log of the database stays as it is")
    db = opened(path)
    with monkeypatch.context() as patch:
        patch.setattr(SumsFile, "sync", failing(errno.EIO))
        fill(db, 1000, 11, size=FRAMES * PAGE // 10)
        with pytest.raises(Unavailable, match="checksums cannot be kept"):
            db.failure.check()
        copy = copied(path, "copy", "-wal", "-sums")
        db.close()
    for each in (copy, path):
        again = opened(each)
        assert rows(again) == 111
        again.close()


def test_after_a_failed_sync_all_sums_are_written_again(
    path: Path, monkeypatch: pytest.MonkeyPatch, expect_log: ExpectLog
) -> None:
    """Those that it was for may be lost although they were written."""
    expect_log("its checksums cannot be kept")
    db = opened(path)
    before = path.with_name("db-sums").read_bytes()

    def lose(_file: SumsFile) -> None:
        path.with_name("db-sums").write_bytes(before)
        raise OSError(errno.EIO, "told to")

    with monkeypatch.context() as patch:
        patch.setattr(SumsFile, "sync", lose)
        fill(db, 1000, 11, size=FRAMES * PAGE // 10)
    assert db.failure.problem is not None
    db.close()
    opened(path).close()


def test_sqlite_cannot_fold_in(path: Path, expect_log: ExpectLog) -> None:
    expect_log("metadata database: told to")
    db = opened(path)

    def fail() -> None:
        raise sqlite3.OperationalError("told to")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sums_of(db), "committed", fail)
        fill(db, 1000, 1)
    assert rows(db) == 101
    db.close()


def failing(code: int) -> Callable[..., None]:
    def fail(*_arguments: object) -> None:
        raise OSError(code, os.strerror(code))

    return fail


# -- read through while it is used ----------------------------------------------------------------


async def test_rot_is_found_while_it_serves(path: Path, expect_log: ExpectLog) -> None:
    expect_log("db: page 21 is damaged")
    db = opened(path)
    fill(db, 1000, 10)
    assert await verify(db, pause_s=0) > 20
    flip(path, 20 * PAGE * 8 + 77)
    await verify(db, pause_s=0)
    with pytest.raises(Unavailable, match="page 21"):
        db.failure.check()
    with pytest.raises(Unavailable, match="page 21"):
        verify_at_once(db)
    db.close()


async def test_a_database_that_cannot_be_read(
    path: Path, monkeypatch: pytest.MonkeyPatch, expect_log: ExpectLog
) -> None:
    expect_log("db cannot be read: .*Input/output error")
    db = opened(path)
    monkeypatch.setattr(PageSums, "damaged", failing(errno.EIO))
    await verify(db, pause_s=0)
    assert db.failure.problem is not None
    db.close()


async def test_it_is_read_through_each_day(path: Path, expect_log: ExpectLog) -> None:
    """The first time it is whole."""
    expect_log("page 21 is damaged")
    db = open_database(f"sqlite://{path}")
    second = trio.Event()
    begun = []

    def begin() -> None:
        begun.append(db.failure.problem)
        if len(begun) == 2:
            flip(path, 20 * PAGE * 8 + 77)
            second.set()

    with pytest.MonkeyPatch.context() as patch, trio.fail_after(5):
        patch.setattr(db, "forget_cached_pages", begin)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(verify_forever, db, 0.001)
            await second.wait()
            with pytest.raises(InputOutput, match="page 21"):
                await db.failure.watch(60)
            nursery.cancel_scope.cancel()
    assert begun[:2] == [None, None]
    db.close()


def test_what_has_rotted_is_not_copied(path: Path) -> None:
    """The kernel's memory is let go, so what is read comes from the disk."""
    db = opened(path)
    db.forget_cached_pages()
    verify_at_once(db)
    db.close()
