"""Data directories: made once, held by one process, never mixed up."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from chunkd.filesystem import Buffers, FileSystem
from chunkd.identity import ServerIdentity, claim
from dfswire.errors import AlreadyRunning, UsageError, WrongCluster, WrongVersion


def start(*roots: Path) -> tuple[str, list[str], int, str]:
    """Claim and release: what a start of the server finds."""
    directories = claim(roots)
    directories.release()
    return (
        directories.server_id,
        directories.disks,
        directories.incarnation,
        directories.cluster_id,
    )


def test_a_fresh_server_gets_an_identity_and_keeps_it(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    server, disks, incarnation, cluster = start(one, two)
    assert (len(set(disks)), incarnation, cluster) == (2, 1, "")
    assert start(one, two) == (server, disks, 2, "")
    assert start(two, one) == (server, disks[::-1], 3, "")


def test_a_disk_can_be_added(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    server, disks, _, _ = start(one)
    again, more, incarnation, _ = start(one, two)
    assert (again, more[:1], incarnation) == (server, disks, 2)


def test_the_cluster_is_remembered_on_all_disks(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    directories = claim([one, two])
    directories.adopt("c1")
    directories.adopt("c1")
    directories.release()
    assert start(two)[3] == "c1"
    with claim_released([one]) as server, pytest.raises(WrongCluster, match="c1"):
        server.adopt("c2")


class claim_released:
    """`claim` for a with statement."""

    def __init__(self, roots: list[Path]) -> None:
        self._directories = claim(roots)

    def __enter__(self) -> ServerIdentity:
        return self._directories

    def __exit__(self, *exception: object) -> None:
        self._directories.release()


def test_a_second_process_is_refused(tmp_path: Path) -> None:
    with claim_released([tmp_path / "one"]), pytest.raises(AlreadyRunning, match="one"):
        claim([tmp_path / "two", tmp_path / "one"])
    start(tmp_path / "two", tmp_path / "one")


def test_disks_of_different_servers_are_refused(tmp_path: Path) -> None:
    start(tmp_path / "one")
    start(tmp_path / "two")
    with pytest.raises(WrongCluster, match="different servers"):
        claim([tmp_path / "one", tmp_path / "two"])


def test_a_copied_directory_is_refused(tmp_path: Path) -> None:
    start(tmp_path / "one")
    (tmp_path / "two").mkdir()
    (tmp_path / "two" / "identity").write_bytes((tmp_path / "one" / "identity").read_bytes())
    with pytest.raises(WrongCluster, match="copy"):
        claim([tmp_path / "one", tmp_path / "two"])


def test_a_foreign_directory_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "holiday.jpg").write_bytes(b"precious")
    with pytest.raises(UsageError, match=r"holiday\.jpg"):
        claim([tmp_path])
    assert not (tmp_path / "identity").exists()


def test_an_empty_file_system_with_lost_found_is_fine(tmp_path: Path) -> None:
    (tmp_path / "lost+found").mkdir()
    start(tmp_path)


def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    start(tmp_path)
    identity = json.loads((tmp_path / "identity").read_text())
    (tmp_path / "identity").write_text(json.dumps(identity | {"format": 2}))
    with pytest.raises(WrongVersion, match="format 2"):
        claim([tmp_path])


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"format": 1}'])
def test_a_damaged_identity_is_refused(tmp_path: Path, text: str) -> None:
    start(tmp_path)
    (tmp_path / "identity").write_text(text)
    with pytest.raises(UsageError, match="cannot be read"):
        claim([tmp_path])


def test_a_directory_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UsageError, match="cannot use"):
        claim([tmp_path / "file" / "below"])


def test_a_broken_disk_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, expect_log: Callable[[str], None]
) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    server, disks, _, _ = start(one, two)
    open_file = os.open

    def fail(path: Path, *arguments: int) -> int:
        if path.parent in broken:
            raise OSError(errno.EROFS, "Read-only file system")
        return open_file(path, *arguments)

    monkeypatch.setattr(os, "open", fail)
    expect_log("(one|two) is left out")
    broken = [two]
    assert start(one, two)[:2] == (server, disks[:1])
    broken.append(one)
    with pytest.raises(UsageError, match="all their disks"):
        claim([one, two])
    broken.clear()
    assert start(one, two)[:2] == (server, disks)


def test_an_identity_that_cannot_be_written(tmp_path: Path) -> None:
    class Full(FileSystem):
        def write(self, fd: int, buffers: Buffers) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(UsageError, match="No space"):
        claim([tmp_path], files=Full())
    start(tmp_path)


def test_an_identity_in_memory() -> None:
    identity = ServerIdentity("server", 1)
    identity.adopt("c1")
    with pytest.raises(WrongCluster):
        identity.adopt("c2")


def test_a_ballast_that_was_not_finished_is_room_too(
    tmp_path: Path, expect_log: Callable[[str], None]
) -> None:
    """The server died between giving it up and having it again, and the disk is full."""
    start(tmp_path)
    (tmp_path / "ballast").rename(tmp_path / "ballast.tmp")
    expect_log("its ballast is given up")
    claim([tmp_path], files=FullDisk(0)).release()
    assert (tmp_path / "ballast").exists() and not (tmp_path / "ballast.tmp").exists()


class FullDisk(FileSystem):
    """A disk on which nothing has room but what was there, and what that gives up."""

    def __init__(self, room_bytes: int) -> None:
        self.room_bytes = room_bytes

    def write(self, fd: int, buffers: Buffers) -> None:
        size = sum(map(len, buffers))
        if size > self.room_bytes:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.room_bytes -= size
        super().write(fd, buffers)

    def rename(self, source: Path, target: Path) -> None:
        if target.exists():
            self.room_bytes += target.stat().st_size
        super().rename(source, target)

    def unlink(self, path: Path) -> None:
        self.room_bytes += path.stat().st_size
        super().unlink(path)


def test_a_server_starts_on_a_full_disk(tmp_path: Path, expect_log: Callable[[str], None]) -> None:
    """Again and again, though somebody else takes what was given up."""
    start(tmp_path)
    expect_log("its ballast is given up")
    disk = FullDisk(0)
    for incarnation in range(2, 5):
        directories = claim([tmp_path], files=disk)
        directories.release()
        assert directories.incarnation == incarnation
        assert (tmp_path / "ballast").exists()
    expect_log("no room for the ballast")
    disk.room_bytes = -1000
    claim([tmp_path], files=disk).release()
    assert not (tmp_path / "ballast").exists()
    with pytest.raises(UsageError, match="No space left"):
        claim([tmp_path], files=FullDisk(0))
    claim([tmp_path], files=FullDisk(100_000)).release()
    assert (tmp_path / "ballast").stat().st_size == 65536
    assert start(tmp_path)[2] == 7
