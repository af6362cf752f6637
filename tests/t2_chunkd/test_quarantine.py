"""What is in quarantine is given out as far as the disk gives it, and no further."""

from __future__ import annotations

import errno
from pathlib import Path

from chunkd.filesystem import FileSystem
from chunkd.store import ChunkStore
from dfswire.messages import BLOCK_SIZE_BYTES as BLOCK
from tests.suites.chunkstore import A, ExpectLog, content, put

DATA = content(2 * BLOCK + 5)


class TiredDisk(FileSystem):
    """One that does not read some blocks any more."""

    def __init__(self) -> None:
        self.unreadable: set[int] = set()

    def pread(self, fd: int, size_bytes: int, offset: int) -> bytes:
        if offset in self.unreadable:
            raise OSError(errno.EIO, "injected")
        return super().pread(fd, size_bytes, offset)


def with_quarantined(root: Path, files: FileSystem) -> ChunkStore:
    """A store with one chunk in quarantine."""
    store = ChunkStore(root, "disk", files=files)
    store.recover()
    put(store, A, DATA)
    store.quarantine(A, "a test says so")
    return store


def test_blocks_that_cannot_be_read_are_zeros(tmp_path: Path, expect_log: ExpectLog) -> None:
    expect_log("a test says so")
    disk = TiredDisk()
    store = with_quarantined(tmp_path, disk)
    disk.unreadable = {BLOCK}
    (content,) = store.remains(A)
    assert content[: len(DATA)] == DATA[:BLOCK] + bytes(BLOCK) + DATA[2 * BLOCK :]


def test_a_file_that_somebody_took_away(tmp_path: Path, expect_log: ExpectLog) -> None:
    expect_log("a test says so")
    store = with_quarantined(tmp_path, FileSystem())
    (file,) = (tmp_path / "quarantine").iterdir()
    file.unlink()
    assert store.remains(A) == []
