"""The tools that everybody uses without thinking, and how editors and scripts write."""

from __future__ import annotations

import os
import random
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.t4_mount.conftest import TwoViews
from tests.t4_mount.harness import run
from tests.t6_apps.programs import names_in
from tests.t6_apps.size import sized

SORTED_LINES = sized(200_000, 50_000_000)


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


def test_du_and_find_agree_with_a_local_copy(here: Path, source: Path) -> None:
    """Sizes, link counts, and files of one inode counted once."""
    run("cp", "-a", source, "tree", cwd=here)
    for words in (
        ["find", ".", "-type", "f", "-printf", "%p %s %m %n %u %g %T@\n"],
        ["find", ".", "-type", "d", "-printf", "%p %m %n\n"],
        ["find", ".", "-links", "+1", "-type", "f"],
        ["find", ".", "-empty", "-type", "f"],
        ["find", ".", "-size", "+5k"],
    ):
        found = [sorted(run(*words, cwd=root).splitlines()) for root in (here / "tree", source)]
        assert found[0] == found[1], words
    sizes = [
        run("find", ".", "-type", "f", "-links", "1", "-printf", "%s\n", cwd=root).split()
        for root in (here / "tree", source)
    ]
    assert sum(map(int, sizes[0])) == sum(map(int, sizes[1]))
    once = 6 << 20  # `large` and `hard` are one file
    used = int(run("du", "-s", "--block-size=1", "tree", cwd=here).split()[0])
    assert once < used < once * 3 // 2


def test_sort_with_temporary_files(here: Path, rng: random.Random) -> None:
    with (here / "words").open("w") as file:
        for _ in range(SORTED_LINES):
            file.write(f"{rng.getrandbits(60):016x}\n")
    (here / "tmp").mkdir()
    words = ["sort", "-S", "1M", "-T", "tmp", "--parallel=2", "words", "-o", "words"]
    run(*words, cwd=here, timeout_s=sized(60, 3600))
    run("sort", "-c", "words", cwd=here, timeout_s=sized(60, 3600))
    assert int(run("wc", "-l", "words", cwd=here).split()[0]) == SORTED_LINES
    assert names_in(here / "tmp") == []


def test_temporary_files(here: Path) -> None:
    """mktemp(1); Python's anonymous files (O_TMPFILE, or an unlinked name) and named ones."""
    names = run("sh", "-ec", "for i in 1 2 3; do mktemp ./t.XXXXXX; done; mktemp -d ./d.XXXXXX",
                cwd=here).split()  # fmt: skip
    assert sorted(names) == sorted(f"./{name}" for name in names_in(here))
    assert [(here / name).stat().st_mode & 0o777 for name in names] == [0o600] * 3 + [0o700]
    with tempfile.TemporaryFile(dir=here) as anonymous:
        anonymous.write(b"data" * 50_000)
        anonymous.seek(0)
        assert anonymous.read() == b"data" * 50_000
        assert os.fstat(anonymous.fileno()).st_nlink == 0
        assert len(names_in(here)) == len(names)
    with tempfile.NamedTemporaryFile(dir=here) as named:
        assert Path(named.name).exists()
    assert len(names_in(here)) == len(names)


def save_beside(path: Path, text: str) -> None:
    """As vim (backupcopy=no), emacs and most others: a new file, synced, renamed over the old."""
    temporary = path.with_name(f".{path.name}.swp")
    backup = path.with_name(f"{path.name}~")
    with temporary.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    if path.exists():
        temporary.chmod(path.stat().st_mode)
        path.rename(backup)
    temporary.rename(path)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    os.fsync(directory)
    os.close(directory)
    backup.unlink(missing_ok=True)


def save_in_place(path: Path, text: str) -> None:
    """As vim (backupcopy=yes) and nano: a copy beside it, then the same inode is truncated."""
    backup = path.with_name(f"{path.name}~")
    if path.exists():
        run("cp", "-p", path, backup, cwd=path.parent)
    with path.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    backup.unlink(missing_ok=True)


@pytest.mark.parametrize("save", [save_beside, save_in_place])
def test_an_editor_saves_and_the_other_mount_reads(
    views: TwoViews, save: Callable[[Path, str], None]
) -> None:
    for number in range(20):
        view, other = (views.a, views.b)[:: 1 if number % 2 else -1]
        text = f"version {number}\n" * (number * 100 + 1)
        save(view / "text", text)
        assert (other / "text").read_text() == text
        assert names_in(other) == ["text"]
        if number == 0:
            (view / "text").chmod(0o640)
        assert (other / "text").stat().st_mode & 0o777 == 0o640
