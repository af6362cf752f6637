"""Limits and refusals on a mount, as on ext4: paths, links, sizes, xattrs, rename, statfs."""

from __future__ import annotations

import errno
import os
import stat
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from tests.stateful.twin import outcome
from tests.syscalls import rename_with_flags
from tests.t4_mount.compare import Sides
from tests.t4_mount.harness import LiveMount, eventually

TIB = 1 << 40
FILE_MAX_BYTES = 16 * TIB


def test_paths_of_4095_bytes(sides: Sides) -> None:
    def deep(side: Path) -> Any:
        os.chdir(side)
        for _ in range(15):
            os.mkdir("d" * 255)
            os.chdir("d" * 255)
        os.chdir(side)
        prefix = "/".join(["d" * 255] * 15)
        results = []
        for length in (4095 - len(prefix) - 1, 4096 - len(prefix) - 1):
            path = f"{prefix}/{'x' * min(length, 255)}"
            path = "./" * ((4095 - len(path)) // 2) + path
            path += "y" * (length - 255 if length > 255 else 0)
            for action in (
                lambda path=path: os.close(os.open(path, os.O_CREAT | os.O_WRONLY)),
                lambda path=path: os.stat(path).st_size,
                lambda path=path: os.unlink(path),
            ):
                try:
                    results.append((len(path), action()))
                except OSError as problem:
                    results.append((len(path), problem.errno))
        return results

    before = Path.cwd()
    try:
        sides.same(deep)
    finally:
        os.chdir(before)


def test_chains_of_40_links_are_followed_and_no_more(sides: Sides) -> None:
    def chain(side: Path) -> Any:
        (side / "0").write_bytes(b"end")
        for number in range(1, 42):
            os.symlink(str(number - 1), side / str(number))
        return (side / "40").read_bytes(), os.stat(side / "41").st_size

    assert sides.same(chain) == ("errno", "ELOOP")


KINDS = ("none", "file", "other", "link", "empty", "full", "full/in", "empty/in", ".", "none/x")


def make_kinds(place: Path) -> None:
    place.mkdir()
    (place / "file").write_bytes(b"file")
    (place / "other").write_bytes(b"other")
    os.symlink("file", place / "link")
    (place / "empty").mkdir()
    (place / "full" / "in").mkdir(parents=True)


@pytest.mark.parametrize("flags", range(8))
def test_rename_with_every_flag_on_everything(sides: Sides, flags: int) -> None:
    """RENAME_WHITEOUT (4) is ours to refuse: it is for overlayfs, with privileged device nodes."""
    kinds = KINDS if flags < 3 else KINDS[:2]
    fresh = 0
    for number, (old, new) in enumerate(product(kinds, kinds)):
        if not fresh:
            fresh = number + 1
            for side in (sides.mine, sides.plain):
                make_kinds(side / str(fresh))

        def rename(side: Path, here: int = fresh, old: str = old, new: str = new) -> Any:
            place = side / str(here)
            rename_with_flags(place / old, place / new, flags)
            return sorted(
                (str(path.relative_to(place)), stat.S_IFMT(os.lstat(path).st_mode))
                for path in place.rglob("*")
            )

        if flags in (4, 5) and old != new:
            assert outcome(lambda rename=rename: rename(sides.mine))[0] == "errno"
        elif sides.same(rename, (old, new, flags))[0] == "ok":
            fresh = 0


def test_link_counts(sides: Sides) -> None:
    def counts(side: Path) -> Any:
        (side / "f").touch()
        for number in range(200):
            os.link(side / "f", side / f"l{number}")
        result = [os.stat(side / "f").st_nlink]
        os.rename(side / "l1", side / "l2")  # two names of one file: nothing happens
        os.unlink(side / "l3")
        (side / "x").touch()
        os.rename(side / "x", side / "l4")
        descriptor = os.open(side / "l4", os.O_RDONLY)
        os.unlink(side / "l4")
        result += [os.stat(side / "f").st_nlink, os.fstat(descriptor).st_nlink]
        os.close(descriptor)
        for number in range(5):
            (side / f"d{number}").mkdir()
        os.rename(side / "d1", side / "d0")
        os.rename(side / "d2", side / "d3" / "in")
        return [*result, os.stat(side).st_nlink, os.stat(side / "d3").st_nlink]

    sides.same(counts)


def test_a_file_of_16_tib_with_a_byte_at_each_end(here: Path) -> None:
    path = here / "huge"
    with path.open("w+b", buffering=0) as file:
        for offset in (0, 5 * TIB, FILE_MAX_BYTES - 1):
            assert os.pwrite(file.fileno(), b"x", offset) == 1
        os.fsync(file.fileno())
        attributes = os.fstat(file.fileno())
        assert attributes.st_size == FILE_MAX_BYTES
        assert attributes.st_blocks * 512 < 1 << 20
        assert os.pread(file.fileno(), 3, 5 * TIB - 1) == b"\0x\0"
        for action in (
            lambda: os.pwrite(file.fileno(), b"x", FILE_MAX_BYTES),
            lambda: os.ftruncate(file.fileno(), FILE_MAX_BYTES + 1),
        ):
            with pytest.raises(OSError) as caught:
                action()
            assert caught.value.errno == errno.EFBIG
        os.ftruncate(file.fileno(), 5 * TIB)
    assert path.stat().st_size == 5 * TIB


def test_xattrs_of_every_name_space_and_kind(sides: Sides) -> None:
    def attempts(side: Path) -> Any:
        results: list[Any] = []
        (side / "f").touch()
        (side / "d").mkdir()
        os.symlink("f", side / "l")
        os.mkfifo(side / "p")
        for kind, space in product("fdlp", ("user", "trusted", "security", "system", "none", "")):
            name = f"{space}.x"
            for action in (
                lambda kind=kind, name=name: os.setxattr(
                    side / kind, name, b"1", follow_symlinks=False
                ),
                lambda kind=kind, name=name: os.getxattr(side / kind, name, follow_symlinks=False),
                lambda kind=kind, name=name: os.removexattr(
                    side / kind, name, follow_symlinks=False
                ),
            ):
                try:
                    results.append((kind, name, action()))
                except OSError as problem:
                    results.append((kind, name, errno.errorcode[problem.errno or 0]))
        return results

    sides.same(attempts)


def test_xattrs_created_replaced_and_measured(sides: Sides) -> None:
    def attempts(side: Path) -> Any:
        results: list[Any] = []
        (side / "f").touch()
        for name, value, flags in (
            ("user.x", b"1", os.XATTR_REPLACE),
            ("user.x", b"1", os.XATTR_CREATE),
            ("user.x", b"2", os.XATTR_CREATE),
            ("user.x", b"3", os.XATTR_REPLACE),
            ("user.x", b"4", os.XATTR_REPLACE | os.XATTR_CREATE),
            ("user.x", b"4", 8),
            ("user.", b"4", 0),
            ("user." + "n" * 250, b"4", 0),
            ("user." + "n" * 251, b"4", 0),
            ("user.big", b"v" * 65_537, 0),
            ("user.none", b"", 0),
        ):
            try:
                results.append(os.setxattr(side / "f", name, value, flags))
            except OSError as problem:
                results.append((name[:9], len(value), errno.errorcode[problem.errno or 0]))
        return results, sorted(os.listxattr(side / "f")), os.getxattr(side / "f", "user.x")

    sides.same(attempts)


def test_a_list_of_xattrs_ends_at_64_kib(here: Path) -> None:
    """The kernel gives no longer one to anybody, so one name more must be refused, not stored."""
    (here / "f").touch()
    names = [f"user.{number:03}{'n' * 240}" for number in range(300)]
    stored = 0
    with pytest.raises(OSError) as caught:
        for name in names:
            os.setxattr(here / "f", name, b"")
            stored += 1
    assert caught.value.errno == errno.ENOSPC
    assert len(os.listxattr(here / "f")) == stored == 65_536 // (len(names[0]) + 1)
    os.setxattr(here / "f", names[0], b"replaced")
    os.removexattr(here / "f", names[1])
    os.setxattr(here / "f", names[-1], b"")


def test_statfs_follows_what_is_stored(here: Path, mount_a: LiveMount) -> None:
    before = os.statvfs(here)
    assert before.f_bsize == before.f_frsize == 4096
    (here / "f").write_bytes(os.urandom(3 << 20))
    for number in range(20):
        (here / str(number)).touch()
    assert before.f_ffree - os.statvfs(here).f_ffree >= 0
    assert os.statvfs(here).f_files - os.statvfs(here).f_ffree >= 21
    disk = os.statvfs(mount_a.point.parent)

    def is_near() -> bool:
        """The three servers of the test share one disk, which others fill and empty too."""
        now = os.statvfs(here)
        return now.f_bavail * 4096 <= 3 * disk.f_bavail * disk.f_frsize * 1.01

    eventually(is_near)


def test_fsync_of_directories_and_of_read_only_descriptors(here: Path) -> None:
    (here / "f").write_bytes(b"data")
    for path in (here, here / "f"):
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.fdatasync(descriptor)
        os.close(descriptor)
