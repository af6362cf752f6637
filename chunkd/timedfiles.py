"""The system calls of one disk, with a watch: how long each took, and how many failed.

For `/metrics`.  Readers get chunks by sendfile, past this; what stands here under "read" are
indexes, scrubs and copies.
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from chunkd.filesystem import Buffers, FileSystem
from dfswire.metrics import Durations

__all__ = ["TimedFileSystem"]


class TimedFileSystem(FileSystem):
    """The real one, of the directory `path`."""

    def __init__(self, path: str, durations: Durations, errors: Counter[tuple[str, str]]) -> None:
        self._path = path
        self._durations = durations
        self._errors = errors

    @contextlib.contextmanager
    def _watched(self, operation: str) -> Iterator[None]:
        began_s = time.perf_counter()
        try:
            yield
        except OSError:
            self._errors[self._path, operation] += 1
            raise
        finally:
            self._durations.add((self._path, operation), time.perf_counter() - began_s)

    def write(self, fd: int, buffers: Buffers) -> None:
        with self._watched("write"):
            super().write(fd, buffers)

    def pread(self, fd: int, size_bytes: int, offset: int) -> bytes:
        with self._watched("read"):
            return super().pread(fd, size_bytes, offset)

    def fsync(self, fd: int) -> None:
        with self._watched("fsync"):
            super().fsync(fd)

    def fsync_directory(self, path: Path) -> None:
        with self._watched("fsync_directory"):
            super().fsync_directory(path)
