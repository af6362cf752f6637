"""MemoryChunkStore: a chunk store on a simulated disk, for clusters in one process.

It passes the same suite as the real one (tests/suites/chunkstore.py).  Beyond that it can lose what
was not synced (`crash`), damage what it holds, run full, and fail an fsync.  Sizes and errors are
those of real chunk files, because damage is done to the same bytes: payload, index, footer.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping

from chunkd import chunkfile
from chunkd.diskhealth import DiskHealth
from chunkd.layout import UNSURE, Leaf
from chunkd.scrubnote import ScrubNote
from chunkd.storage import StoredRange, SyncOutcome
from chunkd.tally import Tally
from dfswire.errors import CorruptChunk, DiskFailed, Exists, NoSpace, UnknownChunk
from dfswire.heartbeats import ReplicaReport
from dfswire.hosts import DiskFigures
from dfswire.messages import BLOCK_SIZE_BYTES

log = logging.getLogger(__name__)

FSYNC_FAILED = OSError(5, "Input/output error (injected)")


class MemoryFile:
    """One chunk file: what reads see, and whether a power cut leaves it."""

    def __init__(self, content: bytes, now: float) -> None:
        self.content = bytearray(content)
        self.synced = False
        self.modified = now


class MemoryChunkStore:
    """See chunkd/storage.py for what each method promises."""

    def __init__(
        self,
        disk: str,
        *,
        capacity_bytes: int = 1 << 30,
        now: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self.disk = disk
        self.capacity_bytes = capacity_bytes
        self.fsync_failures = 0
        """So many of the next fsyncs fail."""
        self.files: dict[bytes, MemoryFile] = {}
        self.quarantined: dict[bytes, MemoryFile] = {}
        self.aside: dict[bytes, MemoryFile] = {}
        self._now = now
        self._health = DiskHealth()
        self._tally = Tally()
        self._scrub = ScrubNote()

    # -- what a test does to the disk

    def crash(self) -> None:
        """Power is cut: everything that was not synced is gone, and so is all memory."""
        self.files = {chunk: file for chunk, file in self.files.items() if file.synced}
        self._health = DiskHealth()
        self._tally = Tally()
        for file in self.files.values():
            self._tally.found(len(file.content))
        self._tally.quarantined = len(self.quarantined)

    def corrupt(self, chunk: bytes, offset: int = 0) -> None:
        """Flip one bit of the chunk's file."""
        self.files[chunk].content[offset] ^= 1

    def truncate(self, chunk: bytes, size_bytes: int = 0) -> None:
        """Cut the chunk's file."""
        del self.files[chunk].content[size_bytes:]

    def drop(self, chunk: bytes) -> None:
        """The chunk's file vanishes."""
        del self.files[chunk]

    def fill(self) -> None:
        """No more space from now on."""
        self.capacity_bytes = self._used_bytes()

    def fail_fsync(self, times: int = 1) -> None:
        """The next fsyncs fail."""
        self.fsync_failures = times

    # -- the store

    @property
    def failed(self) -> bool:
        return self._health.failed

    @property
    def backlog(self) -> int:
        return len(self.unsynced())

    def write(
        self, chunk: bytes, data: bytes | bytearray | memoryview, checksums: bytes, durable: bool
    ) -> None:
        self._health.refuse_writes()
        chunkfile.check_blocks(chunk, data, checksums)
        if chunk in self.files:
            with contextlib.suppress(CorruptChunk):
                self.verify(chunk)
        if chunk not in self.files:
            self._write_new(chunk, bytes(data), checksums, durable)
        elif self.digest(chunk) != chunkfile.Index(chunk, len(data), checksums).digest:
            raise Exists(f"chunk {chunk.hex()} is already here with other content")
        elif durable and self.sync([chunk]).failed:
            raise DiskFailed("fsync failed")

    def _write_new(self, chunk: bytes, data: bytes, checksums: bytes, durable: bool) -> None:
        content = data + chunkfile.build_tail(chunk, len(data), checksums)
        if self._used_bytes() + len(content) > self.capacity_bytes:
            raise NoSpace(f"disk {self.disk} is full")
        if durable and self._fsync_fails():
            raise self._health.translate(FSYNC_FAILED, self._now())
        file = self.files[chunk] = MemoryFile(content, self._now())
        file.synced = durable
        self._tally.added(chunk, len(content))

    def open_range(self, chunk: bytes, offset: int, length: int) -> StoredRange:
        file, index = self._open(chunk, chunk not in self.files and chunk in self.quarantined)
        checksums = index.range_checksums(offset, length)
        data = bytes(file.content[offset : offset + length])
        if chunk not in self.files:
            chunkfile.check_blocks(chunk, data, checksums, offset // BLOCK_SIZE_BYTES)
        self._tally.was_read(length)
        return StoredRange(data, index.length, checksums)

    def verify(self, chunk: bytes) -> int:
        if chunk not in self.files and chunk in self.quarantined:
            raise CorruptChunk(f"chunk {chunk.hex()} was set aside as bad")
        file, index = self._open(chunk)
        try:
            chunkfile.check_blocks(chunk, file.content[: index.length], index.checksums)
        except CorruptChunk as problem:
            self.quarantine(chunk, str(problem))
            raise
        self._tally.was_read(index.length)
        return index.length

    def digest(self, chunk: bytes) -> bytes:
        return self._open(chunk)[1].digest

    def _open(self, chunk: bytes, quarantined: bool = False) -> tuple[MemoryFile, chunkfile.Index]:
        file = self.quarantined[chunk] if quarantined else self._file(chunk)
        tail = bytes(file.content[-chunkfile.TAIL_MAX_BYTES :])
        try:
            return file, chunkfile.parse_tail(chunk, len(file.content), tail)
        except CorruptChunk as problem:
            self.quarantine(chunk, str(problem))
            raise

    def _file(self, chunk: bytes) -> MemoryFile:
        if chunk not in self.files:
            raise UnknownChunk(f"not on disk {self.disk}: {chunk.hex()}")
        return self.files[chunk]

    def delete(self, chunk: bytes) -> None:
        self._file(chunk)
        self._take(chunk)

    def quarantine(self, chunk: bytes, reason: str) -> None:
        if chunk not in self.files:
            return
        self.quarantined[chunk] = self._take(chunk)
        self.quarantined[chunk].modified = self._now()
        self._tally.quarantined = len(self.quarantined)
        log.warning("chunk %s on disk %s is bad: %s", chunk.hex(), self.disk, reason)
        self._tally.report_bad(chunk, self.disk, reason)

    def set_aside(self, chunk: bytes, min_age_s: float) -> bool:
        if chunk not in self.files or self._now() - self.files[chunk].modified < min_age_s:
            return False
        self.aside[chunk] = self._take(chunk)
        self.aside[chunk].modified = self._now()
        return True

    def expire_set_aside(self, max_age_s: float) -> int:
        expired = [
            chunk for chunk, file in self.aside.items() if self._now() - file.modified > max_age_s
        ]
        for chunk in expired:
            del self.aside[chunk]
        return len(expired)

    def remains(self, chunk: bytes) -> list[bytes]:
        places = (self.files, self.aside, self.quarantined)
        return [bytes(place[chunk].content) for place in places if chunk in place]

    def quarantine_due(self, max_age_s: float, max_bytes: int, limit: int) -> list[bytes]:
        excess = sum(len(file.content) for file in self.quarantined.values()) - max_bytes
        due = []
        for chunk, file in sorted(self.quarantined.items(), key=lambda each: each[1].modified):
            if excess > 0 or self._now() - file.modified > max_age_s:
                due.append(chunk)
            excess -= len(file.content)
        return due[:limit]

    def empty_quarantine(self, chunks: Iterable[bytes]) -> int:
        found = [chunk for chunk in chunks if self.quarantined.pop(chunk, None) is not None]
        self._tally.quarantined = len(self.quarantined)
        return len(found)

    def list_chunks(self, after: bytes, limit: int) -> list[bytes]:
        return sorted(chunk for chunk in self.files if chunk > after)[:limit]

    def leaves(self, seen: Mapping[bytes, Leaf]) -> dict[bytes, Leaf]:
        found: dict[bytes, Leaf] = {}
        for chunk in sorted(self.files):
            _, before = found.get(chunk[:2], (UNSURE, b""))
            found[chunk[:2]] = Leaf(UNSURE, before + chunk)
        return found

    def sync(self, chunks: Iterable[bytes]) -> SyncOutcome:
        outcome = SyncOutcome()
        for chunk in chunks:
            if chunk not in self.files:
                outcome.missing.append(chunk)
            elif not self.files[chunk].synced and self._fsync_fails():
                error = self._health.translate(FSYNC_FAILED, self._now())
                self.quarantine(chunk, f"lost by a failed fsync: {error}")
                outcome.failed.append(chunk)
            else:
                self.files[chunk].synced = True
        return outcome

    def unsynced(self) -> list[bytes]:
        return [chunk for chunk, file in self.files.items() if not file.synced]

    def recording(self) -> contextlib.AbstractContextManager[set[bytes]]:
        return self._tally.recording()

    def take_reports(self) -> list[ReplicaReport]:
        return self._tally.take_reports()

    def figures(self) -> DiskFigures:
        free_bytes = max(0, self.capacity_bytes - self._used_bytes())
        return self._tally.figures(
            self.disk, f"memory:{self.disk}", self.capacity_bytes, free_bytes, self.failed
        )

    def load_scrub(self) -> ScrubNote:
        return self._scrub

    def save_scrub(self, note: ScrubNote) -> None:
        self._scrub = self._tally.scrub = note

    def _take(self, chunk: bytes) -> MemoryFile:
        file = self.files.pop(chunk)
        self._tally.removed(len(file.content))
        return file

    def _used_bytes(self) -> int:
        return sum(len(file.content) for file in self.files.values())

    def _fsync_fails(self) -> bool:
        if self.fsync_failures:
            self.fsync_failures -= 1
            return True
        return False

    def content(self) -> Iterator[tuple[bytes, bytes]]:
        """Every chunk with its payload, for oracles."""
        for chunk, file in sorted(self.files.items()):
            index = self._open(chunk)[1]
            yield chunk, bytes(file.content[: index.length])


def blocks(count: float) -> int:
    """`count` blocks in bytes."""
    return int(count * BLOCK_SIZE_BYTES)
