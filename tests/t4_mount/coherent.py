"""The rows of the coherence promise: a change on mount A, and what mount B looks at.

Each function of NAMES here, and of coherent_attributes.py and coherent_data.py, prepares one row.
test_coherence.py has B look (so that its kernel and its client keep what they saw), has A change
it, and looks again.
"""

from __future__ import annotations

import contextlib
import mmap
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.syscalls import RENAME_EXCHANGE, rename_with_flags


@dataclass
class Scene:
    """One directory as mounts A and B see it, and what stays open until the row is over."""

    a: Path
    b: Path
    cleanup: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    def opened(self, path: Path, flags: int = os.O_RDONLY) -> int:
        descriptor = os.open(path, flags, 0o644)
        self.cleanup.callback(os.close, descriptor)
        return descriptor

    def mapped(self, path: Path, flags: int = os.O_RDONLY) -> mmap.mmap:
        access = mmap.ACCESS_WRITE if flags == os.O_RDWR else mmap.ACCESS_READ
        return self.cleanup.enter_context(mmap.mmap(self.opened(path, flags), 0, access=access))


@dataclass(frozen=True)
class Row:
    """`look` on mount B must return `expected` once `change` on mount A has returned."""

    look: Callable[[], Any]
    change: Callable[[], object]
    expected: Any


# Names


def create(at: Scene) -> Row:
    return Row((at.b / "f").exists, (at.a / "f").touch, True)


def mkdir(at: Scene) -> Row:
    return Row((at.b / "d").is_dir, (at.a / "d").mkdir, True)


def symlink(at: Scene) -> Row:
    return Row((at.b / "l").is_symlink, lambda: (at.a / "l").symlink_to("f"), True)


def mkfifo(at: Scene) -> Row:
    return Row((at.b / "p").is_fifo, lambda: os.mkfifo(at.a / "p"), True)


def link(at: Scene) -> Row:
    (at.a / "f").touch()
    return Row((at.b / "g").exists, lambda: os.link(at.a / "f", at.a / "g"), True)


def unlink(at: Scene) -> Row:
    (at.a / "f").touch()
    return Row((at.b / "f").exists, (at.a / "f").unlink, False)


def rmdir(at: Scene) -> Row:
    (at.a / "d").mkdir()
    return Row((at.b / "d").exists, (at.a / "d").rmdir, False)


def rename_away(at: Scene) -> Row:
    (at.a / "f").touch()
    return Row((at.b / "f").exists, lambda: os.rename(at.a / "f", at.a / "g"), False)


def rename_to(at: Scene) -> Row:
    (at.a / "f").touch()
    return Row((at.b / "g").exists, lambda: os.rename(at.a / "f", at.a / "g"), True)


def rename_over(at: Scene) -> Row:
    (at.a / "f").touch()
    (at.a / "new").touch()
    return Row(
        lambda: _inode(at.b / "f"),
        lambda: os.rename(at.a / "new", at.a / "f"),
        _inode(at.a / "new"),
    )


def rename_between_directories(at: Scene) -> Row:
    for name in ("one", "two"):
        (at.a / name).mkdir()
    (at.a / "one" / "f").touch()
    return Row(
        lambda: [(at.b / name / "f").exists() for name in ("one", "two")],
        lambda: os.rename(at.a / "one" / "f", at.a / "two" / "f"),
        [False, True],
    )


def rename_of_a_directory(at: Scene) -> Row:
    (at.a / "one" / "deep").mkdir(parents=True)
    (at.a / "one" / "deep" / "f").touch()
    return Row(
        lambda: [(at.b / name / "deep" / "f").exists() for name in ("one", "two")],
        lambda: os.rename(at.a / "one", at.a / "two"),
        [False, True],
    )


def exchange(at: Scene) -> Row:
    for name in "fg":
        (at.a / name).touch()
    return Row(
        lambda: [_inode(at.b / name) for name in "fg"],
        lambda: rename_with_flags(at.a / "f", at.a / "g", RENAME_EXCHANGE),
        [_inode(at.a / name) for name in "gf"],
    )


def symlink_replaced(at: Scene) -> Row:
    (at.a / "l").symlink_to("old")
    (at.a / "l2").symlink_to("new")
    return Row(lambda: os.readlink(at.b / "l"), lambda: os.rename(at.a / "l2", at.a / "l"), "new")


def listing_grows(at: Scene) -> Row:
    (at.a / "f").touch()
    return Row(lambda: sorted(os.listdir(at.b)), (at.a / "g").touch, ["f", "g"])


def listing_shrinks(at: Scene) -> Row:
    (at.a / "f").touch()
    return Row(lambda: os.listdir(at.b), (at.a / "f").unlink, [])


def name_in_a_listed_directory(at: Scene) -> Row:
    """Whoever has listed all of a directory knows what is not in it without asking."""
    os.listdir(at.b)
    asked = iter("012")
    return Row(lambda: (at.b / next(asked)).exists(), (at.a / "2").touch, True)


def _inode(path: Path) -> int:
    return path.lstat().st_ino


NAMES = (
    create,
    mkdir,
    symlink,
    mkfifo,
    link,
    unlink,
    rmdir,
    rename_away,
    rename_to,
    rename_over,
    rename_between_directories,
    rename_of_a_directory,
    exchange,
    symlink_replaced,
    listing_grows,
    listing_shrinks,
    name_in_a_listed_directory,
)
