"""Applications that know nothing of dfs work on it unmodified."""

from __future__ import annotations

import os
import random
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.t4_mount.conftest import TwoViews
from tests.t4_mount.harness import run
from tests.t4_mount.twin import assert_same_tree

GIT = {
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_AUTHOR_NAME": "A",
    "GIT_AUTHOR_EMAIL": "a@example.org",
    "GIT_COMMITTER_NAME": "A",
    "GIT_COMMITTER_EMAIL": "a@example.org",
}


@pytest.fixture
def source(tmp_path: Path, rng: random.Random) -> Path:
    """A local directory of 90 files of all kinds."""
    root = tmp_path / "source"
    for number in range(90):
        path = root / f"d{number % 10}" / f"e{number % 3}" / f"f{number}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(rng.randbytes(rng.choice([0, 10, 3000, 9000])))
        path.chmod(rng.choice([0o644, 0o600, 0o755]))
    (root / "large").write_bytes(rng.randbytes(6 << 20))
    (root / "link").symlink_to("d0/e0")
    (root / "dangling").symlink_to("nowhere")
    os.link(root / "large", root / "hard")
    os.setxattr(root / "large", "user.x", b"value")
    return root


def test_cp_a_copies_everything(here: Path, source: Path) -> None:
    run("cp", "-a", source, here / "copy", cwd=here)
    assert_same_tree(here / "copy", source)
    assert _times(here / "copy") == _times(source)
    run("cp", "-a", here / "copy" / "d1", here / "second", cwd=here)
    assert_same_tree(here / "second", source / "d1")
    assert _times(here / "second") == _times(source / "d1")


def test_tar_there_and_back(here: Path, source: Path, tmp_path: Path) -> None:
    run("tar", "cf", tmp_path / "all.tar", "--xattrs", "-C", source, ".", cwd=here)
    run("tar", "xf", tmp_path / "all.tar", "--xattrs", cwd=here)
    assert_same_tree(here, source)
    run("diff", "-r", "--no-dereference", source, here, cwd=tmp_path)
    run("tar", "cf", "again.tar", *os.listdir(source), cwd=here)
    (tmp_path / "back").mkdir()
    run("tar", "xf", here / "again.tar", "-C", tmp_path / "back", cwd=here)
    run("diff", "-r", "--no-dereference", source, tmp_path / "back", cwd=here)


def test_rsync_finds_nothing_to_do_the_second_time(here: Path, source: Path) -> None:
    run("rsync", "-aHX", f"{source}/", "copy", cwd=here)
    assert_same_tree(here / "copy", source)
    again = run("rsync", "-aHX", "--itemize-changes", "--stats", f"{source}/", "copy", cwd=here)
    assert "Number of regular files transferred: 0" in again
    assert not [line for line in again.splitlines() if line.startswith((">f", "cd", "cL", ".d"))]
    run("rsync", "-aHX", "--delete", f"{source}/d0/", "copy/", cwd=here)
    assert_same_tree(here / "copy", source / "d0")


def test_git(views: TwoViews) -> None:
    def git(*words: str | Path, cwd: Path = views.a) -> str:
        return run("git", *words, cwd=cwd, env=GIT)

    git("init", "-q", "-b", "main")
    for commit in range(3):
        for number in range(20):
            (views.a / f"f{number}").write_text(f"{commit} {number}\n" * 50)
        git("add", ".")
        git("commit", "-q", "-m", f"commit {commit}")
    assert git("status", "--porcelain") == ""
    (views.a / "f1").write_text("changed\n")
    assert git("status", "--porcelain").split() == ["M", "f1"]
    git("stash", "-q")
    git("switch", "-q", "-c", "branch", "HEAD~1")
    git("gc", "-q", "--aggressive", "--prune=now")
    git("fsck", "--full", "--strict")
    git("clone", "-q", views.a, "clone")
    assert git("log", "--oneline", cwd=views.a / "clone").count("\n") == 2
    # On the other mount it is the same repository.
    other = {**GIT, "GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "core.checkStat"}
    other["GIT_CONFIG_VALUE_0"] = "minimal"  # inode and device differ between two mounts
    run("git", "fsck", "--full", cwd=views.b, env=other)
    assert run("git", "status", "--porcelain", cwd=views.b, env=other) == "?? clone/\n"


def test_python_venv(here: Path) -> None:
    run(sys.executable, "-m", "venv", "--without-pip", "env", cwd=here)
    (here / "env" / "module.py").write_text("value = 42\n")
    shown = run("env/bin/python", "-c", "import module, sys; print(module.value, sys.prefix)",
                cwd=here, env={"PYTHONPATH": "env", "PYTHONDONTWRITEBYTECODE": ""})  # fmt: skip
    assert shown.split() == ["42", str(here / "env")]
    assert list((here / "env" / "__pycache__").glob("module.*.pyc"))


@pytest.fixture
def database(here: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(here / "test.db")) as connection:
        yield connection


def test_sqlite_with_a_rollback_journal(here: Path, database: sqlite3.Connection) -> None:
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
    assert database.execute("pragma integrity_check").fetchone() == ("ok",)
    shown = run("sqlite3", "test.db", "pragma integrity_check; select count(*) from t", cwd=here)
    assert shown.split() == ["ok", "1000"]


def test_sqlite_with_a_write_ahead_log(here: Path, database: sqlite3.Connection) -> None:
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
    assert database.execute("pragma integrity_check").fetchone() == ("ok",)


def test_a_database_written_on_one_mount_and_read_on_the_other(views: TwoViews) -> None:
    """One after the other: there are no locks between mounts."""
    for turn in range(6):
        view = (views.a, views.b)[turn % 2]
        with closing(sqlite3.connect(view / "test.db")) as connection:
            with connection:
                connection.execute("create table if not exists t (turn)")
                connection.execute("insert into t values (?)", (turn,))
            assert connection.execute("select count(*) from t").fetchone() == (turn + 1,)
            assert connection.execute("pragma integrity_check").fetchone() == ("ok",)


def test_the_small_tools(here: Path, source: Path) -> None:
    run("cp", "-r", source, "tree", cwd=here)
    assert run("find", "tree", "-type", "f", cwd=here).count("\n") == 92
    assert run("find", "tree", "-name", "f1*", "-newermt", "2001-01-01", cwd=here).count("\n") > 8
    assert int(run("du", "-sb", "--apparent-size", "tree", cwd=here).split()[0]) > 6 << 20
    run("mv", "tree", "moved", cwd=here)
    run("mv", "moved/large", "moved/d0/large", cwd=here)
    run("ln", "moved/d0/large", "hard", cwd=here)
    run("ln", "-s", "moved/d0", "soft", cwd=here)
    run("cmp", "hard", "soft/large", cwd=here)
    run("dd", "if=/dev/zero", "of=zeros", "bs=1M", "count=8", "conv=fsync", "status=none", cwd=here)
    run("truncate", "-s", "100M", "sparse", cwd=here)
    assert int(run("du", "-k", "sparse", cwd=here).split()[0]) == 0
    run("sed", "-i", "s/^/x/", "moved/link/f0", cwd=here)
    run("sh", "-c", "for i in 1 2 3; do echo $i >>log; done; sort -r log -o log", cwd=here)
    assert (here / "log").read_text() == "3\n2\n1\n"
    run("install", "-D", "-m", "0750", "log", "deep/er/log", cwd=here)
    run("rm", "-r", "moved", cwd=here)
    assert (
        run("sha256sum", "hard", source / "large", cwd=here).split()[::2]
        == [run("sha256sum", source / "hard", cwd=here).split()[0]] * 2
    )


def _times(root: Path) -> dict[str, int]:
    return {
        str(path.relative_to(root)): path.lstat().st_mtime_ns for path in sorted(root.rglob("*"))
    }
