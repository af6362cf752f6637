"""Calls that reach dfs through its compiled library only, on a real mount."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import stat
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dfsmount.cli.lifecycle import mount_command
from dfsmount.lowlevel.operations import FSGETXATTR, FSSETXATTR, FSXATTR, GETFLAGS, SETFLAGS
from dfswire.operations import FS_APPEND, FS_IMMUTABLE, FS_NODUMP
from tests.syscalls import KEEP_SIZE, PUNCH_HOLE, ZERO_RANGE, fallocate
from tests.t4_mount.conftest import TwoViews
from tests.t4_mount.harness import STOOD_STILL, LiveCluster, LiveMount, run

MIB = 1 << 20
CONTENT = os.urandom(3 * MIB)


@contextmanager
def opened(path: Path, flags: int = os.O_RDWR) -> Iterator[int]:
    descriptor = os.open(path, flags)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def fails_with(number: int, call: object, *arguments: object) -> None:
    assert callable(call)
    with pytest.raises(OSError) as caught:
        call(*arguments)
    assert caught.value.errno == number, caught.value


# Holes


def test_holes_and_data_are_found(here: Path) -> None:
    path = here / "sparse"
    with path.open("wb") as file:
        file.seek(4 * MIB)
        file.write(CONTENT[:MIB])
        file.truncate(8 * MIB)
    with opened(path) as fd:
        assert os.lseek(fd, 0, os.SEEK_DATA) == 4 * MIB
        assert os.lseek(fd, 0, os.SEEK_HOLE) == 0
        assert os.lseek(fd, 4 * MIB + 7, os.SEEK_DATA) == 4 * MIB + 7
        assert os.lseek(fd, 4 * MIB, os.SEEK_HOLE) == 5 * MIB
        fails_with(errno.ENXIO, os.lseek, fd, 5 * MIB, os.SEEK_DATA)
        fails_with(errno.ENXIO, os.lseek, fd, 8 * MIB, os.SEEK_HOLE)
        os.pwrite(fd, b"dirty", 6 * MIB)  # not committed when it is asked for
        assert os.lseek(fd, 5 * MIB, os.SEEK_DATA) == 6 * MIB


def test_cp_keeps_holes(here: Path) -> None:
    with (here / "sparse").open("wb") as file:
        file.seek(40 * MIB)
        file.write(CONTENT[:MIB])
    outside = here / "copy"
    run("cp", "--sparse=always", "--reflink=never", here / "sparse", outside, cwd=here)
    assert outside.stat().st_size == 41 * MIB
    assert outside.stat().st_blocks * 512 <= 2 * MIB


def test_space_is_preallocated(here: Path) -> None:
    path = here / "f"
    path.write_bytes(b"abc")
    with opened(path) as fd:
        os.posix_fallocate(fd, 0, MIB)
        assert path.stat().st_size == MIB
        fallocate(fd, KEEP_SIZE, 0, 2 * MIB)
        assert path.stat().st_size == MIB
    assert path.read_bytes() == b"abc" + bytes(MIB - 3)


def test_a_hole_is_punched(here: Path) -> None:
    path = here / "f"
    path.write_bytes(CONTENT)
    path.read_bytes()  # the pages of the range are in the kernel
    with opened(path) as fd:
        fallocate(fd, PUNCH_HOLE | KEEP_SIZE, MIB, MIB)
        assert os.pread(fd, 3 * MIB, 0) == CONTENT[:MIB] + bytes(MIB) + CONTENT[2 * MIB :]
        assert os.lseek(fd, 0, os.SEEK_HOLE) == MIB
    assert path.stat().st_blocks * 512 == 2 * MIB


def test_a_range_is_zeroed(here: Path) -> None:
    path = here / "f"
    path.write_bytes(CONTENT)
    with opened(path) as fd:
        fallocate(fd, ZERO_RANGE, 2 * MIB, 2 * MIB)
        assert os.pread(fd, 5 * MIB, 0) == CONTENT[: 2 * MIB] + bytes(2 * MIB)


def test_other_modes_are_refused(here: Path) -> None:
    path = here / "f"
    path.write_bytes(CONTENT)
    with opened(path) as fd:
        fails_with(errno.EOPNOTSUPP, fallocate, fd, 0x08, 0, MIB)  # collapse
    with opened(path, os.O_RDONLY) as fd:
        fails_with(errno.EBADF, fallocate, fd, 0, 0, MIB)


def test_a_hole_is_seen_by_the_other_mount(views: TwoViews) -> None:
    (views.a / "f").write_bytes(CONTENT)
    assert (views.b / "f").read_bytes() == CONTENT
    with opened(views.a / "f") as fd:
        fallocate(fd, PUNCH_HOLE | KEEP_SIZE, 0, MIB)
    assert (views.b / "f").read_bytes() == bytes(MIB) + CONTENT[MIB:]


# Copies


def test_copies_share_the_bytes(here: Path, cluster: LiveCluster) -> None:
    source, target = here / "source", here / "target"
    source.write_bytes(CONTENT)
    with opened(source) as one, opened(target, os.O_CREAT | os.O_RDWR) as other:
        assert os.copy_file_range(one, other, len(CONTENT), 0, 0) == len(CONTENT)
        assert os.copy_file_range(one, other, MIB, len(CONTENT), 0) == 0
        assert os.copy_file_range(one, other, MIB, MIB, 5 * MIB) == MIB
        overlapping = (one, one, 2 * MIB, 0, MIB)
        fails_with(errno.EINVAL, os.copy_file_range, *overlapping)
    assert target.read_bytes() == CONTENT + bytes(2 * MIB) + CONTENT[MIB : 2 * MIB]
    chunks = [{each["chunk"] for each in cluster.info(path)["chunks"]} for path in (source, target)]
    assert chunks[0] == chunks[1]
    with opened(source) as one:
        os.pwrite(one, b"other", 0)
    assert target.read_bytes()[:5] == CONTENT[:5]


def test_cp_copies_no_bytes(here: Path, cluster: LiveCluster) -> None:
    (here / "source").write_bytes(CONTENT)
    run("cp", "source", "target", cwd=here)
    assert (here / "target").read_bytes() == CONTENT
    chunks = [cluster.info(here / name)["chunks"] for name in ("source", "target")]
    assert {each["chunk"] for each in chunks[0]} == {each["chunk"] for each in chunks[1]}


# Inode flags


def get_flags(fd: int) -> int:
    (flags,) = struct.unpack("L", fcntl.ioctl(fd, GETFLAGS, bytes(struct.calcsize("L"))))
    return int(flags)


def set_flags(fd: int, flags: int) -> None:
    fcntl.ioctl(fd, SETFLAGS, struct.pack("L", flags))


def test_an_immutable_file(here: Path) -> None:
    path = here / "f"
    path.write_bytes(b"as it is")
    with opened(path, os.O_RDONLY) as fd:
        set_flags(fd, FS_IMMUTABLE)
        assert get_flags(fd) == FS_IMMUTABLE
        try:
            fails_with(errno.EPERM, os.open, path, os.O_WRONLY)
            fails_with(errno.EPERM, path.unlink)
            fails_with(errno.EPERM, path.chmod, 0o600)
        finally:
            set_flags(fd, 0)
    path.unlink()


def test_flags_of_a_directory_in_their_other_form(here: Path) -> None:
    with opened(here, os.O_RDONLY) as fd:
        set_flags(fd, FS_NODUMP)
        xflags, *_ = FSXATTR.unpack(fcntl.ioctl(fd, FSGETXATTR, bytes(FSXATTR.size)))
        assert xflags == 0x80
        fcntl.ioctl(fd, FSSETXATTR, FSXATTR.pack(0x10, 0, 0, 0, 0))
        assert get_flags(fd) == FS_APPEND
        set_flags(fd, 0)


def test_other_ioctls_are_refused(here: Path) -> None:
    with (here / "f").open("wb") as file:
        fails_with(errno.ENOTTY, fcntl.ioctl, file, 0x5401, bytes(64))  # TCGETS
        fails_with(errno.EOPNOTSUPP, set_flags, file.fileno(), 0x1)  # secure deletion


@pytest.mark.skipif(shutil.which("chattr") is None, reason="needs e2fsprogs")
def test_chattr_and_lsattr(here: Path) -> None:
    (here / "f").touch()
    run("chattr", "+a", "f", cwd=here)
    try:
        assert run("lsattr", "f", cwd=here).split()[0].strip("-") == "a"
        run("sh", "-c", "echo more >>f", cwd=here)
        fails_with(errno.EPERM, (here / "f").write_bytes, b"anew")
    finally:
        run("chattr", "-a", "f", cwd=here)


# Files without a name


def link(descriptor: int, path: Path) -> None:
    """linkat(2) with AT_SYMLINK_FOLLOW, which os.link gives with a directory's descriptor only."""
    with opened(Path("/proc/self/fd"), os.O_RDONLY) as directory:
        os.link(str(descriptor), path, src_dir_fd=directory, follow_symlinks=True)


def test_a_file_is_made_without_a_name_and_then_linked(here: Path) -> None:
    with opened(here, os.O_TMPFILE | os.O_RDWR) as fd:
        os.write(fd, CONTENT)
        found = os.fstat(fd)
        assert (found.st_nlink, found.st_size) == (0, len(CONTENT))
        assert stat.S_ISREG(found.st_mode)
        assert list(here.iterdir()) == []
        link(fd, here / "f")
        assert os.fstat(fd).st_nlink == 1
    assert (here / "f").read_bytes() == CONTENT


def test_a_file_without_a_name_obeys_the_umask(here: Path) -> None:
    before = os.umask(0o027)
    try:
        fd = os.open(here, os.O_TMPFILE | os.O_RDWR, 0o666)
    finally:
        os.umask(before)
    assert stat.S_IMODE(os.fstat(fd).st_mode) == 0o640
    os.close(fd)


def test_a_file_that_may_never_have_a_name(here: Path) -> None:
    with opened(here, os.O_TMPFILE | os.O_RDWR | os.O_EXCL) as fd:
        fails_with(errno.ENOENT, link, fd, here / "f")


# Without the library


@pytest.fixture
def plain(cluster: LiveCluster, here: Path) -> Iterator[Path]:
    """The same directory on a mount that has pyfuse3 only."""
    point, log = cluster.directory.parent / "plain", cluster.directory / "log" / "mount-plain.log"
    command = ["env", "DFS_LOWLEVEL=off", *mount_command(cluster.metad, point, "")]
    mount = LiveMount(cluster.metad, point, log, "", command)
    mount.start()
    try:
        yield mount.point / here.name
    finally:
        mount.stop()
        words = mount.log.read_text()
        mount.log.unlink()
    warnings = [line for line in words.splitlines() if "WARNING" in line]
    (line,) = [line for line in warnings if STOOD_STILL not in line]
    assert "DFS_LOWLEVEL=off" in line


def test_a_mount_works_without_the_library(plain: Path, here: Path) -> None:
    (plain / "f").write_bytes(CONTENT)
    assert (here / "f").read_bytes() == CONTENT
    os.setxattr(plain / "f", "user.x", b"1", os.XATTR_CREATE)
    with opened(plain / "f") as fd:
        assert os.lseek(fd, 0, os.SEEK_HOLE) == len(CONTENT)
        fails_with(errno.EOPNOTSUPP, fallocate, fd, PUNCH_HOLE | KEEP_SIZE, 0, MIB)
        fails_with(errno.ENOTTY, get_flags, fd)
        fcntl.flock(fd, fcntl.LOCK_EX)
        fcntl.lockf(fd, fcntl.LOCK_EX)
    fails_with(errno.EOPNOTSUPP, os.open, plain, os.O_TMPFILE | os.O_RDWR)
    subprocess.run(["cp", plain / "f", plain / "copy"], check=True)
    assert (here / "copy").read_bytes() == CONTENT
