"""`python -m metad.tool check`: it says what is wrong with a file, and changes nothing in it."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import msgspec
import pytest
import typer

from dfswire.errors import InputOutput, UsageError
from metad.storage.opening import open_database
from metad.tool import check_command, restore_command
from tests.t2_metad import pages
from tests.t2_metad.test_opening import spoil

ADD = "INSERT INTO xattr (inode, name, value) VALUES (?, ?, x'')"


def backup(tmp_path: Path, name: str = "a backup?#1.db") -> Path:
    """As `dfs metad backup` writes it: one file, without a log beside it."""
    db = open_database(f"sqlite://{tmp_path}/db", inline=True)
    with db.transaction():
        db.change(ADD, (1, b"a"))
    db.close()
    path = tmp_path / name
    with (
        closing(sqlite3.connect(tmp_path / "db")) as source,
        closing(sqlite3.connect(path)) as target,
    ):
        source.backup(target)
        target.execute("PRAGMA journal_mode = delete")
    return path


def checked(path: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, object]]:
    """The exit status, and what was printed."""
    status = 0
    try:
        check_command(path)
    except typer.Exit as ended:
        status = ended.exit_code
    return status, msgspec.json.decode(capsys.readouterr().out, type=dict)


def test_a_backup_stays_as_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = backup(tmp_path)
    path.chmod(0o400)
    before = path.read_bytes()
    assert checked(path, capsys) == (0, {"entry": 1, "epoch": 1, "findings": [], "count": 0})
    assert path.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir() if each.name.startswith("a backup")] == [
        path.name
    ]


def test_sums_that_cannot_be_read(tmp_path: Path) -> None:
    path = backup(tmp_path)
    path.with_name(path.name + "-sums").mkdir()
    with pytest.raises(UsageError, match=r"cannot read .*a backup"):
        check_command(path)


def test_a_disk_without_room_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = backup(tmp_path)
    problem = sqlite3.OperationalError("told to")
    problem.sqlite_errorcode = sqlite3.SQLITE_CANTOPEN
    monkeypatch.setattr("sqlite3.connect", pages.failing(problem))
    with pytest.raises(InputOutput, match="has it room"):
        check_command(path)


def test_the_database_of_a_running_metad(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    db = open_database(f"sqlite://{tmp_path}/db", inline=True)
    with db.transaction():
        db.change(ADD, (1, b"a"))
    assert checked(Path(db.path), capsys) == (
        0,
        {"entry": 1, "epoch": 1, "findings": [], "count": 0},
    )
    with db.transaction():
        db.change(ADD, (77, b"of nobody"))
    status, found = checked(Path(db.path), capsys)
    assert (status, found["entry"]) == (1, 2)
    assert "77" in str(found["findings"])
    db.close()


def test_damage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    backup(tmp_path)
    spoil(f"sqlite://{tmp_path}/db", "dentry")
    status, found = checked(tmp_path / "db", capsys)
    assert status == 1
    assert "SQLite" in str(found["findings"])
    assert "is damaged" in str(found["findings"])
    assert (found["entry"], found["epoch"], found["count"]) == (1, 1, 2)


def test_a_bit_that_has_rotted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """SQLite has nothing against it."""
    path = tmp_path / "db"
    db = open_database(f"sqlite://{path}", inline=True)
    with db.transaction():
        db.change(ADD, (1, b"a name"))
    assert checked(path, capsys)[0] == 0
    db.close()
    path.write_bytes(path.read_bytes().replace(b"a name", b"a nome"))
    status, found = checked(path, capsys)
    assert (status, found["count"]) == (1, 1)
    assert "damaged, restore a backup" in str(found["findings"])


def test_text_that_is_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = backup(tmp_path)
    path.write_bytes(path.read_bytes().replace(b"CREATE TABLE", b"CR\xff\xffTE TABLE"))
    status, found = checked(path, capsys)
    assert (status, found["count"]) == (1, 1)
    assert "codec" in str(found["findings"])


@pytest.mark.parametrize("content", [b"no database at all" * 100, b""])
def test_of_what_is_no_database_of_a_metad_nothing_is_known(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes
) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    status, found = checked(path, capsys)
    assert (status, found["entry"], found["epoch"], found["count"]) == (1, None, None, 1)
    assert "SQLite" in str(found["findings"])


def test_a_moment_that_has_not_been_yet_is_not_restored(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="2999-01-01 has not been yet"):
        restore_command(["h:1"], tmp_path / "db", at="2999-01-01")
