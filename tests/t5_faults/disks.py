"""Small disks that can be treated as badly as real ones: file systems in files, loop-mounted.

A power cut is one system call: the file system forgets what its journal has not on disk, and
refuses everything from then on, as if the disk were gone; mounted again, it is what a host finds
after the power came back.  Damage goes into the backing file, below every cache.  The name of a
backing file holds the pid of its owner, so that `sweep` can clear up after a run that was killed.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import shutil
import struct
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from dfsmount.cli.processes import recall, stop

MIB = 1 << 20
BLOCK = 4096
SHUTDOWN = 0x8004_587D  # _IOR('X', 125, __u32): ext4, xfs and f2fs agree on it
WITHOUT_LOG = struct.pack("I", 2)  # nothing is flushed, not even the journal
BUSY_S = 5.0
SIZE_MIN = {"ext4": 16 * MIB, "xfs": 300 * MIB}
INODE_PER_BYTES = 1 << 16  # a chunk of a small file has a directory of its own
LARGE_BYTES = 1 << 30
IMAGE = re.compile(r"dfs-disk-(\d+)-.*\.img")


def run(*words: str | Path, stdin: str | None = None) -> str:
    """A command that must work; what it printed."""
    done = subprocess.run(list(map(str, words)), capture_output=True, text=True, input=stdin)
    assert done.returncode == 0, f"{' '.join(map(str, words))}: {done.stderr or done.stdout}"
    return done.stdout


class Disk:
    """One file system in a file, mounted on `point`."""

    def __init__(
        self, point: Path, size_bytes: int, kind: str = "ext4", options: str = "loop"
    ) -> None:
        self.point = point
        self.kind = kind
        self._options = options
        self.image = point.parent / f"dfs-disk-{os.getpid()}-{point.name}.img"
        self.size_bytes = max(size_bytes, SIZE_MIN[kind])
        point.mkdir(parents=True, exist_ok=True)
        self._format()
        self.mount()

    def _format(self) -> None:
        with self.image.open("wb") as file:
            file.truncate(self.size_bytes)
        if self.kind == "ext4":
            inodes = max(8192, self.size_bytes // INODE_PER_BYTES)
            journal = 4 if self.size_bytes < LARGE_BYTES else 64  # MiB
            words = ["-m", "0", "-J", f"size={journal}", "-N", str(inodes)]
            run("mkfs.ext4", "-q", *words, self.image)
        else:
            run("mkfs.xfs", "-q", self.image)

    def mount(self) -> None:
        """As after a boot: the journal is replayed."""
        run("mount", "-o", self._options, self.image, self.point)

    def unmount(self) -> None:
        """Who looks at all file systems just now (df, monitoring) is in the way for a moment."""
        deadline = time.monotonic() + BUSY_S
        while self.mounted:
            try:
                run("umount", self.point)
            except AssertionError as problem:
                if "target is busy" not in str(problem) or time.monotonic() > deadline:
                    raise
                time.sleep(0.05)

    @property
    def mounted(self) -> bool:
        return str(self.point) in (each.split()[1] for each in mount_table())

    def cut(self) -> None:
        """The power goes, or the cable: what is not on the disk now will never be."""
        handle = os.open(self.point, os.O_RDONLY)
        try:
            fcntl.ioctl(handle, SHUTDOWN, WITHOUT_LOG)
        finally:
            os.close(handle)

    def return_after_cut(self) -> None:
        """Mounted again; nobody may have a file of it open."""
        self.unmount()
        self.mount()

    @contextlib.contextmanager
    def full(self) -> Iterator[None]:
        """Inside, there is no room for one more byte."""
        filler = self.point / "filler"
        with filler.open("wb", buffering=0) as file:
            left_bytes = os.statvfs(self.point).f_bavail * BLOCK
            while left_bytes >= BLOCK:
                try:
                    os.posix_fallocate(file.fileno(), os.fstat(file.fileno()).st_size, left_bytes)
                except OSError as problem:  # metadata takes a little of it
                    if problem.errno != errno.ENOSPC:
                        raise
                    left_bytes //= 2
            os.fsync(file.fileno())
        try:
            yield
        finally:
            filler.unlink()

    @contextlib.contextmanager
    def without_inodes(self) -> Iterator[None]:
        """Inside, there is room for bytes, but not for one more file (ext4)."""
        crowd = self.point / "crowd"
        crowd.mkdir()
        made = 0
        try:
            try:
                while True:
                    (crowd / str(made)).touch()
                    made += 1
            except OSError as problem:
                if problem.errno != errno.ENOSPC:
                    raise
            yield
        finally:
            shutil.rmtree(crowd)

    # -- damage below the file system

    def extents_of(self, path: Path) -> list[tuple[int, int, int]]:
        """Where a file's bytes are: (offset in the file, offset in the image, length)."""
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)  # delayed allocation: the blocks are chosen when they are written
        finally:
            os.close(handle)
        lines = run("filefrag", "-v", "-b1", path).splitlines()
        found = []
        for line in lines:
            numbers = re.match(r"\s*\d+:\s*(\d+)\.\.\s*\d+:\s*(\d+)\.\.\s*\d+:\s*(\d+):", line)
            if numbers:
                logical, physical, length = map(int, numbers.groups())
                found.append((logical, physical, length))
        return found

    def place_of(self, path: Path, offset: int) -> int:
        """The position in the image of one byte of a file."""
        for logical, physical, length in self.extents_of(path):
            if logical <= offset < logical + length:
                return physical + offset - logical
        raise AssertionError(f"{path} has no block at {offset}")

    def flip(self, path: Path, offset: int, bit: int = 0) -> None:
        """One bit of a file turns over on the disk, and no cache knows better."""
        self.overwrite(path, offset, bytes([path.read_bytes()[offset] ^ (1 << bit)]))

    def overwrite(self, path: Path, offset: int, data: bytes) -> None:
        """Other bytes are on the disk; they must not reach over the end of a block."""
        place = self.place_of(path, offset)
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
            with self.image.open("r+b") as image:
                image.seek(place)
                image.write(data)
            self._forget_image()
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
            assert os.pread(handle, len(data), offset) == data, "a cache still has the old bytes"
        finally:
            os.close(handle)

    def _forget_image(self) -> None:
        run("blockdev", "--flushbufs", self.device)

    @property
    def device(self) -> str:
        """The loop device."""
        return next(each.split()[0] for each in mount_table() if each.split()[1] == str(self.point))

    def cut_short(self, size_bytes: int) -> None:
        """From now on reads behind `size_bytes` answer EIO."""
        os.truncate(self.image, size_bytes)
        self._forget_image()

    def renew(self, *keep: str) -> None:
        """A new file system in its place, empty but for the files to `keep`.  Nobody uses it."""
        kept = {name: (self.point / name).read_bytes() for name in keep}
        self.unmount()
        self._format()
        self.mount()
        for name, data in kept.items():
            (self.point / name).write_bytes(data)

    def snapshot(self) -> Path:
        """A copy of the disk as it is now; nothing may write meanwhile."""
        run("sync", "-f", self.point)
        copy = self.image.with_suffix(".snapshot")
        run("cp", "--sparse=always", self.image, copy)
        return copy

    def roll_back(self, copy: Path) -> None:
        """The disk is again what it was when `copy` was taken.  It must not be in use."""
        self.unmount()
        run("cp", "--sparse=always", copy, self.image)
        self.mount()

    def close(self, *, keep: bool = False) -> None:
        """Unmount, whatever uses it, and remove the image."""
        if self.mounted:
            run("umount", "-l", self.point)
        if not keep:
            self.image.unlink(missing_ok=True)


def mount_table() -> list[str]:
    return Path("/proc/self/mounts").read_text().splitlines()


def sweep() -> None:
    """End the clusters of runs that were killed: their daemons, then their disks."""
    for line in run("losetup", "--list", "--noheadings", "--output", "NAME,BACK-FILE").splitlines():
        device, _, image = line.strip().partition(" ")
        owner = IMAGE.search(image)
        if owner is None or Path(f"/proc/{owner[1]}").exists():
            continue
        for pid_file in (Path(image.strip()).parents[1] / "run").glob("*.pid"):
            if identity := recall(pid_file):
                stop(identity, grace_s=0.0)
        for mount in mount_table():
            if mount.split()[0] == device:
                run("umount", "-l", mount.split()[1])
