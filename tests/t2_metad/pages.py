"""A database whose pages tests damage, copy and look at, and short words for that."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from metad.storage.database import Database
from metad.storage.opening import open_database
from metad.storage.pagesums import PageSums

PAGE = 4096
FRAMES = 100  # a log so long is folded in; fixture `paged` sees to it


def made(path: Path) -> Path:
    """A database that was closed, of some dozens of pages, with a table of our own."""
    db = opened(path)
    with db.transaction():
        db._writer.execute("CREATE TABLE extra (id INTEGER PRIMARY KEY, data BLOB)")
    fill(db, 0, 100)
    db.close()
    return path


def opened(path: Path) -> Database:
    """As metad does."""
    return open_database(f"sqlite://{path}", inline=True)


def fill(db: Database, first: int, count: int, size: int = 300) -> None:
    """Rows of that table; each in a transaction."""
    for number in range(first, first + count):
        with db.transaction():
            db.change("INSERT INTO extra VALUES (?, ?)", (number, os.urandom(size)))


def rows(db: Database) -> int:
    """How many there are."""
    ((count,),) = db.read("SELECT count(*) FROM extra")
    return int(count)


def sums_of(db: Database) -> PageSums:
    """The sums that it keeps."""
    assert db._sums is not None
    return db._sums


def log_of(path: Path) -> Path:
    """SQLite's log of it."""
    return path.with_name("db-wal")


def copied(path: Path, name: str, *suffixes: str) -> Path:
    """The files as they are now, somewhere else."""
    place = path.parent / name
    place.mkdir()
    for suffix in ("", *suffixes):
        shutil.copy(f"{path}{suffix}", place)
    return place / "db"


def flip(path: Path, bit: int) -> None:
    """One bit of a file."""
    with path.open("r+b") as file:
        file.seek(bit // 8)
        (byte,) = file.read(1)
        file.seek(bit // 8)
        file.write(bytes([byte ^ 1 << bit % 8]))


def failing(problem: Exception) -> Callable[..., None]:
    """A function that raises it."""

    def fail(*_arguments: object, **_options: object) -> None:
        raise problem

    return fail
