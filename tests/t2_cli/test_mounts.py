"""Reading the kernel's list of mounts, and taking one away."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from dfsmount.cli import mounts
from dfsmount.cli.mounts import (
    Mount,
    location,
    mount_at,
    mount_of,
    mount_process,
    mounts_now,
    parse_mounts,
    unmount,
    users_of,
)
from dfswire.errors import UsageError

TABLE = """\
22 1 254:0 / / rw,relatime - ext4 /dev/root rw
90 22 0:44 / /mnt/a\\040b rw,nosuid,nodev shared:7 master:1 - fuse.dfs 127.0.0.1:9400 rw,user_id=0
91 22 0:45 / /mnt/other rw - fuse.sshfs host: rw
92 22 0:46 / /mnt/\\134x rw - fuse.dfs h:1 rw
93 22 0:47 / /mnt/a\\040b rw - fuse.dfs h:2 rw
"""


def fusermount(directory: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fusermount3 that does as the text says, alone on PATH."""
    program = directory / "fusermount3"
    program.write_text(f"#!/bin/sh\n{text}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(directory))


def test_the_table_of_the_kernel() -> None:
    assert parse_mounts(TABLE) == [
        Mount("127.0.0.1:9400", Path("/mnt/a b"), (0, 44)),
        Mount("h:1", Path("/mnt/\\x"), (0, 46)),
        Mount("h:2", Path("/mnt/a b"), (0, 47)),
    ]
    assert all(mount.metad for mount in mounts_now())


def test_finding_a_mount(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    device = tmp_path.stat().st_dev
    here = Mount("h:3", tmp_path, (os.major(device), os.minor(device)))
    monkeypatch.setattr(mounts, "mounts_now", lambda: [*parse_mounts(TABLE), here])
    found = mount_at(Path("/mnt/a b"))
    assert found is not None
    assert found.metad == "h:2"  # the one on top
    assert mount_at(Path("/mnt")) is None
    assert mount_of(tmp_path) == here
    assert mount_of(Path("/proc")) is None


def test_location_does_not_look_at_the_last_part(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    assert location(tmp_path / "link" / "x") == tmp_path / "real" / "x"
    assert location(tmp_path / "link") == tmp_path / "link"
    assert location(tmp_path / "real" / "..") == tmp_path


def test_unmount(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fusermount(tmp_path, f'echo "$*" >>{tmp_path}/calls', monkeypatch)
    mount = Mount("h:1", tmp_path / "m", (0, 1))
    unmount(mount)
    unmount(mount, lazy=True)
    assert (tmp_path / "calls").read_text() == f"-u -- {tmp_path}/m\n-u -z -- {tmp_path}/m\n"


def test_unmount_that_fails_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mount = Mount("h:1", tmp_path / "m", (0, 1))
    with monkeypatch.context() as patch:
        patch.setenv("PATH", str(tmp_path))
        with pytest.raises(UsageError, match="install the package fuse3"):
            unmount(mount)
    fusermount(tmp_path, "echo 'fusermount3: not allowed' >&2; exit 1", monkeypatch)
    with pytest.raises(UsageError, match=r"^not allowed$"):
        unmount(mount)
    (tmp_path / "m").mkdir()
    with (tmp_path / "m" / "file").open("w"), pytest.raises(UsageError, match="is in use by "):
        unmount(mount)


@pytest.mark.parametrize("ended", [True, False])
def test_a_mount_without_a_process_is_aborted_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ended: bool
) -> None:
    fusermount(tmp_path, f"echo fusermount3 $* >>{tmp_path}/calls", monkeypatch)
    umount = tmp_path / "umount"
    umount.write_text(f"#!/bin/sh\necho umount $* >>{tmp_path}/calls\nexit 32\n")
    umount.chmod(0o755)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    there = Mount("h:1", Path("/mnt/x"), (0, 9))
    monkeypatch.setattr(mounts, "mount_at", lambda point: None if ended else there)
    unmount(there, dead=True)
    calls = (tmp_path / "calls").read_text().splitlines()
    assert calls == ["umount -f -- /mnt/x", "fusermount3 -u -- /mnt/x"][: 1 if ended else 2]


def test_users_of_a_directory(tmp_path: Path) -> None:
    (tmp_path / "mnt").mkdir()
    assert users_of(tmp_path / "mnt") == []
    with (tmp_path / "mnt" / "file").open("w"):
        (user,) = users_of(tmp_path / "mnt")
        assert user.endswith(f"({os.getpid()})")
        assert users_of(tmp_path / "mn") == []  # another directory


def test_a_process_that_ends_while_users_are_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = SimpleNamespace(pid=1 << 22, info={"name": "true"})  # no pid is so large
    monkeypatch.setattr(psutil, "process_iter", lambda _attributes: [ended])
    assert users_of(tmp_path) == []


def test_which_process_serves_a_mount() -> None:
    table = [
        (1, ["init"]),
        (2, ["python", "-P", "-m", "dfsmount", "h:1", "/mnt/x"]),
        (3, ["python", "-m", "dfsmount", "h:1", "/mnt/y", "-o", "ro"]),
        (4, ["vi", "-m", "dfsmount"]),
    ]
    assert mount_process(Path("/mnt/y"), table) == 3
    assert mount_process(Path("/mnt"), table) == 0
    assert mount_process(Path("/mnt/nobody serves this")) == 0
