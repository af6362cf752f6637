"""A snapshot of metad's database on its way onto this server's disk; used by journal.py.

It arrives in parts, under a temporary name, and counts when it is whole, on disk, and has its name.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from chunkd.diskhealth import is_full
from chunkd.filesystem import FileSystem
from dfswire.bodies import Octets
from dfswire.errors import InputOutput, NoSpace, ProtocolError
from dfswire.journal import Snapshot, content_digest
from dfswire.journalfile import snapshot_head

TEMPORARY = ".tmp"


class SnapshotWriter:
    """A snapshot that arrives in parts; it counts when `finish` has returned."""

    def __init__(
        self,
        files: FileSystem,
        directory: Path,
        name: str,
        snapshot: Snapshot,
        keep: Callable[[str, Snapshot], None],
    ) -> None:
        self._keep = keep
        self._files = files
        self._final = directory / name
        self._path = directory / (name + TEMPORARY)
        self._snapshot = snapshot
        self._digest = content_digest()
        self.received_bytes = 0
        with translated(directory):
            self._fd = files.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
            files.write(self._fd, [snapshot_head(snapshot)])

    def add(self, data: Octets) -> None:
        """The next part."""
        self._digest.update(data)
        self.received_bytes += len(data)
        with translated(self._path):
            self._files.write(self._fd, [data])

    def finish(self) -> None:
        """Keep it.  Raises ProtocolError when the bytes are not those that were announced."""
        if self._digest.digest() != self._snapshot.digest:
            raise ProtocolError("the snapshot was damaged on its way")
        with translated(self._path):
            self._files.fsync(self._fd)
            self._files.close(self._fd)
            self._fd = -1
            self._files.rename(self._path, self._final)
            self._files.fsync_directory(self._final.parent)
        self._keep(self._final.name, self._snapshot)

    def abandon(self) -> None:
        """It will not be finished."""
        if self._fd >= 0:
            self._files.close(self._fd)
            self._fd = -1
            self._files.unlink(self._path)


@contextmanager
def translated(where: Path) -> Iterator[None]:
    """What a disk says, in our words."""
    try:
        yield
    except OSError as problem:
        kind = NoSpace if is_full(problem) else InputOutput
        raise kind(f"journal in {where}: {problem.strerror or problem}") from problem
