"""Chunks on their way to a disk: room is looked for, a file is written, it gets its name.

The ChunkStore writes through one of these.  Order of a durable write: temporary file, data and
tail, fsync of the file, rename, fsync of the directory; a crash between any two leaves the chunk
absent or whole.  Without `durable` the open descriptor is kept for the group sync, and a power cut
may leave anything.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
from pathlib import Path

from chunkd import chunkfile
from chunkd.chunknames import ChunkNames
from chunkd.diskerrors import DiskErrors
from chunkd.durability import Durability
from chunkd.filesystem import FileSystem
from chunkd.layout import TEMPORARY, Layout
from dfswire.bodies import Octets
from dfswire.errors import DiskFailed, NoSpace

log = logging.getLogger(__name__)

RESERVE_MAX_BYTES = 64 << 20  # kept free so that deletes, journals and scrub notes still work
RESERVE_FRACTION = 0.01


class NewChunks:
    """What is being written to one data directory.  OSError is the caller's to translate."""

    def __init__(
        self,
        layout: Layout,
        files: FileSystem,
        durability: Durability,
        names: ChunkNames,
        errors: DiskErrors,
    ) -> None:
        self._layout = layout
        self._files = files
        self._durability = durability
        self._names = names
        self._errors = errors
        self._serial = itertools.count()

    def write(self, chunk: bytes, data: Octets, checksums: bytes, durable: bool) -> bool:
        """Write and publish a file; False when somebody else published the chunk meanwhile."""
        self._check_space(len(data))
        temporary, fd = self._create_temporary(chunk)
        with contextlib.ExitStack() as undo:
            undo.callback(self._files.close, fd)
            undo.callback(self._remove_temporary, temporary)
            tail = chunkfile.build_tail(chunk, len(data), checksums)
            self._files.write(fd, [data, tail])
            if durable:
                self._files.fsync(fd)
            if not self._names.publish(chunk, temporary, len(data) + len(tail)):
                return False
            undo.pop_all()
        if durable:
            self._files.close(fd)
            self._sync_name(chunk)
        else:
            self._durability.keep(chunk, fd)
        return True

    def _check_space(self, length: int) -> None:
        total_bytes, free_bytes = self._files.space(self._layout.root)
        reserve = min(RESERVE_MAX_BYTES, int(total_bytes * RESERVE_FRACTION))
        if free_bytes - length - chunkfile.tail_bytes(length) < reserve:
            raise NoSpace(f"disk {self._errors.disk} is full: {free_bytes} bytes free")

    def _create_temporary(self, chunk: bytes) -> tuple[Path, int]:
        directory = self._layout.directory(chunk)
        path = directory / f"{chunk.hex()}.{next(self._serial)}{TEMPORARY}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        try:
            return path, self._files.open(path, flags)
        except FileNotFoundError:
            self._make_directory(directory)
            return path, self._files.open(path, flags)

    def _make_directory(self, directory: Path) -> None:
        try:
            self._files.mkdir(directory.parent)
            self._files.mkdir(directory)
        except FileNotFoundError as problem:
            # Removed or unmounted under us: writing on would fill whatever disk is below.
            self._errors.record()
            raise DiskFailed(f"data directory {self._layout.chunks} is gone") from problem
        self._durability.new_directory(directory)

    def _remove_temporary(self, path: Path) -> None:
        try:
            self._files.unlink(path)
        except OSError as problem:
            log.warning("could not remove %s (done at the next start): %s", path, problem)

    def _sync_name(self, chunk: bytes) -> None:
        try:
            self._durability.sync_directory(self._layout.directory(chunk))
        except OSError as problem:
            self._names.quarantine(chunk, f"its name could not be made durable: {problem}")
            raise
