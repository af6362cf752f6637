"""What passes is no damage: metad starts on a full disk, and a start that fails breaks nothing."""

from __future__ import annotations

import errno
import gc
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
import trio
import typer
from peewee import PeeweeException, SqliteDatabase

from dfswire.errors import DFSError, InputOutput, NoSpace, Unavailable, UsageError
from metad.__main__ import run
from metad.storage import causes, connections
from metad.storage.causes import lacks_room, refusal
from metad.storage.pagesums import PageSums
from metad.storage.sumsfile import SumsFile, forget_sums
from metad.storage.verification import verify_at_once
from tests.t2_metad import pages

ExpectLog = Callable[[str], None]
FULL = OSError(errno.ENOSPC, "told to")


def of_sqlite(code: int) -> sqlite3.Error:
    problem = sqlite3.OperationalError("told to")
    problem.sqlite_errorcode = code
    return problem


@pytest.fixture
def died(paged: Path) -> Path:
    """A database with a log of some pages, as a metad that was killed leaves it."""
    db = pages.opened(paged)
    pages.fill(db, 1000, 10)
    copy = pages.copied(paged, "copy", "-wal", "-sums")
    db.close()
    return copy


@pytest.mark.parametrize(
    ("what", "method", "problem"),
    [
        (SumsFile, "put", FULL),
        (SumsFile, "sync", OSError(errno.EDQUOT, "told to")),
        (PageSums, "checkpoint", of_sqlite(sqlite3.SQLITE_FULL)),
    ],
)
@pytest.mark.parametrize("learns", [False, True])
def test_a_start_on_a_full_disk(
    died: Path,
    monkeypatch: pytest.MonkeyPatch,
    expect_log: ExpectLog,
    what: type,
    method: str,
    problem: Exception,
    learns: bool,
) -> None:
    expect_log("the log of the database grows until there is room")
    expect_log("the log of the database stays as it is")
    if learns:
        forget_sums(str(died))
    with monkeypatch.context() as patch:
        patch.setattr(what, method, pages.failing(problem))
        db = pages.opened(died)
        assert pages.rows(db) == 110
        verify_at_once(db)
        pages.fill(db, 2000, 1)
        db.close()
    assert pages.log_of(died).stat().st_size > pages.PAGE, "SQLite has folded in what has no sums"
    again = pages.opened(died)
    assert pages.rows(again) == 111
    verify_at_once(again)
    again.close()
    pages.flip(died, 20 * pages.PAGE * 8)
    with pytest.raises(UsageError, match="page 21 is damaged"):
        pages.opened(died)


def test_a_sum_that_has_no_room_is_no_damage(
    paged: Path, monkeypatch: pytest.MonkeyPatch, expect_log: ExpectLog
) -> None:
    """Of the sums of one commit some were put, and their pages are not in the database yet."""
    expect_log("grows until there is room")
    db = pages.opened(paged)
    put, count = SumsFile.put, 0

    def put_some(file: SumsFile, number: int, value: int) -> None:
        nonlocal count
        count += 1
        if count % 2 == 0:
            raise FULL
        put(file, number, value)

    with monkeypatch.context() as patch:
        patch.setattr(SumsFile, "put", put_some)
        pages.fill(db, 1000, 10)
        verify_at_once(db)
    assert count >= 4
    pages.fill(db, 2000, 10)
    verify_at_once(db)
    db.close()
    pages.opened(paged).close()


def test_sums_are_learned_beside_a_reader(paged: Path) -> None:
    """The log cannot be folded in: of its pages it counts, not what the database has of them."""
    forget_sums(str(paged))
    with (
        closing(sqlite3.connect(paged, isolation_level=None)) as reader,
        closing(sqlite3.connect(paged, isolation_level=None)) as other,
    ):
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM extra").fetchone()
        other.execute("UPDATE extra SET data = 'changed'")
        db = pages.opened(paged)
        verify_at_once(db)
        reader.execute("COMMIT")
    pages.sums_of(db).checkpoint()
    verify_at_once(db)
    db.close()
    pages.opened(paged).close()


@pytest.fixture
def power_cut(paged: Path) -> Path:
    """The log was synced with each commit, the sums were not, and are older."""
    before = pages.copied(paged, "copy", "-sums").with_name("db-sums")
    db = pages.opened(paged)
    pages.fill(db, 1000, 10)
    shutil.copy(paged, before.with_name("db"))
    shutil.copy(pages.log_of(paged), before.parent)
    db.close()
    return before.with_name("db")


def test_sums_that_are_older_than_the_log(power_cut: Path) -> None:
    again = pages.opened(power_cut)
    assert pages.rows(again) == 110
    verify_at_once(again)
    again.close()


@pytest.mark.parametrize("place", ["reader", "writer", "pagesums.SumsFile", "pagesums.Log"])
def test_a_start_that_fails_moves_nothing(
    power_cut: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """SQLite would fold the log in when it closes the database, and the next start find damage."""
    connect = connections.connect

    def connect_one(path: str, *, read_only: bool = False) -> SqliteDatabase:
        if read_only == (place == "reader"):
            raise InputOutput("told to")
        return connect(path, read_only=read_only)

    with monkeypatch.context() as patch:
        if place in ("reader", "writer"):
            patch.setattr("metad.storage.statements.connect", connect_one)
        else:
            problem = OSError(errno.EMFILE, "told to")
            patch.setattr(f"metad.storage.{place}", pages.failing(problem))
        with pytest.raises(InputOutput, match="told to"):
            pages.opened(power_cut)
    gc.collect()
    again = pages.opened(power_cut)
    assert pages.rows(again) == 110
    again.close()


def test_a_log_that_is_older_than_the_database(paged: Path) -> None:
    """The power failed after the log was folded in, before its file was cut."""
    db = pages.opened(paged)
    pages.fill(db, 1000, 10)
    log = pages.log_of(paged).read_bytes()
    pages.sums_of(db).checkpoint()
    copy = pages.copied(paged, "copy", "-sums")
    db.close()
    pages.log_of(copy).write_bytes(log)
    again = pages.opened(copy)
    assert pages.rows(again) == 110
    verify_at_once(again)
    again.close()


@pytest.mark.parametrize("has_room", [False, True])
def test_no_room_beside_the_database(
    paged: Path, monkeypatch: pytest.MonkeyPatch, has_room: bool
) -> None:
    """After a clean end SQLite needs a new log and its index: no damage, and passes."""
    monkeypatch.setattr(causes, "has_room", lambda _path: has_room)
    problem = of_sqlite(sqlite3.SQLITE_IOERR_SHMSIZE)
    for place in ("peewee.SqliteDatabase._connect", "metad.storage.pagesums.SumsFile"):
        with monkeypatch.context() as patch:
            patch.setattr(place, pages.failing(problem))
            with pytest.raises(InputOutput if has_room else NoSpace) as caught:
                pages.opened(paged)
        assert ("make room on its disk" in str(caught.value)) == (not has_room)
    pages.opened(paged).close()


@pytest.mark.parametrize("has_room", [False, True])
def test_no_log_can_be_kept(paged: Path, monkeypatch: pytest.MonkeyPatch, has_room: bool) -> None:
    """SQLite stays in its other mode, without a word: on a full disk, and on some networks'."""
    monkeypatch.setitem(connections.PRAGMAS, "journal_mode", "delete")
    monkeypatch.setattr(connections, "has_room", lambda _path: has_room)
    with pytest.raises(
        InputOutput if has_room else NoSpace,
        match="local file system" if has_room else "make room",
    ):
        pages.opened(paged)


def test_what_is_worse_than_no_room_is_not_hidden_by_it(
    paged: Path, monkeypatch: pytest.MonkeyPatch, expect_log: ExpectLog
) -> None:
    """Of the sums of one commit the first has no room, and the next meets a broken disk."""
    expect_log("its checksums cannot be kept")
    db = pages.opened(paged)
    problems = [FULL]

    def fail(*_arguments: object) -> None:
        raise problems.pop() if problems else OSError(errno.EIO, "told to")

    with monkeypatch.context() as patch:
        patch.setattr(SumsFile, "put", fail)
        pages.fill(db, 1000, 1)
    assert db.failure.problem is not None
    db.close()


def test_a_broken_disk_after_a_full_one_is_the_end(paged: Path, expect_log: ExpectLog) -> None:
    """To undo what had no room fails: nobody knows what is on the disk."""
    expect_log("metadata database: told to")
    db = pages.opened(paged)
    problem = of_sqlite(sqlite3.SQLITE_IOERR_WRITE)
    problem.__context__ = of_sqlite(sqlite3.SQLITE_FULL)
    assert isinstance(db.failure.translated(problem), Unavailable)
    assert db.failure.problem is not None
    db.close()


@pytest.mark.parametrize(
    ("problem", "kind"),
    [
        (of_sqlite(sqlite3.SQLITE_FULL), NoSpace),
        (of_sqlite(sqlite3.SQLITE_BUSY), Unavailable),
        (of_sqlite(sqlite3.SQLITE_IOERR_READ), InputOutput),
        (of_sqlite(sqlite3.SQLITE_CANTOPEN), InputOutput),
        (of_sqlite(sqlite3.SQLITE_CORRUPT), UsageError),
        (of_sqlite(sqlite3.SQLITE_NOTADB), UsageError),
        (FULL, NoSpace),
        (OSError(errno.EMFILE, "told to"), InputOutput),
        (OSError(errno.EACCES, "told to"), UsageError),
        (ValueError("told to"), UsageError),
    ],
)
def test_why_it_cannot_be_used(paged: Path, problem: Exception, kind: type[DFSError]) -> None:
    """Only damage needs a backup; also when peewee or a failed ROLLBACK comes after."""
    later = of_sqlite(sqlite3.SQLITE_ERROR)
    later.__context__ = problem
    wrapped = PeeweeException("told to")
    wrapped.__cause__ = problem
    for each in (problem, later, wrapped):
        found = refusal(each, str(paged))
        assert type(found) is kind
        assert ("restore a backup" in str(found)) == (
            kind is UsageError and not isinstance(problem, OSError)
        )


@pytest.mark.parametrize("problem", [NoSpace("told to"), UsageError("told to")])
def test_the_first_change_of_a_start_has_no_room(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    problem: DFSError,
) -> None:
    """As with settings that are new: a line, and status 1, after which systemd tries again."""

    async def serve(_database: object, _config: object) -> None:
        async with trio.open_nursery():
            raise problem

    monkeypatch.setattr("metad.__main__._serve", serve)
    monkeypatch.setattr("metad.__main__.setup_logging", lambda *_arguments: None)
    config = tmp_path / "metad.toml"
    config.write_text(f'url = "sqlite://{tmp_path}/db"')
    with pytest.raises(typer.Exit) as caught:
        run(config)
    assert caught.value.exit_code == (1 if isinstance(problem, NoSpace) else 2)
    assert capsys.readouterr().err == "metad: told to\n"


def test_a_disk_that_is_gone_may_have_room(tmp_path: Path) -> None:
    assert not lacks_room(of_sqlite(sqlite3.SQLITE_CANTOPEN), str(tmp_path / "none" / "db"))


def test_there_is_room(paged: Path) -> None:
    assert not lacks_room(of_sqlite(sqlite3.SQLITE_CANTOPEN), str(paged))
    assert not lacks_room(OSError(errno.EIO, "told to"), str(paged))
