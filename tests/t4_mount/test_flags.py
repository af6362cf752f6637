"""Immutable and append-only files and directories: every call is refused as on ext4, or is not.

With two exceptions: unlink of a directory and rmdir of a file in such a directory are refused by
the kernel with EISDIR and ENOTDIR before we are asked (EPERM on ext4); and a descriptor that was
opened for writing before `chattr +a` can write at the end only, where ext4 lets it write anywhere.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import shutil
import struct
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from dfsmount.lowlevel.operations import GETFLAGS, SETFLAGS
from dfswire.operations import FS_APPEND, FS_IMMUTABLE
from tests.t4_mount.compare import Sides

RENAME_EXCHANGE = 2
AT_FDCWD = -100
KEEP_SIZE, PUNCH_HOLE, ZERO_RANGE = 1, 2, 16
LIBC = ctypes.CDLL(None, use_errno=True)

FLAGS = [pytest.param(FS_IMMUTABLE, id="+i"), pytest.param(FS_APPEND, id="+a")]

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


def checked(result: int) -> int:
    if result < 0:
        raise OSError(ctypes.get_errno(), "libc")
    return result


def exchange(old: Path, new: Path) -> None:
    checked(LIBC.renameat2(AT_FDCWD, bytes(old), AT_FDCWD, bytes(new), RENAME_EXCHANGE))


def fallocate(path: Path, mode: int) -> None:
    """Through a descriptor for appending, so that it is this call that is refused."""
    with opened(path, os.O_RDWR | os.O_APPEND) as descriptor:
        size = ctypes.c_int64(5000)
        checked(LIBC.fallocate(descriptor, mode, ctypes.c_int64(0), size))


class opened:
    """A descriptor, closed at the end."""

    def __init__(self, path: Path, flags: int) -> None:
        self.descriptor = os.open(path, flags, 0o600)

    def __enter__(self) -> int:
        return self.descriptor

    def __exit__(self, *problem: object) -> None:
        os.close(self.descriptor)


def opening(flags: int) -> Callable[[Path], None]:
    def action(side: Path) -> None:
        with opened(side / "f", flags):
            pass

    return action


def append(side: Path) -> bytes:
    with opened(side / "f", os.O_RDWR | os.O_APPEND) as descriptor:
        os.write(descriptor, b"more")
    return (side / "f").read_bytes()


def copy_into(side: Path) -> None:
    """The descriptor is older than the flag."""
    with opened(side / "other", os.O_RDONLY) as source:
        os.copy_file_range(source, OLD[side], 3)


OLD: dict[Path, int] = {}  # descriptors of f that were opened for writing before the flag was set

ON_FILE: dict[str, Callable[[Path], Any]] = {
    "open to write": opening(os.O_WRONLY),
    "open to append": opening(os.O_WRONLY | os.O_APPEND),
    "open to append, truncated": opening(os.O_WRONLY | os.O_APPEND | os.O_TRUNC),
    "open to read": opening(os.O_RDONLY),
    "open or create": opening(os.O_RDONLY | os.O_CREAT),
    "append": append,
    "write by old descriptor": lambda side: os.pwrite(OLD[side], b"x", 1),
    "truncate": lambda side: os.truncate(side / "f", 1),
    "extend": lambda side: os.truncate(side / "f", 100),
    "ftruncate by old descriptor": lambda side: os.ftruncate(OLD[side], 1),
    "chmod": lambda side: os.chmod(side / "f", 0o600),
    "chown": lambda side: os.chown(side / "f", 5, 5),
    "set times": lambda side: os.utime(side / "f", (1, 1)),
    "link": lambda side: os.link(side / "f", side / "g"),
    "unlink": lambda side: os.unlink(side / "f"),
    "rename": lambda side: os.rename(side / "f", side / "g"),
    "replace": lambda side: os.rename(side / "other", side / "f"),
    "exchange": lambda side: exchange(side / "other", side / "f"),
    "setxattr": lambda side: os.setxattr(side / "f", "user.b", b"2"),
    "removexattr": lambda side: os.removexattr(side / "f", "user.a"),
    "getxattr": lambda side: os.getxattr(side / "f", "user.a"),
    "preallocate": lambda side: fallocate(side / "f", 0),
    "preallocate, keeping the size": lambda side: fallocate(side / "f", KEEP_SIZE),
    "punch": lambda side: fallocate(side / "f", PUNCH_HOLE | KEEP_SIZE),
    "zero": lambda side: fallocate(side / "f", ZERO_RANGE),
    "copy from": lambda side: shutil.copyfile(side / "f", side / "g").name,
    "copy to, by old descriptor": copy_into,
    "read": lambda side: (side / "f").read_bytes(),
}

STRICTER = [("write by old descriptor", FS_APPEND), ("copy to, by old descriptor", FS_APPEND)]


def create(path: Path, flags: int = 0) -> None:
    with opened(path, os.O_CREAT | os.O_WRONLY | flags):
        pass


ON_DIRECTORY: dict[str, Callable[[Path], Any]] = {
    "create": lambda side: create(side / "d/new"),
    "create what exists": lambda side: create(side / "d/inner"),
    "create what exists, exclusively": lambda side: create(side / "d/inner", os.O_EXCL),
    "mkdir": lambda side: os.mkdir(side / "d/new"),
    "mkdir of what exists": lambda side: os.mkdir(side / "d/sub"),
    "symlink": lambda side: os.symlink("x", side / "d/new"),
    "mknod": lambda side: os.mkfifo(side / "d/new"),
    "tmpfile": lambda side: create_unnamed(side / "d"),
    "link in": lambda side: os.link(side / "f", side / "d/new"),
    "link in, exists": lambda side: os.link(side / "f", side / "d/inner"),
    "unlink": lambda side: os.unlink(side / "d/inner"),
    "unlink what is not there": lambda side: os.unlink(side / "d/missing"),
    "rmdir": lambda side: os.rmdir(side / "d/sub"),
    "rename in": lambda side: os.rename(side / "f", side / "d/new"),
    "rename in, replacing": lambda side: os.rename(side / "f", side / "d/inner"),
    "rename out": lambda side: os.rename(side / "d/inner", side / "new"),
    "rename within": lambda side: os.rename(side / "d/inner", side / "d/new"),
    "exchange": lambda side: exchange(side / "d/inner", side / "f"),
    "rename it": lambda side: os.rename(side / "d", side / "e"),
    "chmod": lambda side: os.chmod(side / "d", 0o700),
    "change a file in it": lambda side: (side / "d/inner").write_bytes(b"new"),
    "chmod of a file in it": lambda side: os.chmod(side / "d/inner", 0o600),
    "list": lambda side: sorted(os.listdir(side / "d")),
}


def create_unnamed(directory: Path) -> None:
    with opened(directory, os.O_TMPFILE | os.O_RDWR):
        pass


@contextmanager
def trees(sides: Sides, name: str) -> Iterator[Sides]:
    """A tree on each side; its flags go at the end."""
    both = Sides(sides.mine / name, sides.plain / name)
    for side in (both.mine, both.plain):
        (side / "d/sub").mkdir(parents=True)
        (side / "d/inner").write_bytes(b"inner")
        (side / "f").write_bytes(b"bytes of f")
        os.setxattr(side / "f", "user.a", b"1")
        (side / "other").write_bytes(b"other")
        OLD[side] = os.open(side / "f", os.O_RDWR)
    try:
        yield both
    finally:
        for side in (both.mine, both.plain):
            os.close(OLD.pop(side))
            clear_flags(side)


def set_flags(path: Path, flags: int) -> None:
    """These two flags; ext4 has others, which have to stay."""
    with opened(path, os.O_RDONLY | os.O_NONBLOCK) as descriptor:
        (before,) = struct.unpack("L", fcntl.ioctl(descriptor, GETFLAGS, bytes(8)))
        wanted = (before & ~(FS_IMMUTABLE | FS_APPEND)) | flags
        fcntl.ioctl(descriptor, SETFLAGS, struct.pack("L", wanted))


def clear_flags(side: Path) -> None:
    """Of whatever is there of f, d and the names that they may have got."""
    for name in ("f", "d", "g", "e", "other"):
        if (side / name).exists():
            set_flags(side / name, 0)


def compare(sides: Sides, on: str, flag: int, actions: Mapping[str, Callable[[Path], Any]]) -> None:
    for what, action in actions.items():
        with trees(sides, what) as both:
            for side in (both.mine, both.plain):
                set_flags(side / on, flag)
            both.same(action, what)


@pytest.mark.parametrize("flag", FLAGS)
def test_on_a_file(sides: Sides, flag: int) -> None:
    compare(sides, "f", flag, {k: v for k, v in ON_FILE.items() if (k, flag) not in STRICTER})


@pytest.mark.parametrize("flag", FLAGS)
def test_on_a_directory(sides: Sides, flag: int) -> None:
    compare(sides, "d", flag, ON_DIRECTORY)


def test_old_descriptors_of_an_append_only_file(sides: Sides) -> None:
    with trees(sides, "stricter") as both:
        set_flags(both.mine / "f", FS_APPEND)
        for what, _flag in STRICTER:
            with pytest.raises(PermissionError):
                ON_FILE[what](both.mine)
        assert os.pwrite(OLD[both.mine], b"end", 10) == 3
        os.fsync(OLD[both.mine])
        assert (both.mine / "f").read_bytes() == b"bytes of fend"
