"""The system calls that the chunk store makes, as one object.

This is a seam: ChunkStore and the identity files go through it, and tests put a file system here
that stops after each single step, forgets what was not fsynced, or answers EIO.  It promises
nothing of its own; every method is the system call of that name and raises OSError.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

Buffers = Sequence[bytes | bytearray | memoryview]


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
