"""ChunkStore: the chunks in one data directory.

Blocking calls, from any thread; one process per directory (identity.py holds the lock).  A chunk
becomes visible by a rename of a complete file, never before, and never over another one: it is
there whole or not at all (newchunks.py writes, chunknames.py gives and takes names).  A chunk that
is found bad is moved to DISK/quarantine by whoever finds it, and reported; what is right in it is
still served.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from chunkd import chunkfile
from chunkd.chunknames import ChunkNames
from chunkd.diskerrors import DiskErrors
from chunkd.diskhealth import is_unreadable
from chunkd.durability import Durability
from chunkd.filesystem import FileSystem
from chunkd.layout import Layout, Leaf
from chunkd.newchunks import NewChunks
from chunkd.openchunk import OpenChunk
from chunkd.quarantine import Quarantine, readable
from chunkd.scrubnote import ScrubNote, parse_scrub
from chunkd.storage import StoredRange, SyncOutcome
from chunkd.tally import Tally
from dfswire.bodies import Octets
from dfswire.errors import CorruptChunk, DFSError, DiskFailed, Exists, UnknownChunk
from dfswire.heartbeats import ReplicaReport
from dfswire.hosts import DiskFigures

log = logging.getLogger(__name__)

UNSYNCED_MAX = 512  # descriptors held open until the next group sync
SYNC_BATCH = 64  # a caller of sync waits for at most so many files of the group sync
RECHECKED_S = 30.0  # how long before a crash the oldest chunk was stored that is not synced


class ChunkStore:
    """See chunkd/storage.py for what each method promises."""

    def __init__(
        self,
        root: Path,
        disk: str,
        *,
        files: FileSystem | None = None,
        monotonic: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.disk = disk
        self._files = files or FileSystem()
        self._layout = Layout(root, self._files)
        self._durability = Durability(self._layout, self._files)
        self._quarantine = Quarantine(self._layout.quarantine, self._files, wall)
        self._tally = Tally()
        self._wall = wall
        self._errors = DiskErrors(disk, monotonic)
        self._names = ChunkNames(
            self._layout,
            self._files,
            self._durability,
            self._quarantine,
            self._tally,
            self._errors,
            wall,
        )
        self._new = NewChunks(
            self._layout, self._files, self._durability, self._names, self._errors
        )

    def recover(self) -> None:
        """Once, before anything else: remove half-written files and count what is there.

        Walks the whole directory (measured: 20 s per million chunks, warm cache, busy machine).
        The newest chunks are read through and synced.  A power cut may have left files that were
        not synced empty or torn, which must not count as replicas until somebody reads them; and
        after the death of the process alone nobody else would sync them.
        """
        newest_s, recent = 0.0, list[tuple[float, bytes]]()
        with self._errors.translated():
            for directory in (self._layout.chunks, self._layout.quarantine, self._layout.unknown):
                self._files.mkdir(directory)
            self._files.fsync_directory(self._layout.root)
            for path in self._layout.temporaries():
                self._files.unlink(path)
            for chunk, path in self._layout.walk():
                found = self._files.stat(path)
                self._tally.found(found.size_bytes)
                newest_s = max(newest_s, found.modified_s)
                if found.modified_s >= newest_s - RECHECKED_S:
                    recent.append((found.modified_s, chunk))
            self._quarantine.load()
            self._tally.quarantined = len(self._quarantine)
        self._recheck([chunk for at_s, chunk in recent if at_s >= newest_s - RECHECKED_S])

    def _recheck(self, chunks: list[bytes]) -> None:
        for chunk in chunks:
            try:
                self.verify(chunk)
            except DFSError as problem:  # set aside and reported if it is bad
                log.info("chunk %s, stored before this start: %s", chunk.hex(), problem)
        self.sync(chunks)

    def close(self) -> None:
        """Give all descriptors back.  Call `sync(unsynced())` before."""
        self._durability.close()

    @property
    def failed(self) -> bool:
        return self._errors.health.failed

    @property
    def backlog(self) -> int:
        return self._durability.backlog

    # -- writing

    def write(self, chunk: bytes, data: Octets, checksums: bytes, durable: bool) -> None:
        self._errors.health.refuse_writes()
        if self._names.is_condemned(chunk):
            raise DiskFailed(f"chunk {chunk.hex()} is here, bad, and cannot be moved away")
        chunkfile.check_blocks(chunk, data, checksums)
        while not self._holds_same(chunk, len(data), checksums, durable):
            with self._errors.translated():
                if self._new.write(chunk, data, checksums, durable):
                    break
        if self.backlog > UNSYNCED_MAX:
            self.sync(self.unsynced()[:1])

    def _holds_same(self, chunk: bytes, length: int, checksums: bytes, durable: bool) -> bool:
        """Whether the chunk is here already, whole, with this content.  Raises Exists."""
        try:
            digest = self.digest(chunk)
            self.verify(chunk)
        except (UnknownChunk, CorruptChunk):
            return False  # gone meanwhile, or bad and set aside by now: it can be written afresh
        if digest != chunkfile.Index(chunk, length, checksums).digest:
            raise Exists(f"chunk {chunk.hex()} is already here with other content")
        return not durable or self.sync([chunk]) == SyncOutcome()

    # -- durability

    def sync(self, chunks: Iterable[bytes]) -> SyncOutcome:
        wanted = list(chunks)
        # A second fsync of what a failed one has lost would succeed; it must not be tried.
        outcome = SyncOutcome(failed=[chunk for chunk in wanted if self._names.is_condemned(chunk)])
        pending = [chunk for chunk in wanted if not self._names.is_condemned(chunk)]
        for start in range(0, len(pending), SYNC_BATCH):
            batch = pending[start : start + SYNC_BATCH]
            failed, missing = self._durability.sync(batch, self._discard)
            outcome.failed.extend(failed)
            outcome.missing.extend(missing)
        return outcome

    def unsynced(self) -> list[bytes]:
        return self._durability.pending()

    def _discard(self, chunk: bytes, problem: OSError) -> None:
        error = self._errors.translate(problem)
        self.quarantine(chunk, f"lost by a failed fsync: {error}")

    # -- reading

    def open_range(self, chunk: bytes, offset: int, length: int) -> StoredRange:
        try:
            with self._opened(chunk) as file:
                found = file.range(offset, length)
        except UnknownChunk:
            if not self._names.is_quarantined(chunk):
                raise
            found = self._quarantine.read(chunk, offset, length)
        self._tally.was_read(length)
        return found

    def digest(self, chunk: bytes) -> bytes:
        with self._opened(chunk) as file:
            return file.index.digest

    def verify(self, chunk: bytes) -> int:
        try:
            with self._opened(chunk) as file:
                file.verify()
                self._tally.was_read(file.index.length)
                return file.index.length
        except UnknownChunk as problem:
            if chunk in self._quarantine:
                raise CorruptChunk(f"chunk {chunk.hex()} was set aside as bad") from problem
            raise

    def remains(self, chunk: bytes) -> list[bytes]:
        here = (self._layout.file(chunk), self._layout.unknown / chunk.hex())
        whole = [content for path in here for content in readable(self._files, path)]
        return whole + list(self._quarantine.contents(chunk))

    @contextlib.contextmanager
    def _opened(self, chunk: bytes) -> Iterator[OpenChunk]:
        """The open file with its index checked.  What turns out bad inside is quarantined."""
        if self._names.is_condemned(chunk):
            raise UnknownChunk(f"chunk {chunk.hex()} is bad on disk {self.disk}")
        with self._errors.translated():
            file = OpenChunk(self._files, self._layout.file(chunk))
        try:
            file.read_index(chunk)
            yield file
        except CorruptChunk as problem:
            self.quarantine(chunk, str(problem))
            raise
        except OSError as problem:
            if not is_unreadable(problem):
                raise self._errors.translate(problem) from problem
            self.quarantine(chunk, f"cannot be read: {problem}")
            raise CorruptChunk(f"cannot be read: {problem}") from problem
        finally:
            file.close()

    # -- names

    def list_chunks(self, after: bytes, limit: int) -> list[bytes]:
        with self._errors.translated():
            here = (chunk for chunk, _ in self._layout.walk(after))
            found = itertools.filterfalse(self._names.is_condemned, here)
            return list(itertools.islice(found, limit))

    def leaves(self, seen: Mapping[bytes, Leaf]) -> dict[bytes, Leaf]:
        with self._errors.translated():
            return self._layout.leaves(seen, self._wall())

    def delete(self, chunk: bytes) -> None:
        self._names.delete(chunk)

    def quarantine(self, chunk: bytes, reason: str) -> None:
        self._names.quarantine(chunk, reason)

    def set_aside(self, chunk: bytes, min_age_s: float) -> bool:
        return self._names.set_aside(chunk, min_age_s)

    def expire_set_aside(self, max_age_s: float) -> int:
        return self._names.expire_set_aside(max_age_s)

    def quarantine_due(self, max_age_s: float, max_bytes: int, limit: int) -> list[bytes]:
        return self._quarantine.due(max_age_s, max_bytes, limit)

    def empty_quarantine(self, chunks: Iterable[bytes]) -> int:
        return self._names.empty_quarantine(chunks)

    # -- what others ask

    def recording(self) -> contextlib.AbstractContextManager[set[bytes]]:
        return self._tally.recording()

    def take_reports(self) -> list[ReplicaReport]:
        return self._tally.take_reports()

    def figures(self) -> DiskFigures:
        try:
            total_bytes, free_bytes = self._files.space(self._layout.root)
            filesystem = self._files.name_of(self._layout.root)
        except OSError as problem:
            log.warning("disk %s does not answer: %s", self.disk, problem)
            self._errors.health.failed = True
            total_bytes, free_bytes, filesystem = 0, 0, ""
        path = str(self._layout.root)
        return self._tally.figures(
            self.disk, path, total_bytes, free_bytes, self._errors.health.failed, filesystem
        )

    def load_scrub(self) -> ScrubNote:
        with self._errors.translated():
            try:
                text = self._files.read_text(self._layout.scrub)
            except FileNotFoundError:
                return ScrubNote()
        note = parse_scrub(text)
        self._tally.scrub = note
        return note

    def save_scrub(self, note: ScrubNote) -> None:
        with self._errors.translated():
            self._files.write_text(self._layout.scrub, note.text)
        self._tally.scrub = note
