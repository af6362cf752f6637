"""What is mounted inside of a mount, by the tables of all mount namespaces."""

from __future__ import annotations

import os
from pathlib import Path

from dfsmount.adapter.nested import is_mounted_upon

DFS = os.makedev(0, 44)
ROOT = "24 1 259:1 / / rw,relatime shared:1 - ext4 /dev/root rw"
OURS = "60 24 0:44 / /mnt rw,nosuid - fuse.dfs metad:1 rw"
BESIDE = "61 24 0:45 / /mnt2 rw - tmpfs none rw"
INSIDE = "62 60 0:46 / /mnt/d/e rw - tmpfs none rw"


def process(proc: Path, pid: int, namespace: str, *table: str) -> None:
    (proc / str(pid) / "ns").mkdir(parents=True)
    (proc / str(pid) / "ns" / "mnt").symlink_to(namespace)
    (proc / str(pid) / "mountinfo").write_text("\n".join(table) + "\n")


def test_nothing_is_mounted_inside(tmp_path: Path) -> None:
    process(tmp_path, 1, "mnt:[1]", ROOT, OURS, BESIDE)
    (tmp_path / "self").mkdir()
    assert not is_mounted_upon(DFS, tmp_path)


def test_something_is(tmp_path: Path) -> None:
    process(tmp_path, 1, "mnt:[1]", ROOT, OURS, INSIDE)
    assert is_mounted_upon(DFS, tmp_path)
    assert not is_mounted_upon(os.makedev(0, 45), tmp_path)


def test_in_the_namespace_of_a_container(tmp_path: Path) -> None:
    process(tmp_path, 1, "mnt:[1]", ROOT, OURS)
    process(tmp_path, 2, "mnt:[1]", ROOT, OURS)
    process(tmp_path, 3, "mnt:[2]", ROOT, OURS, INSIDE)
    assert is_mounted_upon(DFS, tmp_path)


def test_processes_that_end_meanwhile_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / "7").mkdir()
    process(tmp_path, 8, "mnt:[1]", ROOT, OURS)
    assert not is_mounted_upon(DFS, tmp_path)
