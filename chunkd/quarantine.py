"""The quarantine of one data directory: chunk files found bad, and what they are still good for.

The store moves files here.  They are never served as they are: a range is read, checked block by
block, and given out only when all of it is right.  So a file whose last copy has one rotten block
loses 64 KiB, not the whole chunk.  What is here is deleted when it is old (or takes too much room)
and metad says that nothing depends on it (chunkd/emptying.py); the last evidence never is.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from chunkd.chunkfile import check_blocks
from chunkd.filesystem import FileSystem
from chunkd.layout import chunk_of
from chunkd.openchunk import OpenChunk
from chunkd.storage import StoredRange
from dfswire.errors import CorruptChunk, WrongVersion
from dfswire.messages import BLOCK_SIZE_BYTES, CHUNK_MAX_BYTES

log = logging.getLogger(__name__)

CONTENT_MAX_BYTES = CHUNK_MAX_BYTES + (1 << 20)  # an oversized file is not read to its end


class Quarantine:
    """Files named HEX.TIME; the names are kept in memory, for there are few."""

    def __init__(self, root: Path, files: FileSystem, wall: Callable[[], float]) -> None:
        self._root = root
        self._files = files
        self._wall = wall
        self._copies: dict[bytes, dict[Path, int]] = {}  # chunk -> file -> size
        self.size_bytes = 0

    def load(self) -> None:
        """What an earlier process left here."""
        self._copies.clear()
        self.size_bytes = 0
        for name in sorted(self._files.names(self._root)):
            chunk = chunk_of(name.partition(".")[0])
            if chunk is not None:
                self.added(chunk, self._root / name)

    def __len__(self) -> int:
        return sum(len(copies) for copies in self._copies.values())

    def __contains__(self, chunk: bytes) -> bool:
        return chunk in self._copies

    def new_path(self, chunk: bytes) -> Path:
        """Where a bad file goes."""
        return self._root / f"{chunk.hex()}.{self._wall():.6f}"

    def added(self, chunk: bytes, path: Path) -> None:
        """A file was moved here."""
        size = self._files.stat(path).size_bytes
        self._copies.setdefault(chunk, {})[path] = size
        self.size_bytes += size

    def read(self, chunk: bytes, offset: int, length: int) -> StoredRange:
        """A range that is right in some file here.  Raises CorruptChunk, Invalid."""
        for path in list(self._copies.get(chunk, ())):
            try:
                return self._read_checked(path, chunk, offset, length)
            except (CorruptChunk, WrongVersion, OSError) as problem:
                log.debug("%s does not help: %s", path, problem)
        raise CorruptChunk(f"chunk {chunk.hex()} is damaged in {offset}+{length}")

    def _read_checked(self, path: Path, chunk: bytes, offset: int, length: int) -> StoredRange:
        file = OpenChunk(self._files, path)
        try:
            file.read_index(chunk)
            checksums = file.index.range_checksums(offset, length)
            data = file.read(offset, length)
            check_blocks(chunk, data, checksums, offset // BLOCK_SIZE_BYTES)
            return StoredRange(data, file.index.length, checksums)
        finally:
            file.close()

    def contents(self, chunk: bytes) -> Iterator[bytes]:
        """All files of a chunk, as far as they can be read."""
        for path in list(self._copies.get(chunk, ())):
            yield from readable(self._files, path)

    def due(self, max_age_s: float, max_bytes: int, limit: int) -> list[bytes]:
        """Chunks of which something is too old, or the oldest ones when all takes too much room."""
        excess = self.size_bytes - max_bytes
        due: dict[bytes, None] = {}
        by_age = sorted(
            (_since_s(path), chunk, size)
            for chunk, copies in self._copies.items()
            for path, size in copies.items()
        )
        for since_s, chunk, size in by_age:
            if len(due) == limit or (excess <= 0 and self._wall() - since_s <= max_age_s):
                break
            due[chunk] = None
            excess -= size
        return list(due)

    def delete(self, chunk: bytes) -> int:
        """Delete the files of a chunk; how many."""
        copies = self._copies.get(chunk, {})
        count = len(copies)
        for path in list(copies):
            self._files.unlink(path)
            self.size_bytes -= copies.pop(path)
        self._copies.pop(chunk, None)
        return count


def readable(files: FileSystem, path: Path) -> Iterator[bytes]:
    """The content of a file, with zeros where the disk does not give it; nothing if it is gone."""
    try:
        fd = files.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError as problem:
        log.debug("%s cannot be opened: %s", path, problem)
        return
    try:
        size = min(files.size(fd), CONTENT_MAX_BYTES)
        yield b"".join(_block(files, fd, at, size) for at in range(0, size, BLOCK_SIZE_BYTES))
    finally:
        files.close(fd)


def _block(files: FileSystem, fd: int, offset: int, size: int) -> bytes:
    length = min(BLOCK_SIZE_BYTES, size - offset)
    try:
        data = files.pread(fd, length, offset)
    except OSError as problem:
        log.debug("block at %d cannot be read: %s", offset, problem)
        data = b""
    return data + bytes(length - len(data))


def _since_s(path: Path) -> float:
    """When it came here, by its name; 0 when a person has put it here."""
    try:
        return float(path.name.partition(".")[2])
    except ValueError:
        return 0.0
