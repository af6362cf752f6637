"""Names on a real mount: directories, links, renames, and the errors that belong to them."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.syscalls import RENAME_EXCHANGE, RENAME_NOREPLACE, rename_with_flags
from tests.t4_mount.direct import create_names
from tests.t4_mount.harness import LiveCluster


def fails_with(code: int, action: Callable[[], object]) -> None:
    """Assert that a system call ends with this errno."""
    with pytest.raises(OSError) as caught:
        action()
    name = errno.errorcode.get(caught.value.errno or 0)
    assert caught.value.errno == code, f"{name} instead of {errno.errorcode[code]}"


def test_hard_links_share_everything(here: Path) -> None:
    (here / "one").write_bytes(b"data")
    os.link(here / "one", here / "two")
    (here / "sub").mkdir()
    os.link(here / "two", here / "sub" / "three")
    assert (here / "one").stat().st_nlink == 3
    assert (here / "sub" / "three").samefile(here / "one")
    (here / "two").write_bytes(b"other")
    (here / "one").unlink()
    assert (here / "sub" / "three").read_bytes() == b"other"
    assert (here / "two").stat().st_nlink == 2
    fails_with(errno.EEXIST, lambda: os.link(here / "two", here / "sub" / "three"))
    fails_with(errno.EPERM, lambda: os.link(here / "sub", here / "directory"))


def test_linking_a_file_while_it_is_being_written(here: Path) -> None:
    with (here / "one").open("wb", buffering=0) as file:
        file.write(b"dirty")
        os.link(here / "one", here / "two")
        assert (here / "two").read_bytes() == b"dirty"
        file.write(b" and more")
    assert (here / "two").read_bytes() == b"dirty and more"


def test_symbolic_links_hold_any_target(here: Path) -> None:
    for target in ("x", "../x/y", "x" * 4095):
        os.symlink(target, here / "link")
        assert os.readlink(here / "link") == target
        assert os.lstat(here / "link").st_size == len(target)
        (here / "link").unlink()
    fails_with(errno.ENAMETOOLONG, lambda: os.symlink("x" * 4096, here / "link"))
    (here / "f").write_bytes(b"data")
    os.symlink("f", here / "link")
    assert (here / "link").read_bytes() == b"data"
    fails_with(errno.EINVAL, lambda: os.readlink(here / "f"))


def test_circles_of_links_end(here: Path) -> None:
    os.symlink("b", here / "a")
    os.symlink("a", here / "b")
    fails_with(errno.ELOOP, lambda: os.stat(here / "a"))
    fails_with(errno.ELOOP, lambda: os.open(here / "a", os.O_RDONLY | os.O_NOFOLLOW))


def test_names_may_have_255_octets_of_any_kind(here: Path) -> None:
    longest = b"\xff" * 255
    place = os.fsencode(here)
    os.close(os.open(place + b"/" + longest, os.O_CREAT | os.O_WRONLY))
    for name in (b"new\nline", b" ", b"-rf", "grün".encode(), b"\x01\x7f"):
        os.mkdir(place + b"/" + name)
    assert longest in os.listdir(place)
    os.rename(place + b"/" + longest, place + b"/" + b"y" * 255)
    too_long = place + b"/" + b"x" * 256
    for action in (
        lambda: os.open(too_long, os.O_CREAT | os.O_WRONLY),
        lambda: os.mkdir(too_long),
        lambda: os.stat(too_long),
        lambda: os.rename(place + b"/-rf", too_long),
    ):
        fails_with(errno.ENAMETOOLONG, action)


def test_the_usual_refusals(here: Path) -> None:
    (here / "f").write_bytes(b"")
    (here / "d").mkdir()
    (here / "d" / "inside").write_bytes(b"")
    (here / "e").mkdir()
    for code, action in (
        (errno.EEXIST, lambda: os.mkdir(here / "f")),
        (errno.EEXIST, lambda: os.mkdir(here / "d")),
        (errno.EEXIST, lambda: os.symlink("x", here / "f")),
        (errno.ENOENT, lambda: os.mkdir(here / "none" / "x")),
        (errno.ENOENT, lambda: os.unlink(here / "none")),
        (errno.ENOENT, lambda: os.rename(here / "none", here / "x")),
        (errno.ENOTDIR, lambda: os.stat(here / "f" / "x")),
        (errno.ENOTDIR, lambda: os.rmdir(here / "f")),
        (errno.ENOTDIR, lambda: os.rename(here / "d", here / "f")),
        (errno.ENOTDIR, lambda: os.listdir(here / "f")),
        (errno.EISDIR, lambda: os.unlink(here / "d")),
        (errno.EISDIR, lambda: os.rename(here / "f", here / "e")),
        (errno.EISDIR, lambda: os.truncate(here / "d", 0)),
        (errno.ENOTEMPTY, lambda: os.rmdir(here / "d")),
        (errno.ENOTEMPTY, lambda: os.rename(here / "e", here / "d")),
        (errno.EINVAL, lambda: os.rename(here / "d", here / "d" / "below")),
    ):
        fails_with(code, action)


def test_a_directory_counts_its_subdirectories(here: Path) -> None:
    assert here.stat().st_nlink == 2
    (here / "d").mkdir()
    (here / "e").mkdir()
    assert here.stat().st_nlink == 4
    os.rename(here / "d", here / "e" / "d")
    assert here.stat().st_nlink == 3
    assert (here / "e").stat().st_nlink == 3
    (here / "e" / "d").rmdir()
    assert (here / "e").stat().st_nlink == 2


def test_rename_replaces_and_its_flags_refuse_or_exchange(here: Path) -> None:
    (here / "a").write_bytes(b"A")
    (here / "b").write_bytes(b"B")
    (here / "d").mkdir()
    fails_with(errno.EEXIST, lambda: rename_with_flags(here / "a", here / "b", RENAME_NOREPLACE))
    rename_with_flags(here / "a", here / "b", RENAME_EXCHANGE)
    assert ((here / "a").read_bytes(), (here / "b").read_bytes()) == (b"B", b"A")
    rename_with_flags(here / "a", here / "d", RENAME_EXCHANGE)
    assert (here / "a").is_dir()
    assert (here / "d").read_bytes() == b"B"
    fails_with(errno.ENOENT, lambda: rename_with_flags(here / "a", here / "none", RENAME_EXCHANGE))
    os.rename(here / "d", here / "b")
    assert (here / "b").read_bytes() == b"B"
    rename_with_flags(here / "b", here / "c", RENAME_NOREPLACE)
    assert sorted(os.listdir(here)) == ["a", "c"]


def test_renaming_one_link_over_another_of_the_same_file_does_nothing(here: Path) -> None:
    (here / "a").write_bytes(b"data")
    os.link(here / "a", here / "b")
    os.rename(here / "a", here / "b")
    assert sorted(os.listdir(here)) == ["a", "b"]


def test_a_moved_directory_knows_its_new_parent(here: Path) -> None:
    (here / "one" / "deep").mkdir(parents=True)
    (here / "two").mkdir()
    os.rename(here / "one" / "deep", here / "two" / "deep")
    assert (here / "two" / "deep" / "..").samefile(here / "two")
    descriptor = os.open(here / "two" / "deep", os.O_RDONLY)
    assert os.stat("..", dir_fd=descriptor).st_ino == (here / "two").stat().st_ino
    os.close(descriptor)


def test_nothing_is_made_in_a_removed_directory(here: Path) -> None:
    (here / "d").mkdir()
    descriptor = os.open(here / "d", os.O_RDONLY)
    (here / "d").rmdir()
    fails_with(errno.ENOENT, lambda: os.mkdir("x", dir_fd=descriptor))
    os.close(descriptor)


def test_a_large_directory_lists_every_name_once_while_it_changes(
    here: Path, cluster: LiveCluster
) -> None:
    """Names that exist during the whole listing appear exactly once, others at most once."""
    steady = [f"steady{number:04}" for number in range(2500)]
    create_names(cluster.metad, here, steady + [f"going{number:04}" for number in range(2500)])
    assert len(os.listdir(here)) == 5000
    seen: list[str] = []
    with os.scandir(here) as entries:
        for position, entry in enumerate(entries):
            seen.append(entry.name)
            if position % 10 == 0:
                (here / f"going{position // 10:04}").unlink()
                (here / f"coming{position // 10:04}").touch()
            if position % 25 == 0:
                os.rename(here / f"going{2499 - position // 25:04}", here / f"moved{position}")
    assert len(seen) == len(set(seen))
    assert set(steady) <= set(seen)
    assert len(os.listdir(here)) == 5000


def test_a_directory_read_again_from_the_start_shows_what_is_new(here: Path) -> None:
    (here / "a").touch()
    descriptor = os.open(here, os.O_RDONLY)
    assert os.listdir(descriptor) == ["a"]
    (here / "b").touch()
    assert sorted(os.listdir(descriptor)) == ["a", "b"]
    os.close(descriptor)


def test_listing_tells_types_and_inodes(here: Path) -> None:
    (here / "f").touch()
    (here / "d").mkdir()
    os.symlink("f", here / "l")
    os.mkfifo(here / "p")
    with os.scandir(here) as entries:
        kinds = {
            entry.name: (entry.is_file(follow_symlinks=False), entry.is_dir(), entry.is_symlink())
            for entry in entries
        }
        assert kinds == {
            "f": (True, False, False),
            "d": (False, True, False),
            "l": (False, False, True),
            "p": (False, False, False),
        }
    with os.scandir(here) as entries:
        for entry in entries:
            assert entry.inode() == os.lstat(entry.path).st_ino


def test_special_files(here: Path) -> None:
    os.mkfifo(here / "fifo", 0o640)
    assert stat.S_ISFIFO((here / "fifo").stat().st_mode)
    reader = os.open(here / "fifo", os.O_RDONLY | os.O_NONBLOCK)
    writer = os.open(here / "fifo", os.O_WRONLY)
    os.write(writer, b"through")
    assert os.read(reader, 10) == b"through"
    os.close(reader)
    os.close(writer)
    os.mknod(here / "socket", 0o600 | stat.S_IFSOCK)
    assert stat.S_ISSOCK((here / "socket").stat().st_mode)
    os.mknod(here / "null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    assert (here / "null").stat().st_rdev == os.makedev(1, 3)
    assert (here / "null").read_bytes() == b""
    os.mknod(here / "block", 0o600 | stat.S_IFBLK, os.makedev(259, 1_000_000))
    assert (here / "block").stat().st_rdev == os.makedev(259, 1_000_000)
    os.mknod(here / "plain", 0o600 | stat.S_IFREG)
    (here / "plain").write_bytes(b"x")


def test_a_setgid_directory_hands_its_group_down(here: Path) -> None:
    os.chown(here, -1, 4321)
    here.chmod(0o2775)
    (here / "f").touch()
    (here / "d").mkdir()
    os.symlink("f", here / "l")
    assert (here / "f").stat().st_gid == 4321
    assert (here / "d").stat().st_gid == 4321
    assert os.lstat(here / "l").st_gid == 4321
    assert (here / "d").stat().st_mode & stat.S_ISGID
    assert not (here / "f").stat().st_mode & stat.S_ISGID


def test_creation_obeys_the_umask(here: Path) -> None:
    before = os.umask(0o027)
    try:
        (here / "f").touch(0o666)
        (here / "d").mkdir(0o777)
    finally:
        os.umask(before)
    assert stat.S_IMODE((here / "f").stat().st_mode) == 0o640
    assert stat.S_IMODE((here / "d").stat().st_mode) == 0o750


def test_a_path_with_a_trailing_slash_must_be_a_directory(here: Path) -> None:
    (here / "f").touch()
    fails_with(errno.ENOTDIR, lambda: os.stat(f"{here}/f/"))
    os.mkdir(f"{here}/d/")
    assert os.stat(f"{here}/d/./../d/").st_ino == (here / "d").stat().st_ino
