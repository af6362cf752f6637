"""metad's journal as this server keeps it: segments of entries and snapshots, on its first disk.

    DISK/journal/00000012.journal     entries, see dfswire/journalfile.py
    DISK/journal/00000013.snapshot    a whole database, from which later entries can be replayed

Used by follower.py, which calls one method at a time for entries, and one for a snapshot.  What
`append` has returned from is on disk.  A segment that was not finished by this process is never
written again: whatever a crash left at its end stays behind its last good entry.  All methods
block; they raise NoSpace or InputOutput when the disk does not take what they write.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from chunkd.filesystem import FileSystem
from chunkd.retention import (
    KeptSegment,
    KeptSnapshot,
    fitting,
    retained,
    room_bytes,
    superfluous,
)
from chunkd.snapshotwriter import TEMPORARY, SnapshotWriter, translated
from dfswire import codec
from dfswire.bodies import FileRange, Octets
from dfswire.errors import InputOutput, NoEntry, NoSpace, ProtocolError
from dfswire.journal import (
    DIGEST_BYTES,
    NOWHERE,
    Entry,
    JournalFile,
    Position,
    Snapshot,
)
from dfswire.journalfile import (
    HEADER_MAX_BYTES,
    SEGMENT_SUFFIX,
    SNAPSHOT_SUFFIX,
    SegmentHeader,
    follows,
    parse_segment,
    parse_segment_head,
    parse_snapshot_head,
    record,
    segment_head,
)

log = logging.getLogger(__name__)

DIRECTORY = "journal"
SEGMENT_BYTES = 8 << 20


class Journal:
    """See the module's text."""

    def __init__(
        self,
        root: Path,
        files: FileSystem | None = None,
        *,
        kept_s: float,
        max_bytes: int,
        segment_bytes: int = SEGMENT_BYTES,
    ) -> None:
        self._directory = root / DIRECTORY
        self._files = files or FileSystem()
        self._kept_s = kept_s
        self._max_bytes = max_bytes
        self._segment_bytes = segment_bytes
        self._lock = threading.Lock()  # of the lists and the numbers of files
        self._next = 0
        self._fd = -1
        self._size_bytes = 0  # of the segment that is being written
        self._segments: list[KeptSegment] = []
        self._snapshots: list[KeptSnapshot] = []
        self._damaged: list[str] = []
        self._run = 0
        self.position = NOWHERE
        self.previous = bytes(DIGEST_BYTES)

    # -- what is there --------------------------------------------------------------------------

    def load(self) -> None:
        """Find out what earlier processes have kept."""
        with self._translated():
            self._files.mkdir(self._directory)
            self._files.fsync_directory(self._directory.parent)
            names = sorted(self._files.names(self._directory))
            for name in names:
                if name.endswith(TEMPORARY):
                    self._files.unlink(self._directory / name)
                elif name.endswith((SEGMENT_SUFFIX, SNAPSHOT_SUFFIX)):
                    self._load(name)
                    self._next = int(name.partition(".")[0]) + 1
            if self._segments:
                self._load_end(self._segments[-1])

    def _load(self, name: str) -> None:
        try:
            head = self._read(name, 0, HEADER_MAX_BYTES)
            if name.endswith(SEGMENT_SUFFIX):
                self._segments.append(KeptSegment(name, parse_segment_head(head)))
            else:
                self._snapshots.append(KeptSnapshot(name, parse_snapshot_head(head)[0]))
        except ProtocolError as problem:
            log.warning("%s cannot be used: %s", self._directory / name, problem)
            self._damaged.append(name)

    def _load_end(self, segment: KeptSegment) -> None:
        size = self._files.stat(self._directory / segment.name).size_bytes
        parsed = parse_segment(self._read(segment.name, 0, size))
        if not parsed.is_whole:
            log.info("%s ends with a torn entry", self._directory / segment.name)
        self._run = segment.header.run
        self.position = parsed.position
        if parsed.entries:
            self.previous = parsed.entries[-1].previous

    @property
    def newest_snapshot(self) -> int:
        """The number of the newest snapshot from which the entries go on; -1 for none."""
        with self._lock:
            return max(
                (
                    each.snapshot.position.number
                    for each in self._snapshots
                    if each.snapshot.position.epoch == self.position.epoch
                    and each.snapshot.position.number >= self._run
                ),
                default=-1,
            )

    @property
    def run(self) -> int:
        """A snapshot at this number or later makes the entries complete."""
        return self._run

    # -- entries --------------------------------------------------------------------------------

    def begin(self, cluster_id: str, base: Position) -> None:
        """What comes next follows `base`; entries that are here beyond it do not count."""
        if (
            self._fd >= 0
            and base.digest == self.position.digest
            and base.term == self.position.term
        ):
            return
        connected = base.digest in (self.position.digest, self.previous)
        if not connected or base.epoch != self.position.epoch:
            self._run = base.number
        self._start_segment(SegmentHeader(cluster_id=cluster_id, base=base, run=self._run))
        self.position, self.previous = base, bytes(DIGEST_BYTES)

    def append(self, cluster_id: str, entries: Sequence[bytes]) -> None:
        """Keep encoded entries; they are on disk when this returns.

        Raises ProtocolError when they are damaged or do not follow; then none is kept.
        """
        position, previous = self.position, self.previous
        for data in entries:
            entry = codec.decode(Entry, data)
            if not entry.is_sound or not follows(entry, position):
                raise ProtocolError(
                    f"journal entry {entry.number} does not follow entry {position.number}"
                )
            position, previous = entry.position, entry.previous
        if self._size_bytes > self._segment_bytes:
            self._start_segment(
                SegmentHeader(cluster_id=cluster_id, base=self.position, run=self._run)
            )
        records = [record(data) for data in entries]
        try:
            with self._translated():
                self._files.write(self._fd, records)
                self._files.fsync(self._fd)
        except (NoSpace, InputOutput):
            self.close()  # whatever it has at its end now, and a failed fsync is not repeated
            raise
        self._size_bytes += sum(map(len, records))
        self.position, self.previous = position, previous

    def close(self) -> None:
        """Write no more to this segment."""
        if self._fd >= 0:
            self._files.close(self._fd)
            self._fd = -1

    def _start_segment(self, header: SegmentHeader) -> None:
        self.close()
        name = self._new_name(SEGMENT_SUFFIX)
        with self._translated():
            fd = self._files.open(self._directory / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
            self._fd = fd
            head = segment_head(header)
            self._files.write(fd, [head])
            self._files.fsync(fd)
            self._files.fsync_directory(self._directory)
        self._size_bytes = len(head)
        with self._lock:
            self._segments.append(KeptSegment(name, header))

    # -- snapshots ------------------------------------------------------------------------------

    def begin_snapshot(self, snapshot: Snapshot) -> SnapshotWriter:
        """Receive a snapshot."""
        name = self._new_name(SNAPSHOT_SUFFIX)
        return SnapshotWriter(self._files, self._directory, name, snapshot, self._keep_snapshot)

    def _keep_snapshot(self, name: str, snapshot: Snapshot) -> None:
        """It is on disk."""
        with self._lock:
            self._snapshots.append(KeptSnapshot(name, snapshot))

    def drop_old(self, now_ns: int, coming_bytes: int = 0) -> None:
        """Delete what no restore needs any more, and of older moments what has no room beside
        `coming_bytes` more."""
        with self._lock, self._translated():
            sizes = {name: self._size(name) for name in self._names()}
            space = self._files.space(self._directory)
            room = room_bytes(sum(sizes.values()), space.total_bytes, space.free_bytes)
            limit = min(self._max_bytes, room) - coming_bytes
            wanted = retained(self._snapshots, self._segments, now_ns, self._kept_s)
            keep = fitting(wanted, self._snapshots, self._segments, sizes, limit)
            if len(keep) < len(wanted):
                log.warning(
                    "the journal has no room for more than %d bytes: moments before entry %d "
                    "cannot be restored from here any more",
                    limit,
                    keep[0].snapshot.position.number,
                )
            gone = superfluous(keep, self._snapshots, self._segments)
            self._snapshots = keep
            self._segments = [each for each in self._segments if each.name not in gone]
        with self._translated():
            for name in gone:
                self._files.unlink(self._directory / name)

    def _names(self) -> list[str]:
        return [each.name for each in self._segments] + [each.name for each in self._snapshots]

    def _size(self, name: str) -> int:
        return self._files.stat(self._directory / name).size_bytes

    # -- for a restore --------------------------------------------------------------------------

    def list_files(self) -> tuple[list[JournalFile], list[str]]:
        """Everything that is kept, oldest first, and what is damaged."""
        with self._lock:
            found = [
                *((each.name, each.header.base, None) for each in self._segments),
                *((each.name, each.snapshot.position, each.snapshot) for each in self._snapshots),
            ]
            damaged = list(self._damaged)
        with self._translated():
            return [
                JournalFile(
                    name=name,
                    size_bytes=self._size(name),
                    base=base,
                    snapshot=snapshot,
                )
                for name, base, snapshot in sorted(found, key=lambda each: each[0])
            ], damaged

    def read_part(self, name: str, offset: int, length: int) -> FileRange | Octets:
        """Bytes of a file as it is on disk.  Raises NoEntry."""
        with self._lock:
            known = set(self._names())
        if name not in known:
            raise NoEntry(f"no file {name!r} in the journal")
        with self._translated():
            fd = self._files.open(self._directory / name, os.O_RDONLY)
            try:
                length = max(0, min(length, self._files.size(fd) - offset))
                return self._files.outgoing(fd, offset, length) if length else b""
            finally:
                self._files.close(fd)

    # -- inside ---------------------------------------------------------------------------------

    def _new_name(self, suffix: str) -> str:
        with self._lock:
            self._next += 1
            return f"{self._next - 1:08}{suffix}"

    def _read(self, name: str, offset: int, length: int) -> bytes:
        fd = self._files.open(self._directory / name, os.O_RDONLY)
        try:
            return self._files.pread(fd, length, offset)
        finally:
            self._files.close(fd)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        with translated(self._directory):
            yield
