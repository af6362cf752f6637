"""Which chunks have their name in a data directory: names appear, are deleted, or are moved aside.

A ChunkStore and its NewChunks share one of these.  A name appears by the rename of a complete file,
never over another one, and goes only under the same lock, so of several threads one is first and
the others see it.  A bad chunk goes to DISK/quarantine, one that metad does not know to
DISK/unknown; what cannot be moved away is condemned: it is as if it was not there.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from pathlib import Path

from chunkd.diskerrors import DiskErrors
from chunkd.durability import Durability
from chunkd.filesystem import FileSystem
from chunkd.layout import Layout, chunk_of
from chunkd.quarantine import Quarantine
from chunkd.tally import Tally

log = logging.getLogger(__name__)


class ChunkNames:
    """The names in one data directory.  Raises what chunkd/storage.py says."""

    def __init__(
        self,
        layout: Layout,
        files: FileSystem,
        durability: Durability,
        quarantine: Quarantine,
        tally: Tally,
        errors: DiskErrors,
        wall: Callable[[], float],
    ) -> None:
        self._layout = layout
        self._files = files
        self._durability = durability
        self._quarantine = quarantine
        self._tally = tally
        self._errors = errors
        self._wall = wall
        self._lock = threading.Lock()  # look for a name, then rename, delete or set aside
        self._condemned: set[bytes] = set()  # bad, and could not even be moved away

    def is_condemned(self, chunk: bytes) -> bool:
        """Is it here, bad, and impossible to move away?"""
        return chunk in self._condemned

    def is_quarantined(self, chunk: bytes) -> bool:
        """Was it set aside as bad?  Waits for whoever is just doing that."""
        with self._lock:
            return chunk in self._quarantine

    def publish(self, chunk: bytes, temporary: Path, size_bytes: int) -> bool:
        """Give a complete file its name; False when the chunk has one already."""
        final = self._layout.file(chunk)
        with self._lock:
            if self._files.exists(final):
                return False
            self._files.rename(temporary, final)
            self._condemned.discard(chunk)
            self._tally.added(chunk, size_bytes)
        return True

    def delete(self, chunk: bytes) -> None:
        """Remove a chunk."""
        # No fsync: should a power cut bring the file back, metad calls it unknown (inventory.py).
        path = self._layout.file(chunk)
        with self._errors.translated(), self._lock:
            size = self._files.stat(path).size_bytes
            self._files.unlink(path)
            self._removed(chunk, size)

    def quarantine(self, chunk: bytes, reason: str) -> None:
        """Set a bad chunk aside, and report it."""
        disk = self._errors.disk
        target = self._quarantine.new_path(chunk)
        try:
            if not self._move_away(chunk, target):
                return  # somebody else was faster
            self._tally.quarantined = len(self._quarantine)
        except OSError as problem:
            self._condemned.add(chunk)
            reason = f"{reason}; and it cannot be moved away: {problem}"
        log.warning("chunk %s on disk %s is bad: %s", chunk.hex(), disk, reason)
        self._tally.report_bad(chunk, disk, reason)

    def empty_quarantine(self, chunks: Iterable[bytes]) -> int:
        """Delete what was set aside as bad of these chunks; how many files."""
        with self._errors.translated(), self._lock:
            count = sum(self._quarantine.delete(chunk) for chunk in chunks)
        self._tally.quarantined = len(self._quarantine)
        return count

    def set_aside(self, chunk: bytes, min_age_s: float) -> bool:
        """Move a chunk that metad does not know out of the way, unless it is younger."""
        path = self._layout.file(chunk)
        target = self._layout.unknown / chunk.hex()
        with self._errors.translated():
            try:
                young = self._wall() - self._files.stat(path).modified_s < min_age_s
            except FileNotFoundError:
                return False
            if young or not self._move_away(chunk, target):
                return False
            self._files.set_modified(target, self._wall())  # expire_set_aside counts from now
            return True

    def expire_set_aside(self, max_age_s: float) -> int:
        """Delete what was set aside longer ago than `max_age_s`; how many."""
        with self._errors.translated():
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

    def _move_away(self, chunk: bytes, target: Path) -> bool:
        path = self._layout.file(chunk)
        with self._lock:
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
