"""A database that is too large to be read through before it is used: damage is the end, too.

What smaller ones are refused for is in test_database.py.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from dfswire.errors import AlreadyRunning, InputOutput, Unavailable, UsageError
from metad.storage import opening, verification
from metad.storage.connections import is_taken, take
from metad.storage.opening import open_database
from metad.storage.sumsfile import forget_sums
from metad.storage.verification import check_large

ADD = "INSERT INTO xattr (inode, name, value) VALUES (1, ?, zeroblob(500))"
ENDLESS = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT max(x) FROM c"
PAGE_BYTES = 4096


@pytest.fixture
def large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of one, as far as metad is concerned."""
    url = f"sqlite://{tmp_path}/db"
    db = open_database(url, inline=True)
    with db.transaction():
        db.change_many(ADD, [(b"%d" % number,) for number in range(200)])
    db.close()
    monkeypatch.setattr(opening, "CHECKED_FIRST_BYTES", PAGE_BYTES)
    return url


def exchange_rows(url: str) -> None:
    """In one page two rows change places: SQLite reads both without complaint."""
    path = Path(url.removeprefix("sqlite://"))
    data = bytearray(path.read_bytes())
    leaf = data.rindex(b"\x0d\x00\x00\x00\x07")  # of a table, with seven rows
    assert leaf % PAGE_BYTES == 0
    first = leaf + 8
    data[first : first + 4] = data[first + 2 : first + 4] + data[first : first + 2]
    path.write_bytes(data)


def flip_a_name(url: str) -> None:
    """One bit, in content."""
    path = Path(url.removeprefix("sqlite://"))
    data = bytearray(path.read_bytes())
    data[data.rindex(b"199" + bytes(100)) + 1] ^= 1
    path.write_bytes(data)


def spoil(url: str, table: str) -> None:
    """The first page of a table."""
    db = open_database(url, inline=True)
    ((root,),) = db.read("SELECT rootpage FROM sqlite_master WHERE name = ?", (table,))
    db.close()
    path = Path(url.removeprefix("sqlite://"))
    data = bytearray(path.read_bytes())
    data[(root - 1) * PAGE_BYTES : root * PAGE_BYTES] = b"\xff" * PAGE_BYTES
    path.write_bytes(data)


async def test_a_whole_one(large: str) -> None:
    db = open_database(large)
    assert not db.is_examined
    await check_large(db)
    assert db.failure.problem is None
    db.close()


def test_who_only_asks_is_in_nobodys_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A check by a person has the lock for a moment; a metad that starts then is not refused."""
    path = str(tmp_path / "db")
    os.close(take(path))
    asking = os.open(path + ".lock", os.O_RDONLY)
    fcntl.flock(asking, fcntl.LOCK_SH)
    monkeypatch.setattr("time.sleep", lambda _seconds: os.close(asking))
    taken = take(path)
    assert is_taken(path)
    monkeypatch.setattr("time.sleep", lambda _seconds: None)
    with pytest.raises(AlreadyRunning, match="another metad uses"):
        take(path)
    os.close(taken)
    assert not is_taken(path)


def test_a_lock_that_cannot_be_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No descriptor stays open."""

    def fail(_descriptor: int, _operation: int) -> None:
        raise OSError(errno.ENOLCK, "told to")

    before = len(list(Path("/proc/self/fd").iterdir()))
    monkeypatch.setattr("fcntl.flock", fail)
    with pytest.raises(InputOutput, match="told to"):
        open_database(f"sqlite://{tmp_path}/db")
    assert len(list(Path("/proc/self/fd").iterdir())) == before


async def test_a_small_one_was_read_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    db = open_database(f"sqlite://{tmp_path}/db")
    monkeypatch.setattr(verification, "CHECK", ENDLESS)
    await check_large(db)
    db.close()


async def test_a_bit_that_has_rotted_is_the_end(
    large: str, expect_log: Callable[[str], None]
) -> None:
    expect_log("db: page .* is damaged")
    flip_a_name(large)
    db = open_database(large)
    assert len(db.read("SELECT name FROM xattr")) == 200, "nobody would know"
    await check_large(db)
    assert db.failure.problem is not None
    db.close()


async def test_damage_that_reading_does_not_meet_is_the_end(
    large: str, expect_log: Callable[[str], None]
) -> None:
    expect_log("is damaged: .*order")
    exchange_rows(large)
    forget_sums(large.removeprefix("sqlite://"))
    db = open_database(large)
    assert len(db.read("SELECT name FROM xattr")) == 200, "nobody would know"
    async with trio.open_nursery() as nursery:
        ended = trio.Event()

        async def watch() -> None:
            with pytest.raises(InputOutput, match="is damaged"):
                await db.failure.watch(60)
            ended.set()

        nursery.start_soon(watch)
        await check_large(db)
        with trio.fail_after(5):
            await ended.wait()
    with pytest.raises(Unavailable):
        db.read("SELECT 1 FROM xattr")
    db.close()


async def test_what_cannot_even_be_read_is_the_end(
    large: str, expect_log: Callable[[str], None]
) -> None:
    expect_log("malformed")
    spoil(large, "chunk")
    forget_sums(large.removeprefix("sqlite://"))
    db = open_database(large)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(verification, "CHECK", "SELECT count(*) FROM chunk WHERE length > 0")
        await check_large(db)
    assert db.failure.problem is not None
    db.close()


async def test_it_does_not_keep_metad_from_ending(
    large: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    db = open_database(large)
    monkeypatch.setattr(verification, "CHECK", ENDLESS)
    with trio.move_on_after(0.1) as scope:
        await check_large(db)
    assert scope.cancelled_caught
    assert db.failure.problem is None
    db.close()


def test_a_disk_that_cannot_be_read_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, expect_log: Callable[[str], None]
) -> None:
    expect_log("syntax error")
    url = f"sqlite://{tmp_path}/db"
    open_database(url).close()
    monkeypatch.setattr(opening, "CHECK", "SELECT 1 FROM nothing")
    with pytest.raises(UsageError, match="restore a backup: the metadata database failed"):
        open_database(url)
