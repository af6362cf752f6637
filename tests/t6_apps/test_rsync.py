"""rsync: times to the nanosecond, all attributes, and the three ways in which it writes a file."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from tests.stateful.twin import assert_same_tree
from tests.t4_mount.harness import run
from tests.t6_apps.size import sized

pytestmark = pytest.mark.needs("rsync")

SIZE = sized(12 << 20, 2 << 30)


def transferred(here: Path, *words: str | Path) -> int:
    """Run rsync; the number of files whose bytes it has moved."""
    shown = run("rsync", "--stats", *words, cwd=here, timeout_s=sized(60, 3600))
    lines = [line for line in shown.splitlines() if "regular files transferred" in line]
    return int(lines[0].rpartition(":")[2].replace(",", ""))


def test_it_finds_nothing_to_do_the_second_time(here: Path, source: Path) -> None:
    run("rsync", "-aHAX", f"{source}/", "copy", cwd=here)
    assert_same_tree(here / "copy", source)
    again = run("rsync", "-aHAX", "--itemize-changes", f"{source}/", "copy", cwd=here)
    assert again == ""
    back = run("rsync", "-aHAX", "--itemize-changes", f"{here}/copy/", source, cwd=here)
    assert back == ""
    checked = run("rsync", "-acHAX", "--itemize-changes", f"{source}/", "copy", cwd=here)
    assert checked == ""
    run("rsync", "-aHX", "--delete", f"{source}/d0/", "copy/", cwd=here)
    assert_same_tree(here / "copy", source / "d0")


def test_backups_by_hard_links(here: Path, source: Path) -> None:
    """--link-dest: what has not changed is a second name, as rsnapshot and others do it."""
    run("rsync", "-a", f"{source}/", "monday", cwd=here)
    (source / "d1" / "e1" / "f1").write_text("changed")
    assert transferred(here, "-a", "--link-dest=../monday", f"{source}/", "tuesday") == 1
    assert_same_tree(here / "tuesday" / "d0", here / "monday" / "d0")
    first, second = here / "monday", here / "tuesday"
    for name, same in (("large", True), ("d1/e1/f1", False), ("d2/e2/f2", True)):
        assert (first / name).samefile(second / name) == same
    run("rm", "-r", "monday", cwd=here)
    run("diff", "-r", "--no-dereference", source, "tuesday", cwd=here)


@pytest.mark.parametrize("way", ["", "--inplace", "--append-verify", "--sparse", "--partial"])
def test_a_large_file_in_each_way(here: Path, tmp_path: Path, rng: random.Random, way: str) -> None:
    """Copied, then only what has changed is sent (the protocol of two hosts, --no-whole-file)."""
    local = tmp_path / "large"
    with local.open("wb") as file:
        for _ in range(SIZE >> 20):
            file.write(rng.randbytes(1 << 20))
        os.truncate(file.fileno(), SIZE + (1 << 20))  # a hole at its end, for --sparse
    words = ["-a", "--no-whole-file", *way.split(), str(local), "large"]
    assert transferred(here, *words) == 1
    assert transferred(here, *words) == 0
    before = (here / "large").stat()
    with local.open("r+b") as file:
        if way != "--append-verify":
            for _ in range(5):
                file.seek(rng.randrange(SIZE))
                file.write(rng.randbytes(1000))
        file.seek(0, os.SEEK_END)
        file.write(rng.randbytes(100_000))
    assert transferred(here, *words) == 1
    run("cmp", local, here / "large", cwd=here, timeout_s=sized(60, 3600))
    after = (here / "large").stat()
    assert after.st_mtime_ns == local.stat().st_mtime_ns
    in_place = way in ("--inplace", "--append-verify")
    assert (after.st_ino == before.st_ino) == in_place
    assert transferred(here, *words) == 0
