"""git: many small files, hard links, renames over each other, mmap, and lock files."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.t4_mount.conftest import TwoViews
from tests.t4_mount.harness import run
from tests.t6_apps.programs import together
from tests.t6_apps.size import sized

pytestmark = pytest.mark.needs("git")

FILES, COMMITS = sized(20, 500), sized(3, 30)
TURNS = sized(4, 100)

GIT = {
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_AUTHOR_NAME": "A",
    "GIT_AUTHOR_EMAIL": "a@example.org",
    "GIT_COMMITTER_NAME": "A",
    "GIT_COMMITTER_EMAIL": "a@example.org",
}


def git(cwd: Path, *words: str | Path) -> str:
    return run("git", *words, cwd=cwd, env=GIT, timeout_s=sized(60, 3600))


def commit(tree: Path, message: str, files: int = FILES) -> None:
    """Change every file and commit."""
    for number in range(files):
        (tree / f"f{number}").write_text(f"{message} {number}\n" * 50)
    git(tree, "add", ".")
    git(tree, "commit", "-q", "-m", message)


def test_a_repository_lives(here: Path) -> None:
    """Commits, branches, stashes, gc, clones: one client."""
    git(here, "init", "-q", "-b", "main")
    for number in range(COMMITS):
        commit(here, f"commit {number}")
    assert git(here, "status", "--porcelain") == ""
    (here / "f1").write_text("changed\n")
    assert git(here, "status", "--porcelain").split() == ["M", "f1"]
    git(here, "stash", "-q")
    git(here, "switch", "-q", "-c", "branch", f"HEAD~{COMMITS - 2}")
    git(here, "gc", "-q", "--aggressive", "--prune=now")
    git(here, "fsck", "--full", "--strict")
    git(here, "clone", "-q", here, "clone")
    assert git(here / "clone", "log", "--oneline").count("\n") == 2
    linked = list((here / "clone" / ".git" / "objects" / "pack").glob("*.pack"))
    assert [path.stat().st_nlink for path in linked] == [2]  # a local clone shares the packs
    git(here, "worktree", "add", "-q", "tree", "main")
    commit(here / "tree", "in the worktree")
    assert git(here, "log", "--oneline", "main").count("\n") == COMMITS + 1
    git(here, "worktree", "remove", "tree")
    git(here, "fsck", "--full", "--strict")


def test_two_clients_take_turns_in_one_working_tree(views: TwoViews) -> None:
    """Each sees a clean tree: the index holds for both, inode numbers and times are the same."""
    git(views.a, "init", "-q", "-b", "main")
    for turn in range(TURNS):
        tree, other = (views.a, views.b)[:: 1 if turn % 2 else -1]
        commit(tree, f"turn {turn}")
        assert git(other, "status", "--porcelain") == ""
        assert git(other, "diff-files") == ""  # not even the times and inode numbers differ
        assert git(other, "log", "-1", "--format=%s").strip() == f"turn {turn}"
        if turn % 3 == 2:
            git(other, "gc", "-q", "--prune=now")
    git(views.a, "fsck", "--full", "--strict")
    git(views.b, "fsck", "--full", "--strict")
    assert git(views.b, "log", "--oneline").count("\n") == TURNS


def test_two_clients_push_into_one_repository(views: TwoViews, tmp_path: Path) -> None:
    """At the same time.  Whoever comes late is refused, rebases, and pushes again."""
    git(views.a, "init", "-q", "--bare", "-b", "main", "bare")
    git(tmp_path, "clone", "-q", views.a / "bare", "first")
    commit(tmp_path / "first", "start", files=1)
    git(tmp_path / "first", "push", "-q", "origin", "main")
    commits = sized(3, 60)
    together(
        "pushing",
        [
            (views.a / "bare", tmp_path / "a", "a", str(commits)),
            (views.b / "bare", tmp_path / "b", "b", str(commits)),
        ],
        timeout_s=sized(90, 3600),
    )
    subjects = git(views.a / "bare", "log", "--format=%s").split("\n")[:-2]
    for who in "ab":
        mine = [line for line in reversed(subjects) if line.startswith(who)]
        assert mine == [f"{who} {number}" for number in range(commits)]
    for view in (views.a, views.b):
        git(view / "bare", "fsck", "--full", "--strict")
    git(views.b / "bare", "gc", "-q", "--prune=now")
    assert git(views.a / "bare", "log", "--oneline").count("\n") == 2 * commits + 1
