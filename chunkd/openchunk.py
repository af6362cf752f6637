"""One chunk file, open for reading.

Used by store.py and quarantine.py.  The index is checked when the file is opened; `verify` checks
the payload, and `range` hands a part of it to sendfile unread, for its reader to check.
"""

from __future__ import annotations

import os
from pathlib import Path

from chunkd import chunkfile
from chunkd.filesystem import FileSystem
from chunkd.storage import StoredRange
from dfswire.messages import BLOCK_SIZE_BYTES

_PIECE_BYTES = 16 * BLOCK_SIZE_BYTES


class OpenChunk:
    """Raises OSError, and what parse_tail raises."""

    def __init__(self, files: FileSystem, path: Path) -> None:
        self._files = files
        self._fd = files.open(path, os.O_RDONLY | os.O_NOFOLLOW)
        self.index = chunkfile.Index(b"", 0, b"")

    def read_index(self, chunk: bytes) -> None:
        """Before everything else: read and check index and footer."""
        size = self._files.size(self._fd)
        start = max(0, size - chunkfile.TAIL_MAX_BYTES)
        tail = self._files.pread(self._fd, size - start, start)
        self.index = chunkfile.parse_tail(chunk, size, tail)

    def range(self, offset: int, length: int) -> StoredRange:
        """Bytes to send, with a descriptor of their own.  Raises Invalid."""
        checksums = self.index.range_checksums(offset, length)
        body = self._files.outgoing(self._fd, offset, length)
        return StoredRange(body, self.index.length, checksums)

    def read(self, offset: int, length: int) -> bytes:
        """These bytes, unchecked; fewer where the file ends."""
        return self._files.pread(self._fd, length, offset)

    def verify(self) -> None:
        """Read the payload through.  Raises CorruptChunk, naming the first bad block."""
        for offset in range(0, self.index.length, _PIECE_BYTES):
            size = min(_PIECE_BYTES, self.index.length - offset)
            data = self._files.pread(self._fd, size, offset)
            checksums = self.index.range_checksums(offset, size)
            chunkfile.check_blocks(self.index.chunk, data, checksums, offset // BLOCK_SIZE_BYTES)

    def close(self) -> None:
        self._files.close(self._fd)
