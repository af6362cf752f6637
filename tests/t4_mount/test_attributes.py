"""Attributes on a real mount: modes, owners, times, xattrs, permissions, and what df shows."""

from __future__ import annotations

import errno
import os
import stat
import time
from pathlib import Path

import pytest

from tests.t4_mount.harness import acting_as, run

NEEDLE_NS = 1_234_567_890_123_456_789  # odd to the last digit
STRANGER, GROUP = 12_345, 23_456


def test_chmod_is_exact_for_files_and_directories(here: Path) -> None:
    (here / "f").touch()
    (here / "d").mkdir()
    for mode in (0o000, 0o777, 0o1755, 0o4711, 0o2751, 0o6640):
        for name in ("f", "d"):
            (here / name).chmod(mode)
            assert stat.S_IMODE((here / name).stat().st_mode) == mode


def test_chown_changes_one_or_both_and_reaches_links_themselves(here: Path) -> None:
    (here / "f").touch()
    os.symlink("f", here / "l")
    os.chown(here / "f", STRANGER, -1)
    assert ((here / "f").stat().st_uid, (here / "f").stat().st_gid) == (STRANGER, 0)
    os.chown(here / "f", -1, GROUP)
    assert ((here / "f").stat().st_uid, (here / "f").stat().st_gid) == (STRANGER, GROUP)
    os.lchown(here / "l", 1, 2)
    assert (os.lstat(here / "l").st_uid, os.lstat(here / "l").st_gid) == (1, 2)
    assert (here / "f").stat().st_uid == STRANGER
    os.chown(here / "f", (1 << 32) - 2, (1 << 32) - 2)
    assert (here / "f").stat().st_uid == (1 << 32) - 2


def test_chown_by_others_clears_set_uid(here: Path) -> None:
    (here / "f").touch()
    os.chown(here / "f", STRANGER, GROUP)
    (here / "f").chmod(0o6755)
    with acting_as(STRANGER, GROUP, here):
        os.chown("f", -1, GROUP)
    assert not (here / "f").stat().st_mode & (stat.S_ISUID | stat.S_ISGID)


def test_writing_by_others_clears_set_uid(here: Path) -> None:
    (here / "f").write_bytes(b"program")
    (here / "f").chmod(0o4777)
    with acting_as(STRANGER, GROUP, here):
        descriptor = os.open("f", os.O_WRONLY)
        os.write(descriptor, b"x")
        os.close(descriptor)
    assert stat.S_IMODE((here / "f").stat().st_mode) == 0o777


@pytest.mark.parametrize("moment_ns", [NEEDLE_NS, 0, 1, -1, -NEEDLE_NS, 4_102_444_800_999_999_999])
def test_times_are_exact_to_the_nanosecond(here: Path, moment_ns: int) -> None:
    (here / "f").touch()
    os.utime(here / "f", ns=(moment_ns, moment_ns + 10**9))
    assert (here / "f").stat().st_atime_ns == moment_ns
    assert (here / "f").stat().st_mtime_ns == moment_ns + 10**9


def test_times_set_while_data_is_dirty_stay(here: Path) -> None:
    """What cp -p, tar and rsync do: write, set the times, close."""
    for size in (10, 300_000):
        with (here / "f").open("wb", buffering=0) as file:
            file.write(b"x" * size)
            os.utime(file.fileno(), ns=(NEEDLE_NS, NEEDLE_NS))
            assert os.fstat(file.fileno()).st_mtime_ns == NEEDLE_NS
        assert (here / "f").stat().st_mtime_ns == NEEDLE_NS
        assert (here / "f").read_bytes() == b"x" * size
        assert (here / "f").stat().st_mtime_ns == NEEDLE_NS


def test_times_set_by_path_while_another_descriptor_is_dirty_stay(here: Path) -> None:
    with (here / "f").open("wb", buffering=0) as file:
        file.write(b"x" * 300_000)
        os.utime(here / "f", ns=(NEEDLE_NS, NEEDLE_NS))
        os.fsync(file.fileno())
    assert (here / "f").stat().st_mtime_ns == NEEDLE_NS


def test_cp_p_and_tar_and_rsync_keep_times(here: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for size in (0, 5, 100_000):
        (source / f"f{size}").write_bytes(b"x" * size)
        os.utime(source / f"f{size}", ns=(NEEDLE_NS, NEEDLE_NS))
    run("cp", "-p", *source.iterdir(), here, cwd=tmp_path)
    (here / "tar").mkdir()
    run("tar", "cf", "all.tar", "--format=pax", "-C", "source", ".", cwd=tmp_path)
    run("tar", "xf", "all.tar", "-C", here / "tar", cwd=tmp_path)
    run("rsync", "-a", f"{source}/", here / "rsync", cwd=tmp_path)
    for directory in (here, here / "tar", here / "rsync"):
        for size in (0, 5, 100_000):
            assert (directory / f"f{size}").stat().st_mtime_ns == NEEDLE_NS, directory
            assert (directory / f"f{size}").stat().st_size == size


def test_changes_move_the_right_times(here: Path) -> None:
    (here / "f").write_bytes(b"data")
    (here / "d").mkdir()

    def moved(change: object, name: str) -> tuple[bool, bool]:
        """Does the change move (mtime, ctime)?"""
        assert callable(change)
        os.utime(here / name, ns=(NEEDLE_NS, NEEDLE_NS))
        before = (here / name).stat()
        time.sleep(0.01)  # the coarsest clock tick that the kernel uses for file times
        change()
        after = (here / name).stat()
        return after.st_mtime_ns > before.st_mtime_ns, after.st_ctime_ns > before.st_ctime_ns

    def append() -> None:
        with (here / "f").open("ab") as file:
            file.write(b"more")

    assert moved(append, "f") == (True, True)
    assert moved(lambda: os.truncate(here / "f", 2), "f") == (True, True)
    assert moved(lambda: (here / "f").chmod(0o600), "f") == (False, True)
    assert moved(lambda: os.link(here / "f", here / "d" / "g"), "f") == (False, True)
    assert moved(lambda: os.rename(here / "d" / "g", here / "d" / "h"), "d") == (True, True)
    assert moved(lambda: (here / "d" / "h").unlink(), "d") == (True, True)
    assert moved(lambda: (here / "d" / "new").mkdir(), "d") == (True, True)
    assert moved(lambda: os.setxattr(here / "f", "user.x", b"1"), "f") == (False, True)
    assert moved(lambda: (here / "f").read_bytes(), "f") == (False, False)


def test_a_fresh_file_has_times_of_now(here: Path) -> None:
    before_ns = time.time_ns()
    (here / "f").write_bytes(b"x")
    attributes = (here / "f").stat()
    slack_ns = 20_000_000  # kernel file times lag behind the clock by up to a tick
    for moment_ns in (attributes.st_atime_ns, attributes.st_mtime_ns, attributes.st_ctime_ns):
        assert before_ns - slack_ns <= moment_ns <= time.time_ns() + slack_ns


def test_utime_without_times_means_now(here: Path) -> None:
    (here / "f").touch()
    os.utime(here / "f", ns=(NEEDLE_NS, NEEDLE_NS))
    os.utime(here / "f")
    assert abs((here / "f").stat().st_mtime_ns - time.time_ns()) < 10**9
    assert abs((here / "f").stat().st_atime_ns - time.time_ns()) < 10**9


def test_xattrs_are_set_listed_replaced_and_removed(here: Path) -> None:
    path = here / "f"
    path.touch()
    os.setxattr(path, "user.one", b"1")
    os.setxattr(path, "user.empty", b"")
    os.setxattr(path, "trusted.two", bytes(range(256)))
    assert sorted(os.listxattr(path)) == ["trusted.two", "user.empty", "user.one"]
    assert os.getxattr(path, "trusted.two") == bytes(range(256))
    assert os.getxattr(path, "user.empty") == b""
    os.setxattr(path, "user.one", b"another")
    assert os.getxattr(path, "user.one") == b"another"
    os.removexattr(path, "user.one")
    for action in (os.getxattr, os.removexattr):
        with pytest.raises(OSError) as caught:
            action(path, "user.one")
        assert caught.value.errno == errno.ENODATA
    os.setxattr(here, "user.directory", b"yes")
    assert os.getxattr(here, "user.directory") == b"yes"


@pytest.mark.parametrize(
    ("name", "code"),
    [("plain", errno.EOPNOTSUPP), ("other.x", errno.EOPNOTSUPP), ("user.", errno.EINVAL)],
)
def test_xattrs_belong_to_a_name_space(here: Path, name: str, code: int) -> None:
    """As on ext4."""
    for action in (
        lambda: os.setxattr(here, name, b"1"),
        lambda: os.getxattr(here, name),
        lambda: os.removexattr(here, name),
    ):
        with pytest.raises(OSError) as failure:
            action()
        assert failure.value.errno == code
    assert os.listxattr(here) == []


def test_xattrs_up_to_the_kernels_limits(here: Path) -> None:
    path = here / "f"
    path.touch()
    name = "user." + "n" * 250
    os.setxattr(path, name, b"v" * 65_536)
    assert os.getxattr(path, name) == b"v" * 65_536
    assert os.listxattr(path) == [name]
    with pytest.raises(OSError) as caught:
        os.setxattr(path, "user.big", b"v" * 65_537)
    assert caught.value.errno == errno.E2BIG
    with pytest.raises(OSError) as caught:
        os.setxattr(path, "user." + "n" * 251, b"")
    assert caught.value.errno == errno.ERANGE


def test_xattrs_created_or_replaced_only(here: Path) -> None:
    path = here / "f"
    path.touch()
    with pytest.raises(OSError) as caught:
        os.setxattr(path, "user.x", b"0", os.XATTR_REPLACE)
    assert caught.value.errno == errno.ENODATA
    os.setxattr(path, "user.x", b"1", os.XATTR_CREATE)
    with pytest.raises(OSError) as caught:
        os.setxattr(path, "user.x", b"0", os.XATTR_CREATE)
    assert caught.value.errno == errno.EEXIST
    os.setxattr(path, "user.x", b"2", os.XATTR_REPLACE)
    assert os.getxattr(path, "user.x") == b"2"


def test_access_control_lists_are_refused(here: Path) -> None:
    """Nothing would enforce them."""
    path = here / "f"
    path.touch()
    for name in ("system.posix_acl_access", "system.posix_acl_default"):
        for action in (
            lambda name=name: os.setxattr(here, name, bytes.fromhex("02000000")),
            lambda name=name: os.getxattr(here, name),
        ):
            with pytest.raises(OSError) as caught:
                action()
            assert caught.value.errno in (errno.EOPNOTSUPP, errno.EINVAL)
    assert os.listxattr(path) == []


def test_permissions_hold_for_another_user(here: Path) -> None:
    here.chmod(0o755)
    (here / "secret").write_bytes(b"secret")
    (here / "secret").chmod(0o600)
    (here / "public").write_bytes(b"public")
    (here / "public").chmod(0o644)
    (here / "closed").mkdir(0o700)
    (here / "open").mkdir()
    (here / "open").chmod(0o777)
    (here / "sticky").mkdir()
    (here / "sticky").chmod(0o1777)
    (here / "sticky" / "roots").touch()
    with acting_as(STRANGER, GROUP, here):
        assert Path("public").read_bytes() == b"public"
        for forbidden in (
            lambda: Path("secret").read_bytes(),
            lambda: Path("public").write_bytes(b"x"),
            lambda: os.listdir("closed"),
            lambda: os.stat("closed/x"),
            lambda: Path("new").touch(),
            lambda: os.unlink("public"),
            lambda: os.rename("public", "open/public"),
            lambda: os.chmod("public", 0o777),
            lambda: os.utime("public", ns=(1, 1)),
            lambda: os.unlink("sticky/roots"),
        ):
            with pytest.raises(PermissionError):
                forbidden()
        Path("open/mine").write_bytes(b"mine")
        assert (Path("open/mine").stat().st_uid, Path("open/mine").stat().st_gid) == (
            STRANGER,
            GROUP,
        )
        os.chmod("open/mine", 0o600)
        assert Path("open/mine").read_bytes() == b"mine"
    assert (here / "open" / "mine").read_bytes() == b"mine"


def test_group_permissions_hold(here: Path) -> None:
    here.chmod(0o755)
    (here / "f").write_bytes(b"shared")
    os.chown(here / "f", 0, GROUP)
    (here / "f").chmod(0o640)
    with acting_as(STRANGER, GROUP, here):
        assert Path("f").read_bytes() == b"shared"
    with acting_as(STRANGER, GROUP + 1, here), pytest.raises(PermissionError):
        Path("f").read_bytes()


def test_the_figures_of_df_are_sensible(here: Path) -> None:
    figures = os.statvfs(here)
    total = figures.f_blocks * figures.f_frsize
    free = figures.f_bavail * figures.f_frsize
    assert 0 < free <= total
    assert figures.f_namemax == 255
    assert figures.f_files > figures.f_ffree > 0
    shown = run("df", "-B1", "--output=fstype,size,avail", here, cwd=here).splitlines()[1].split()
    assert shown[0] == "fuse.dfs"
    assert int(shown[1]) == total
