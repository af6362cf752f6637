"""What a store keeps count of: contents, traffic, and the news for metad.

Belongs to one ChunkStore, whose ChunkNames call `added` and `removed` under their lock.  Traffic is
added up without a lock and may miss a little; it is for people.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Iterator

from chunkd.scrubnote import ScrubNote
from dfswire.heartbeats import ReplicaReport
from dfswire.hosts import DiskFigures


class Tally:
    """Counters of one disk since the start; contents since ever."""

    def __init__(self) -> None:
        self.chunks = 0
        self.used_bytes = 0
        self.quarantined = 0
        self.read_bytes = 0
        self.written_bytes = 0
        self.reads = 0
        self.writes = 0
        self.scrub = ScrubNote()
        self._reports: deque[ReplicaReport] = deque()
        self._recordings: list[set[bytes]] = []

    def added(self, chunk: bytes, size_bytes: int) -> None:
        """A chunk was stored now."""
        self.found(size_bytes)
        self.written_bytes += size_bytes
        self.writes += 1
        for recording in self._recordings:
            recording.add(chunk)

    def was_read(self, size_bytes: int) -> None:
        """A part of a chunk, or all of it."""
        self.read_bytes += size_bytes
        self.reads += 1

    def found(self, size_bytes: int) -> None:
        """A chunk was there already."""
        self.chunks += 1
        self.used_bytes += size_bytes

    def removed(self, size_bytes: int) -> None:
        """A chunk was deleted or moved away; perhaps a larger one than was counted, or one that
        somebody has brought."""
        self.chunks = max(0, self.chunks - 1)
        self.used_bytes = max(0, self.used_bytes - size_bytes)

    def report_bad(self, chunk: bytes, disk: str, reason: str) -> None:
        """News for metad."""
        self._reports.append(ReplicaReport(chunk=chunk, disk=disk, state="bad", reason=reason))

    def take_reports(self) -> list[ReplicaReport]:
        """All news, once."""
        return [self._reports.popleft() for _ in range(len(self._reports))]

    @contextlib.contextmanager
    def recording(self) -> Iterator[set[bytes]]:
        """A set that gets every chunk added meanwhile."""
        added: set[bytes] = set()
        self._recordings.append(added)
        try:
            yield added
        finally:
            self._recordings = [other for other in self._recordings if other is not added]

    def figures(
        self,
        disk: str,
        path: str,
        total_bytes: int,
        free_bytes: int,
        failed: bool,
        filesystem: str = "",
    ) -> DiskFigures:
        """Everything, as it goes into a heartbeat."""
        return DiskFigures(
            disk=disk,
            path=path,
            total_bytes=total_bytes,
            free_bytes=free_bytes,
            chunks=self.chunks,
            used_bytes=self.used_bytes,
            read_bytes=self.read_bytes,
            written_bytes=self.written_bytes,
            reads=self.reads,
            writes=self.writes,
            scrub_fraction=self.scrub.fraction,
            scrub_finished_s=self.scrub.finished_s,
            quarantined=self.quarantined,
            failed=failed,
            filesystem=filesystem,
        )
