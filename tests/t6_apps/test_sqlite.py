"""SQLite: byte-range locks, journals whose order on disk matters, and a mapped index in WAL mode.

Several processes share one database: on one mount in both modes, on two mounts with a rollback
journal (WAL needs memory that all its users share, and so one host, as sqlite.org says).
"""

from __future__ import annotations

import random
import sqlite3
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from itertools import cycle
from pathlib import Path

import pytest

from tests.t4_mount.conftest import TwoViews
from tests.t4_mount.harness import run
from tests.t6_apps.programs import started, together
from tests.t6_apps.size import sized

WORKERS = 4
TRANSFERS = sized(12, 1000)  # of each worker
ACCOUNTS = 10
KILLS = sized(4, 100)


def open_database(path: Path) -> closing[sqlite3.Connection]:
    """As an application does that shares its database: it waits for the locks of others."""
    return closing(sqlite3.connect(path, timeout=60.0))


def check(path: Path) -> None:
    with open_database(path) as connection:
        assert connection.execute("pragma integrity_check").fetchone() == ("ok",)


@pytest.fixture
def database(here: Path) -> Iterator[sqlite3.Connection]:
    with open_database(here / "test.db") as connection:
        yield connection


# --- one process ---------------------------------------------------------------------------------


@pytest.mark.needs("sqlite3")
def test_a_rollback_journal(here: Path, database: sqlite3.Connection) -> None:
    database.execute("create table t (id integer primary key, text)")
    for transaction in range(10):
        with database:
            rows = [(f"{transaction} {row}" * 20,) for row in range(100)]
            database.executemany("insert into t (text) values (?)", rows)
    database.execute("delete from t where id % 3 = 0")
    database.rollback()
    with database:
        database.execute("update t set text = upper(text) where id % 2 = 0")
    database.execute("vacuum")
    assert database.execute("select count(*) from t").fetchone() == (1000,)
    check(here / "test.db")
    shown = run("sqlite3", "test.db", "pragma integrity_check; select count(*) from t", cwd=here)
    assert shown.split() == ["ok", "1000"]


@pytest.mark.needs("sqlite3")
def test_a_write_ahead_log(here: Path, database: sqlite3.Connection) -> None:
    """WAL keeps its index in a shared mapping: it works between processes of one mount."""
    assert database.execute("pragma journal_mode = wal").fetchone() == ("wal",)
    database.execute("create table t (id integer primary key, text)")
    for transaction in range(5):
        with database:
            rows = [(f"{transaction} {row}" * 20,) for row in range(100)]
            database.executemany("insert into t (text) values (?)", rows)
        shown = run("sqlite3", "test.db", "select count(*) from t", cwd=here)
        assert int(shown) == 100 * (transaction + 1)
    run("sqlite3", "test.db", "insert into t (text) values ('other')", cwd=here)
    assert database.execute("select count(*) from t").fetchone() == (501,)
    check(here / "test.db")


def test_written_by_turns_on_two_mounts(views: TwoViews) -> None:
    for turn in range(6):
        view = (views.a, views.b)[turn % 2]
        with open_database(view / "test.db") as connection:
            with connection:
                connection.execute("create table if not exists t (turn)")
                connection.execute("insert into t values (?)", (turn,))
            assert connection.execute("select count(*) from t").fetchone() == (turn + 1,)
        check(view / "test.db")


# --- several processes ---------------------------------------------------------------------------


def create_bank(path: Path, journal_mode: str) -> None:
    with open_database(path) as connection:
        assert connection.execute(f"pragma journal_mode = {journal_mode}").fetchone() == (
            journal_mode,
        )
        with connection:
            connection.execute("create table account (id integer primary key, balance integer)")
            connection.execute("create table history (worker, number, unique (worker, number))")
            rows = [(account, 1000) for account in range(ACCOUNTS)]
            connection.executemany("insert into account values (?, ?)", rows)


def share_a_bank(directories: Sequence[Path], journal_mode: str) -> None:
    """Transfers by workers on all of these directories (each is the same one); none may be lost."""
    create_bank(directories[0] / "bank.db", journal_mode)
    together(
        "transfers",
        [
            (directory / "bank.db", str(worker), str(TRANSFERS))
            for worker, directory in zip(range(WORKERS), cycle(directories), strict=False)
        ],
        timeout_s=sized(120, 7200),
    )
    for directory in directories:
        check(directory / "bank.db")
        with open_database(directory / "bank.db") as connection:
            total = connection.execute("select sum(balance) from account").fetchone()
            assert total == (1000 * ACCOUNTS,)
            for worker in range(WORKERS):
                done = connection.execute(
                    "select number from history where worker = ? order by number", (worker,)
                ).fetchall()
                assert done == [(number,) for number in range(TRANSFERS)]


@pytest.mark.parametrize("journal_mode", ["truncate", "wal"])
def test_processes_of_one_mount_share_a_database(here: Path, journal_mode: str) -> None:
    share_a_bank([here], journal_mode)


@pytest.mark.parametrize("journal_mode", ["delete", "persist"])
def test_processes_of_two_mounts_share_a_database(views: TwoViews, journal_mode: str) -> None:
    share_a_bank([views.a, views.b], journal_mode)


@pytest.mark.parametrize("journal_mode", ["delete", "wal"])
def test_a_killed_writer_leaves_whole_transactions(
    here: Path, journal_mode: str, rng: random.Random
) -> None:
    """Whoever comes next rolls its hot journal back, or reads its log; its locks are gone."""
    create_bank(here / "bank.db", journal_mode)
    for attempt in range(KILLS):
        command = [sys.executable, "-m", "tests.t6_apps.transfers"]
        with started(*command, here / "bank.db", f"{attempt}", "1000000") as worker:
            assert worker.stdout is not None
            reported = [int(worker.stdout.readline()) for _ in range(rng.randrange(1, 15))]
            worker.kill()
            reported += map(int, worker.stdout.read().split())
        check(here / "bank.db")
        with open_database(here / "bank.db") as connection:
            total = connection.execute("select sum(balance) from account").fetchone()
            assert total == (1000 * ACCOUNTS,)
            query = "select count(*) from history where worker = ?"
            (count,) = connection.execute(query, (attempt,)).fetchone()
            assert len(reported) <= count <= len(reported) + 1
