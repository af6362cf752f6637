"""File handles as an NFS server uses them, and large directories while they change."""

from __future__ import annotations

import ctypes
import errno
import os
from pathlib import Path

import pytest

from tests.t4_mount.conftest import TwoViews
from tests.t4_mount.direct import create_names
from tests.t4_mount.harness import LiveCluster, LiveMount

# A million takes some ten minutes.
ENTRIES = int(os.environ.get("DFS_DIRECTORY_ENTRIES", "20000"))

_libc = ctypes.CDLL(None, use_errno=True)


class FileHandle(ctypes.Structure):
    """struct file_handle with room for any."""

    _fields_ = [
        ("bytes", ctypes.c_uint),
        ("type", ctypes.c_int),
        ("octets", ctypes.c_ubyte * 128),
    ]


def handle_of(path: Path) -> FileHandle:
    """name_to_handle_at(2).  Raises OSError."""
    handle = FileHandle(bytes=128)
    mount = ctypes.c_int()
    if _libc.name_to_handle_at(-100, bytes(path), ctypes.byref(handle), ctypes.byref(mount), 0):
        raise OSError(ctypes.get_errno(), "name_to_handle_at")
    return handle


def open_handle(mount: Path, handle: FileHandle, flags: int = os.O_RDONLY) -> int:
    """open_by_handle_at(2).  Raises OSError."""
    directory = os.open(mount, os.O_RDONLY)
    try:
        descriptor = _libc.open_by_handle_at(directory, ctypes.byref(handle), flags)
        if descriptor < 0:
            raise OSError(ctypes.get_errno(), "open_by_handle_at")
        return int(descriptor)
    finally:
        os.close(directory)


def test_handles_live_as_long_as_files_and_no_longer(cluster: LiveCluster, tmp_path: Path) -> None:
    mount = cluster.mount("nfs")
    try:
        place = mount.point / "exported"
        place.mkdir()
        (place / "f").write_bytes(b"data")
        (place / "d" / "below").mkdir(parents=True)
        handles = {name: handle_of(place / name) for name in ("f", "d", "d/below")}
        os.rename(place / "f", place / "d" / "g")
        mount.restart()  # as after the host of an NFS server has started again
        file = open_handle(mount.point, handles["f"])
        assert os.read(file, 10) == b"data"
        os.close(file)
        below = open_handle(mount.point, handles["d/below"])
        assert os.readlink(f"/proc/self/fd/{below}") == str(place / "d" / "below")
        assert os.stat("..", dir_fd=below).st_ino == (place / "d").stat().st_ino
        os.close(below)
        os.unlink(place / "d" / "g")
        (place / "f").write_bytes(b"another")
        mount.restart()
        with pytest.raises(OSError) as caught:
            open_handle(mount.point, handles["f"])
        assert caught.value.errno == errno.ESTALE
    finally:
        cluster.unmount(mount)


def test_a_handle_of_one_mount_is_good_on_another(views: TwoViews, mount_b: LiveMount) -> None:
    (views.a / "f").write_bytes(b"data")
    descriptor = open_handle(mount_b.point, handle_of(views.a / "f"))
    assert os.read(descriptor, 10) == b"data"
    os.close(descriptor)


def test_a_large_directory(views: TwoViews, cluster: LiveCluster) -> None:
    """Listed whole on two mounts, while a third client removes and makes names."""
    steady = [f"steady-{number:07}" for number in range(ENTRIES)]
    create_names(cluster.metad, views.a, steady)
    expected = set(steady)
    for place in (views.a, views.b):
        seen = []
        with os.scandir(place) as entries:
            for position, entry in enumerate(entries):
                seen.append(entry.name)
                if position % 1000 == 0:
                    (views.b / f"new-{position}").touch()
                    os.rename(views.b / f"new-{position}", views.b / f"moved-{position}")
                    os.unlink(views.a / f"moved-{position}")
        assert len(seen) == len(set(seen))
        assert expected <= set(seen)
    assert (views.b / steady[-1]).exists()
    assert not (views.b / "none").exists()
    os.rename(views.b / steady[0], views.b / "renamed")
    assert not (views.a / steady[0]).exists()
    assert len(os.listdir(views.a)) == ENTRIES
