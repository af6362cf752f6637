"""The system calls that the chunk store makes, as one object.

This is a seam: ChunkStore and the identity files go through it, and tests put a file system here
that stops after each single step, forgets what was not fsynced, or answers EIO.  It promises
nothing of its own; every method is the system call of that name (or nearly) and raises OSError.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from chunkd.figures import filesystem_of
from chunkd.pagecache import load_into_page_cache
from dfswire.bodies import FileRange, Octets

Buffers = Sequence[bytes | bytearray | memoryview]


class Facts(NamedTuple):
    """What the store asks of stat(2)."""

    size_bytes: int
    modified_s: float  # seconds since the epoch


class Space(NamedTuple):
    """What the store asks of statvfs(3)."""

    total_bytes: int
    free_bytes: int  # for us, not for root


class FileSystem:
    """The real one."""

    def open(self, path: Path, flags: int) -> int:
        """New files are for the owner and its group only: chunks hold people's data."""
        return os.open(path, flags | os.O_CLOEXEC, 0o640)

    def write(self, fd: int, buffers: Buffers) -> None:
        """Write all of the buffers, however many calls that takes."""
        pending = [memoryview(buffer) for buffer in buffers]
        while pending:
            written = os.writev(fd, pending)
            while pending and written >= len(pending[0]):
                written -= len(pending.pop(0))
            if pending:
                pending[0] = pending[0][written:]

    def pread(self, fd: int, size_bytes: int, offset: int) -> bytes:
        return os.pread(fd, size_bytes, offset)

    def fsync(self, fd: int) -> None:
        os.fsync(fd)

    def fsync_directory(self, path: Path) -> None:
        """Make the names in a directory durable."""
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def close(self, fd: int) -> None:
        os.close(fd)

    def rename(self, source: Path, target: Path) -> None:
        """Replaces `target`; whoever must not replace looks first, under its own lock."""
        source.rename(target)

    def unlink(self, path: Path) -> None:
        path.unlink()

    def mkdir(self, path: Path) -> None:
        """An existing directory is fine, a missing parent is not."""
        path.mkdir(mode=0o750, exist_ok=True)

    def exists(self, path: Path) -> bool:
        return path.exists()

    def stat(self, path: Path) -> Facts:
        found = path.stat()
        return Facts(found.st_size, found.st_mtime)

    def size(self, fd: int) -> int:
        return os.fstat(fd).st_size

    def set_modified(self, path: Path, at_s: float) -> None:
        os.utime(path, (at_s, at_s))

    def changed_s(self, path: Path) -> float:
        """When a name appeared in a directory, or went from it, for the last time."""
        return path.stat().st_mtime

    def names(self, path: Path) -> list[str]:
        """The names in a directory, in no order."""
        with os.scandir(path) as entries:
            return [entry.name for entry in entries]

    def space(self, path: Path) -> Space:
        """Of the file system that `path` is in."""
        found = os.statvfs(path)
        return Space(found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize)

    def name_of(self, path: Path) -> str:
        """The same text for directories of one file system."""
        return filesystem_of(path)

    def read_text(self, path: Path) -> str:
        return path.read_text(encoding="latin-1")

    def write_text(self, path: Path, text: str) -> None:
        path.write_text(text, encoding="latin-1")

    def outgoing(self, fd: int, offset: int, length: int) -> FileRange | Octets:
        """A part of a file to be sent, which stays good when `fd` is closed."""
        load_into_page_cache(fd, offset, length)
        return FileRange(os.dup(fd), offset, length)
