"""Checksums of the database's pages while metad changes them, dies, and has no room."""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from dfswire.errors import Unavailable
from metad.storage import pagesums
from metad.storage.sumsfile import SumsFile
from metad.storage.verification import verify_at_once
from tests.t2_metad import pages

SHELL = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1])
connection.execute("SELECT * FROM extra").fetchall()
connection.close()
"""
ExpectLog = Callable[[str], None]


def test_a_process_that_dies_leaves_no_damage(paged: Path) -> None:
    """With all of it in the log, or a part; after a checkpoint or none."""
    db = pages.opened(paged)
    for round_ in range(6):
        pages.fill(db, 1000 + 10 * round_, 10)
        if round_ == 3:
            pages.sums_of(db).checkpoint()
        copy = pages.copied(paged, f"copy{round_}", "-wal", "-sums")
        again = pages.opened(copy)
        assert pages.rows(again) == 110 + 10 * round_
        again.close()
        pages.opened(copy).close()
    db.close()


def test_sums_that_are_newer_than_the_database(paged: Path) -> None:
    """It died after the sums were written, before the log was folded in."""
    db = pages.opened(paged)
    pages.fill(db, 1000, 10)
    before = pages.copied(paged, "copy", "-wal")
    pages.sums_of(db).checkpoint()
    shutil.copy(f"{paged}-sums", before.parent)
    db.close()
    again = pages.opened(before)
    assert pages.rows(again) == 110
    again.close()
    pages.opened(before).close()


def test_a_long_log_is_folded_in_beside_the_work(paged: Path) -> None:
    db = pages.opened(paged)
    pages.fill(db, 1000, 40, size=pages.FRAMES * pages.PAGE // 10)
    assert paged.stat().st_size > pages.FRAMES * pages.PAGE
    assert pages.log_of(paged).stat().st_size < 3 * pages.FRAMES * pages.PAGE
    verify_at_once(db)
    db.close()
    pages.opened(paged).close()


def test_a_log_that_cannot_be_folded_in_grows(paged: Path) -> None:
    """Somebody reads for a long time."""
    db = pages.opened(paged)
    with sqlite3.connect(paged, isolation_level=None) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM extra").fetchone()
        pages.fill(db, 1000, 60, size=pages.FRAMES * pages.PAGE // 10)
        assert pages.log_of(paged).stat().st_size > 3 * pages.FRAMES * pages.PAGE
        verify_at_once(db)
        pages.opened(pages.copied(paged, "copy", "-wal", "-sums")).close()
        reader.execute("COMMIT")
    reader.close()
    pages.fill(db, 2000, 30, size=pages.FRAMES * pages.PAGE // 10)
    assert paged.stat().st_size > 3 * pages.FRAMES * pages.PAGE
    verify_at_once(db)
    db.close()
    pages.opened(paged).close()


def test_a_reader_in_the_way_is_not_waited_for_long(
    paged: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log begins anew soon after he has gone, not when it has grown as far again."""
    monkeypatch.setattr(pagesums, "AGAIN_FRAMES", 10)
    db = pages.opened(paged)
    with sqlite3.connect(paged, isolation_level=None) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM extra").fetchone()
        pages.fill(db, 1000, 11, size=pages.FRAMES * pages.PAGE // 10)
        assert pages.log_of(paged).stat().st_size > pages.FRAMES * pages.PAGE
        reader.execute("COMMIT")
    reader.close()
    pages.fill(db, 2000, 40, size=pages.FRAMES * pages.PAGE // 20)
    assert pages.log_of(paged).stat().st_size < 1.7 * pages.FRAMES * pages.PAGE
    db.close()
    pages.opened(paged).close()


def test_a_person_with_the_shell_changes_nothing(paged: Path) -> None:
    """Opens the database while it is used, and closes it: the log stays, and its locks."""
    db = pages.opened(paged)
    pages.fill(db, 1000, 10)
    for _round in range(2):
        verify_at_once(db)
        assert os.spawnlp(os.P_WAIT, "python3", "python3", "-c", SHELL, str(paged)) == 0
        assert pages.log_of(paged).stat().st_size > 10 * pages.PAGE
        pages.fill(db, 1010 + 10 * _round, 10)
    assert pages.rows(db) == 130
    db.close()
    pages.opened(paged).close()


def test_a_person_with_the_shell_looks_after_a_crash(paged: Path) -> None:
    """SQLite folds the log in when the last one closes the database."""
    db = pages.opened(paged)
    pages.fill(db, 1000, 10)
    copy = pages.copied(paged, "copy", "-wal", "-sums")
    db.close()
    assert os.spawnlp(os.P_WAIT, "python3", "python3", "-c", SHELL, str(copy)) == 0
    assert not pages.log_of(copy).exists()
    again = pages.opened(copy)
    assert pages.rows(again) == 110
    again.close()


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_no_room_for_sums_passes(
    paged: Path, monkeypatch: pytest.MonkeyPatch, expect_log: ExpectLog, code: int
) -> None:
    expect_log("the log of the database grows until there is room")
    db = pages.opened(paged)
    with monkeypatch.context() as patch:
        patch.setattr(SumsFile, "put", pages.failing(OSError(code, "told to")))
        pages.fill(db, 1000, 20, size=pages.FRAMES * pages.PAGE // 10)
    assert paged.stat().st_size < pages.FRAMES * pages.PAGE, "nothing was folded in"
    pages.fill(db, 2000, 20, size=pages.FRAMES * pages.PAGE // 10)
    assert paged.stat().st_size > pages.FRAMES * pages.PAGE
    db.close()
    pages.opened(paged).close()


def test_sums_that_cannot_be_written_are_the_end(
    paged: Path, monkeypatch: pytest.MonkeyPatch, expect_log: ExpectLog
) -> None:
    """A failed sync is never tried again; what was committed stays in the log."""
    expect_log("its checksums cannot be kept")
    expect_log("the log of the database stays as it is")
    db = pages.opened(paged)
    with monkeypatch.context() as patch:
        patch.setattr(SumsFile, "sync", pages.failing(OSError(errno.EIO, "told to")))
        pages.fill(db, 1000, 11, size=pages.FRAMES * pages.PAGE // 10)
        with pytest.raises(Unavailable, match="checksums cannot be kept"):
            db.failure.check()
        copy = pages.copied(paged, "copy", "-wal", "-sums")
        db.close()
    for each in (copy, paged):
        again = pages.opened(each)
        assert pages.rows(again) == 111
        again.close()


def test_after_a_failed_sync_all_sums_are_written_again(
    paged: Path, monkeypatch: pytest.MonkeyPatch, expect_log: ExpectLog
) -> None:
    """Those that it was for may be lost although they were written."""
    expect_log("its checksums cannot be kept")
    db = pages.opened(paged)
    before = paged.with_name("db-sums").read_bytes()

    def lose(_file: SumsFile) -> None:
        paged.with_name("db-sums").write_bytes(before)
        raise OSError(errno.EIO, "told to")

    with monkeypatch.context() as patch:
        patch.setattr(SumsFile, "sync", lose)
        pages.fill(db, 1000, 11, size=pages.FRAMES * pages.PAGE // 10)
    assert db.failure.problem is not None
    db.close()
    pages.opened(paged).close()


def test_sqlite_cannot_fold_in(paged: Path, expect_log: ExpectLog) -> None:
    expect_log("metadata database: told to")
    db = pages.opened(paged)

    def fail() -> None:
        raise sqlite3.OperationalError("told to")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pages.sums_of(db), "committed", fail)
        pages.fill(db, 1000, 1)
    assert pages.rows(db) == 101
    db.close()
