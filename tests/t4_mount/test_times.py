"""Which times which system call moves, and utimensat(2) with NOW and OMIT: one mount and ext4.

atime is another matter: it depends on mount options.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable
from itertools import product
from pathlib import Path

from tests.syscalls import UTIME_NOW, UTIME_OMIT, rename_with_flags, set_times
from tests.t4_mount.compare import Sides

LONG_AGO_NS = 987_654_321_012_345_678
TICK_S = 0.011  # more than a tick of the clock that the kernel uses for file times
WATCHED = (".", "f", "g", "l", "d", "d/inside", "e", "p")


def prepare(side: Path) -> None:
    side.mkdir()
    (side / "f").write_bytes(b"data")
    (side / "f").chmod(0o644)
    (side / "g").write_bytes(b"other")
    os.symlink("f", side / "l")
    (side / "d").mkdir()
    (side / "d" / "inside").touch()
    (side / "e").mkdir()
    os.mkfifo(side / "p")
    os.setxattr(side / "f", "user.there", b"1")
    for name in reversed(WATCHED):
        os.utime(side / name, ns=(LONG_AGO_NS, LONG_AGO_NS), follow_symlinks=False)


def times(side: Path) -> dict[int, tuple[int, int]]:
    """Inode -> (mtime, ctime) of everything watched and everything new."""
    found = {}
    for name in (*WATCHED, "new", "e/moved"):
        if os.path.lexists(side / name):
            attributes = os.lstat(side / name)
            found[attributes.st_ino] = (attributes.st_mtime_ns, attributes.st_ctime_ns)
    return found


def written(path: Path, data: bytes) -> None:
    with path.open("r+b", buffering=0) as file:
        file.write(data)


CHANGES: dict[str, Callable[[Path], object]] = {
    "read": lambda side: (side / "f").read_bytes(),
    "write": lambda side: written(side / "f", b"x"),
    "write nothing": lambda side: written(side / "f", b""),
    "append": lambda side: os.write(os.open(side / "f", os.O_WRONLY | os.O_APPEND), b"x"),
    "truncate shorter": lambda side: os.truncate(side / "f", 1),
    "truncate longer": lambda side: os.truncate(side / "f", 100),
    "truncate to the same": lambda side: os.truncate(side / "f", 4),
    "open with truncation": lambda side: os.close(os.open(side / "f", os.O_WRONLY | os.O_TRUNC)),
    "chmod": lambda side: os.chmod(side / "f", 0o600),
    "chmod to the same": lambda side: os.chmod(side / "f", 0o644),
    "chown": lambda side: os.chown(side / "f", 1, 1),
    "chown to nothing": lambda side: os.chown(side / "f", -1, -1),
    "lchown": lambda side: os.lchown(side / "l", 1, 1),
    "link": lambda side: os.link(side / "f", side / "e" / "moved"),
    "symlink": lambda side: os.symlink("x", side / "new"),
    "create": lambda side: os.close(os.open(side / "new", os.O_CREAT)),
    "open what is there": lambda side: os.close(os.open(side / "f", os.O_CREAT | os.O_RDWR)),
    "mkdir": lambda side: os.mkdir(side / "new"),
    "mkdir what is there": lambda side: os.mkdir(side / "d"),
    "mknod": lambda side: os.mknod(side / "new", stat.S_IFREG | 0o644),
    "unlink": lambda side: os.unlink(side / "d" / "inside"),
    "rmdir": lambda side: os.rmdir(side / "e"),
    "rmdir in vain": lambda side: os.rmdir(side / "d"),
    "rename": lambda side: os.rename(side / "f", side / "new"),
    "rename elsewhere": lambda side: os.rename(side / "f", side / "e" / "moved"),
    "rename a directory": lambda side: os.rename(side / "d", side / "e" / "moved"),
    "rename over another": lambda side: os.rename(side / "f", side / "g"),
    "rename in vain": lambda side: os.rename(side / "f", side / "d"),
    "exchange": lambda side: rename_with_flags(side / "f", side / "d" / "inside", 2),
    "setxattr": lambda side: os.setxattr(side / "f", "user.x", b"1"),
    "removexattr": lambda side: os.removexattr(side / "f", "user.there"),
    "removexattr in vain": lambda side: os.removexattr(side / "f", "user.none"),
    "utime": lambda side: os.utime(side / "f", ns=(5, 7)),
    "utime to now": lambda side: os.utime(side / "f"),
    "readlink and listdir": lambda side: (os.readlink(side / "l"), sorted(os.listdir(side))),
}


def test_what_moves_mtime_and_ctime(sides: Sides) -> None:
    def moved(whole: Path, change: str) -> list[tuple[str, bool, bool]]:
        """Name now, does the change move mtime, does it move ctime."""
        side = whole / change
        before = times(side)
        try:
            CHANGES[change](side)
        except OSError as problem:
            print(problem)
        after = times(side)
        names = {os.lstat(side / n).st_ino: n for n in WATCHED if os.path.lexists(side / n)}
        result = []
        for inode, (mtime_ns, ctime_ns) in after.items():
            old = before.get(inode, (0, 0))
            result.append((names.get(inode, "new"), mtime_ns != old[0], ctime_ns > old[1]))
        return sorted(result)

    for side in (sides.mine, sides.plain):
        for change in CHANGES:
            prepare(side / change)
    time.sleep(TICK_S)
    for change in CHANGES:
        sides.same(lambda side, change=change: moved(side, change), change)


def test_utimensat_with_now_and_omit(sides: Sides) -> None:
    def after(side: Path, atime: int, mtime: int) -> list[object]:
        began_ns = time.time_ns() - 50_000_000
        result: list[object] = []
        for name in ("f", "l", "d", "p"):
            set_times(side / name, atime, mtime)
            now = os.lstat(side / name)
            for moment_ns in (now.st_atime_ns, now.st_mtime_ns):
                result.append("now" if moment_ns >= began_ns else moment_ns)
            unchanged = (atime, mtime) == (UTIME_OMIT, UTIME_OMIT)
            result.append(unchanged or now.st_ctime_ns >= began_ns)
        return result

    atimes = (UTIME_NOW, UTIME_OMIT, 1, -1, 1_999_999_999)
    mtimes = (UTIME_NOW, UTIME_OMIT, 123_456_789_987_654_321, 0)
    for number, pair in enumerate(product(atimes, mtimes)):
        for side in (sides.mine, sides.plain):
            prepare(side / str(number))
        sides.same(lambda side, n=number, pair=pair: after(side / str(n), *pair), pair)


def test_two_times_of_now_are_one(here: Path) -> None:
    (here / "f").touch()
    set_times(here / "f", UTIME_NOW, UTIME_NOW)
    attributes = os.stat(here / "f")
    assert attributes.st_atime_ns == attributes.st_mtime_ns
