"""ChunkStore: the chunks in one data directory.

Blocking calls, from any thread; one process per directory (identity.py holds the lock).  A chunk
becomes visible by a rename of a complete file, never before, and never over another one.  Order of
a durable write: temporary file, data and tail, fsync of the file, rename, fsync of the directory,
answer; a crash between any two leaves the chunk absent or whole.  A chunk that is found bad is
moved to DISK/quarantine by whoever finds it, and reported; what is right in it is still served.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from chunkd import chunkfile
from chunkd.diskhealth import DiskHealth, is_unreadable
from chunkd.durability import Durability
from chunkd.filesystem import FileSystem
from chunkd.layout import TEMPORARY, Layout, Leaf, chunk_of
from chunkd.openchunk import OpenChunk
from chunkd.quarantine import Quarantine, readable
from chunkd.storage import ScrubNote, StoredRange, SyncOutcome
from chunkd.tally import Tally
from dfswire.errors import CorruptChunk, DFSError, DiskFailed, Exists, NoSpace, UnknownChunk
from dfswire.heartbeats import ReplicaReport
from dfswire.hosts import DiskFigures

log = logging.getLogger(__name__)

RESERVE_MAX_BYTES = 64 << 20  # kept free so that deletes, journals and scrub notes still work
RESERVE_FRACTION = 0.01
UNSYNCED_MAX = 512  # descriptors held open until the next group sync
SYNC_BATCH = 64  # a caller of sync waits for at most so many files of the group sync
RECHECKED_S = 30.0  # how long before a crash the oldest chunk was stored that is not synced

Data = bytes | bytearray | memoryview


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
        self._health = DiskHealth()
        self._monotonic = monotonic
        self._wall = wall
        self._names_lock = threading.Lock()  # look for a name, then rename, delete or set aside
        self._condemned: set[bytes] = set()  # bad, and could not even be moved away
        self._tally = Tally()
        self._serial = itertools.count()

    def recover(self) -> None:
        """Once, before anything else: remove half-written files and count what is there.

        Walks the whole directory (measured: 20 s per million chunks, warm cache, busy machine).
        The newest chunks are read through and synced.  A power cut may have left files that were
        not synced empty or torn, which must not count as replicas until somebody reads them; and
        after the death of the process alone nobody else would sync them.
        """
        newest_s, recent = 0.0, list[tuple[float, bytes]]()
        with self._translated():
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
        return self._health.failed

    @property
    def backlog(self) -> int:
        return self._durability.backlog

    # -- writing

    def write(self, chunk: bytes, data: Data, checksums: bytes, durable: bool) -> None:
        self._health.refuse_writes()
        if chunk in self._condemned:
            raise DiskFailed(f"chunk {chunk.hex()} is here, bad, and cannot be moved away")
        chunkfile.check_blocks(chunk, data, checksums)
        while not self._holds_same(chunk, len(data), checksums, durable):
            with self._translated():
                if self._write_new(chunk, data, checksums, durable):
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

    def _write_new(self, chunk: bytes, data: Data, checksums: bytes, durable: bool) -> bool:
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
            if not self._publish(chunk, temporary, len(data) + len(tail)):
                return False
            undo.pop_all()
        if durable:
            self._files.close(fd)
            self._sync_name(chunk)
        else:
            self._durability.keep(chunk, fd)
        return True

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
            self._health.record(self._monotonic())
            raise DiskFailed(f"data directory {self._layout.chunks} is gone") from problem
        self._durability.new_directory(directory)

    def _publish(self, chunk: bytes, temporary: Path, size_bytes: int) -> bool:
        final = self._layout.file(chunk)
        with self._names_lock:
            if self._files.exists(final):
                return False
            self._files.rename(temporary, final)
            self._condemned.discard(chunk)
            self._tally.added(chunk, size_bytes)
        return True

    def _sync_name(self, chunk: bytes) -> None:
        try:
            self._durability.sync_directory(self._layout.directory(chunk))
        except OSError as problem:
            self.quarantine(chunk, f"its name could not be made durable: {problem}")
            raise

    def _remove_temporary(self, path: Path) -> None:
        try:
            self._files.unlink(path)
        except OSError as problem:
            log.warning("could not remove %s (done at the next start): %s", path, problem)

    def _check_space(self, length: int) -> None:
        total_bytes, free_bytes = self._files.space(self._layout.root)
        reserve = min(RESERVE_MAX_BYTES, int(total_bytes * RESERVE_FRACTION))
        if free_bytes - length - chunkfile.tail_bytes(length) < reserve:
            raise NoSpace(f"disk {self.disk} is full: {free_bytes} bytes free")

    # -- durability

    def sync(self, chunks: Iterable[bytes]) -> SyncOutcome:
        wanted = list(chunks)
        # A second fsync of what a failed one has lost would succeed; it must not be tried.
        outcome = SyncOutcome(failed=[chunk for chunk in wanted if chunk in self._condemned])
        pending = [chunk for chunk in wanted if chunk not in self._condemned]
        for start in range(0, len(pending), SYNC_BATCH):
            batch = pending[start : start + SYNC_BATCH]
            failed, missing = self._durability.sync(batch, self._discard)
            outcome.failed.extend(failed)
            outcome.missing.extend(missing)
        return outcome

    def unsynced(self) -> list[bytes]:
        return self._durability.pending()

    def _discard(self, chunk: bytes, problem: OSError) -> None:
        error = self._health.translate(problem, self._monotonic())
        self.quarantine(chunk, f"lost by a failed fsync: {error}")

    # -- reading

    def open_range(self, chunk: bytes, offset: int, length: int) -> StoredRange:
        try:
            with self._opened(chunk) as file:
                found = file.range(offset, length)
        except UnknownChunk:
            with self._names_lock:  # nobody is just moving it there
                is_damaged = chunk in self._quarantine
            if not is_damaged:
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
        if chunk in self._condemned:
            raise UnknownChunk(f"chunk {chunk.hex()} is bad on disk {self.disk}")
        with self._translated():
            file = OpenChunk(self._files, self._layout.file(chunk))
        try:
            file.read_index(chunk)
            yield file
        except CorruptChunk as problem:
            self.quarantine(chunk, str(problem))
            raise
        except OSError as problem:
            if not is_unreadable(problem):
                raise self._health.translate(problem, self._monotonic()) from problem
            self.quarantine(chunk, f"cannot be read: {problem}")
            raise CorruptChunk(f"cannot be read: {problem}") from problem
        finally:
            file.close()

    # -- names

    def list_chunks(self, after: bytes, limit: int) -> list[bytes]:
        with self._translated():
            found = (chunk for chunk, _ in self._layout.walk(after) if chunk not in self._condemned)
            return list(itertools.islice(found, limit))

    def leaves(self, seen: Mapping[bytes, Leaf]) -> dict[bytes, Leaf]:
        with self._translated():
            return self._layout.leaves(seen, self._wall())

    def delete(self, chunk: bytes) -> None:
        # No fsync: should a power cut bring the file back, metad calls it unknown (inventory.py).
        path = self._layout.file(chunk)
        with self._translated(), self._names_lock:
            size = self._files.stat(path).size_bytes
            self._files.unlink(path)
            self._removed(chunk, size)

    def quarantine(self, chunk: bytes, reason: str) -> None:
        target = self._quarantine.new_path(chunk)
        try:
            if not self._move_away(chunk, target):
                return  # somebody else was faster
            self._tally.quarantined = len(self._quarantine)
        except OSError as problem:
            self._condemned.add(chunk)
            reason = f"{reason}; and it cannot be moved away: {problem}"
        log.warning("chunk %s on disk %s is bad: %s", chunk.hex(), self.disk, reason)
        self._tally.report_bad(chunk, self.disk, reason)

    def set_aside(self, chunk: bytes, min_age_s: float) -> bool:
        path = self._layout.file(chunk)
        target = self._layout.unknown / chunk.hex()
        with self._translated():
            try:
                young = self._wall() - self._files.stat(path).modified_s < min_age_s
            except FileNotFoundError:
                return False
            if young or not self._move_away(chunk, target):
                return False
            self._files.set_modified(target, self._wall())  # expire_set_aside counts from now
            return True

    def expire_set_aside(self, max_age_s: float) -> int:
        with self._translated():
            expired = [
                path
                for path in map(
                    self._layout.unknown.joinpath, self._files.names(self._layout.unknown)
                )
                if chunk_of(path.name)
                and self._wall() - self._files.stat(path).modified_s > max_age_s
            ]
            for path in expired:
                self._files.unlink(path)
        return len(expired)

    def quarantine_due(self, max_age_s: float, max_bytes: int, limit: int) -> list[bytes]:
        return self._quarantine.due(max_age_s, max_bytes, limit)

    def empty_quarantine(self, chunks: Iterable[bytes]) -> int:
        with self._translated(), self._names_lock:
            count = sum(self._quarantine.delete(chunk) for chunk in chunks)
        self._tally.quarantined = len(self._quarantine)
        return count

    def _move_away(self, chunk: bytes, target: Path) -> bool:
        path = self._layout.file(chunk)
        with self._names_lock:
            try:
                size = self._files.stat(path).size_bytes
                self._files.rename(path, target)
            except FileNotFoundError:
                return False
            self._removed(chunk, size)
            if target.parent == self._layout.quarantine:
                self._quarantine.added(chunk, target)
        return True

    def _removed(self, chunk: bytes, size_bytes: int) -> None:
        self._condemned.discard(chunk)
        self._durability.forget(chunk)
        self._tally.removed(size_bytes)

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
            self._health.failed = True
            total_bytes, free_bytes, filesystem = 0, 0, ""
        path = str(self._layout.root)
        return self._tally.figures(
            self.disk, path, total_bytes, free_bytes, self._health.failed, filesystem
        )

    def load_scrub(self) -> ScrubNote:
        with self._translated():
            try:
                text = self._files.read_text(self._layout.scrub)
            except FileNotFoundError:
                return ScrubNote()
        note = parse_scrub(text)
        self._tally.scrub = note
        return note

    def save_scrub(self, note: ScrubNote) -> None:
        with self._translated():
            text = f"{note.cursor.hex() or '-'} {note.started_s:.0f} {note.finished_s:.0f}\n"
            self._files.write_text(self._layout.scrub, text)
        self._tally.scrub = note

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        """OSError -> our tree, counting what speaks against the disk."""
        try:
            yield
        except FileNotFoundError as problem:
            raise UnknownChunk(f"not on disk {self.disk}: {problem.filename}") from problem
        except OSError as problem:
            error: DFSError = self._health.translate(problem, self._monotonic())
            raise error from problem


def parse_scrub(text: str) -> ScrubNote:
    """What the file says; of nonsense nothing, and the pass starts again.

    An earlier version wrote the cursor alone.
    """
    cursor, *times = text.split() or ["-"]
    try:
        started_s, finished_s = (float(each) for each in (times or ["0", "0"]))
    except ValueError:
        return ScrubNote()
    return ScrubNote(chunk_of(cursor) or b"", started_s, finished_s)
