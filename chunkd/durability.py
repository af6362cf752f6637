"""Which chunks are safely on disk, and making them so.

The store hands over the open descriptor of every chunk written without fsync.  It stays open until
the fsync, because a descriptor that was open when write-back failed is certain to report it, while
one opened later may find the error already forgotten.  A failed fsync is never repeated: after it
the kernel has dropped the dirty pages, and a second one would succeed without the data.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterable
from pathlib import Path

from chunkd.filesystem import FileSystem
from chunkd.layout import Layout

log = logging.getLogger(__name__)

Discard = Callable[[bytes, OSError], None]


class Durability:
    """The durability of the chunk files of one data directory.  Used from several threads."""

    def __init__(self, layout: Layout, files: FileSystem) -> None:
        self._layout = layout
        self._files = files
        self._pending: dict[bytes, int] = {}
        self._pending_lock = threading.Lock()
        # A directory stands here when its name, and those above it, were fsynced by this process.
        self._durable_directories: set[Path] = set()
        # One fsync of a file at a time: a second descriptor would not see the first one's error.
        self._sync_lock = threading.Lock()

    def keep(self, chunk: bytes, fd: int) -> None:
        """This chunk was stored, not synced.  Takes over the descriptor."""
        with self._pending_lock:
            self._pending[chunk] = fd

    def forget(self, chunk: bytes) -> None:
        """The chunk's file was deleted or set aside."""
        if (fd := self._take(chunk)) is not None:
            self._files.close(fd)

    def pending(self) -> list[bytes]:
        """The chunks stored and not yet synced, oldest first."""
        with self._pending_lock:
            return list(self._pending)

    @property
    def backlog(self) -> int:
        """How many are pending."""
        return len(self._pending)

    def new_directory(self, directory: Path) -> None:
        """This directory was just made: its name is not durable."""
        self._durable_directories.discard(directory)

    def sync_directory(self, directory: Path) -> None:
        """Make the names in a directory of chunks durable, and the directory's own name."""
        self._files.fsync_directory(directory)
        if directory not in self._durable_directories:
            self._files.fsync_directory(directory.parent)
            self._files.fsync_directory(self._layout.chunks)
            self._durable_directories.add(directory)

    def sync(self, chunks: Iterable[bytes], discard: Discard) -> tuple[list[bytes], list[bytes]]:
        """Make chunks durable; (failed, missing).  `discard` is called for each lost one."""
        failed: list[bytes] = []
        missing: list[bytes] = []
        by_directory: dict[Path, list[bytes]] = {}
        with self._sync_lock:
            for chunk in chunks:
                try:
                    fd = self._descriptor(chunk)
                except FileNotFoundError:
                    missing.append(chunk)
                except OSError as problem:  # too many open files: says nothing about the data
                    log.warning("chunk %s could not be synced: %s", chunk.hex(), problem)
                    failed.append(chunk)
                else:
                    if self._sync_file(chunk, fd, discard):
                        by_directory.setdefault(self._layout.directory(chunk), []).append(chunk)
                    else:
                        failed.append(chunk)
            for directory, members in by_directory.items():
                try:
                    self.sync_directory(directory)
                except OSError as problem:
                    failed += members
                    for chunk in members:
                        discard(chunk, problem)
        return failed, missing

    def _sync_file(self, chunk: bytes, fd: int, discard: Discard) -> bool:
        """Once, and never again: see the module's text."""
        try:
            self._files.fsync(fd)
        except OSError as problem:
            discard(chunk, problem)
            return False
        finally:
            self._files.close(fd)
        return True

    def close(self) -> None:
        """Close what is still open; nothing becomes durable by it."""
        for chunk in self.pending():
            self.forget(chunk)

    def _descriptor(self, chunk: bytes) -> int:
        fd = self._take(chunk)
        if fd is None:
            # Stored by an earlier process, or synced before: then this costs next to nothing.
            fd = self._files.open(self._layout.file(chunk), os.O_RDONLY)
        return fd

    def _take(self, chunk: bytes) -> int | None:
        with self._pending_lock:
            return self._pending.pop(chunk, None)
