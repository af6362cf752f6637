"""Copies of the whole database, each at one position of the journal, for chunkds to keep.

Taken by SQLite's online backup in a thread while metad goes on; read by followers in parts, and by
`dfs metad backup`.  The file has no name: what is left when metad dies takes no room.  The last two
are kept, so that whoever is fetching one while the next is taken can finish.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import trio

from dfswire.bodies import FileRange, Octets
from dfswire.dispatch import Reply
from dfswire.errors import DFSError, InputOutput, Stale
from dfswire.journal import Snapshot, SnapshotRequest, content_digest
from metad.config import MetadConfig
from metad.journal.followers import Followers
from metad.journal.replay import position_of
from metad.storage.connections import read_only_uri
from metad.storage.database import Database
from metad.storage.verification import verify_at_once

log = logging.getLogger(__name__)

KEPT = 2
COPY_BYTES = 1 << 20  # read at once for the digest


@dataclass
class _Taken:
    """A snapshot; its bytes are in memory or in an open file."""

    snapshot: Snapshot
    data: bytes = b""
    fd: int = -1

    def part(self, offset: int, length: int) -> FileRange | Octets:
        length = max(0, min(length, self.snapshot.size_bytes - offset))
        if self.fd < 0:
            return self.data[offset : offset + length]
        return FileRange(os.dup(self.fd), offset, length)

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


class Snapshots:
    """See the module's text."""

    def __init__(
        self,
        db: Database,
        followers: Followers,
        cluster_id: str,
        config: MetadConfig,
        *,
        clock: Callable[[], float],
        tell: Callable[[str, str, str], None],
    ) -> None:
        self._db = db
        self._followers = followers
        self._cluster_id = cluster_id
        self._interval_s = config.snapshot_interval_s
        self._journal_bytes = config.snapshot_journal_bytes
        self._pause_s = config.maintenance_s
        self._clock = clock
        self._tell = tell
        self._taken: list[_Taken] = []
        self._taking = trio.Lock()
        self._last_s = clock()
        self._bytes_before = 0  # of the journal, when the last one was taken
        self._failed = False

    @property
    def newest(self) -> Snapshot | None:
        return self._taken[-1].snapshot if self._taken else None

    async def run_forever(self) -> None:
        """Take one when it is due and somebody keeps it."""
        while True:
            await trio.sleep(self._pause_s)
            if self._is_due() and self._followers.in_step:
                try:
                    await self._take(self._db.visible)
                except DFSError as problem:
                    if not self._failed:
                        self._tell("journal.snapshot_failed", self._cluster_id, str(problem))
                    self._failed = True
                    self._last_s = self._clock()
                else:
                    self._failed = False

    async def read(self, request: SnapshotRequest) -> Reply:
        """A part.  Raises Stale when that snapshot is gone, InputOutput when none can be taken."""
        if not request.digest:
            if self.newest is None or self.newest.position.number < request.number:
                await self._take(request.number)
            taken = self._taken[-1]
        else:
            found = [each for each in self._taken if each.snapshot.digest == request.digest]
            if not found:
                raise Stale("this snapshot was replaced by newer ones")
            taken = found[0]
        return Reply(taken.snapshot, taken.part(request.offset, request.length))

    def close(self) -> None:
        """Give the files back."""
        while self._taken:
            self._taken.pop().close()

    def _is_due(self) -> bool:
        grown = self._followers.offered_bytes - self._bytes_before
        size = self.newest.size_bytes if self.newest is not None else 0
        if grown >= max(self._journal_bytes, size // 2):
            return True
        return grown > 0 and self._clock() - self._last_s >= self._interval_s

    async def _take(self, number: int) -> None:
        """Have one with at least entry `number`, taken by us or by somebody meanwhile."""
        async with self._taking:
            if self.newest is not None and self.newest.position.number >= number > 0:
                return
            offered_bytes = self._followers.offered_bytes
            if self._db.inline:
                taken = self._in_memory()
            else:
                taken = await trio.to_thread.run_sync(self._copy)
            self._taken.append(taken)
            while len(self._taken) > KEPT:
                self._taken.pop(0).close()
            self._last_s, self._bytes_before = self._clock(), offered_bytes
        self._followers.announce_snapshot(taken.snapshot.position.number)

    def _in_memory(self) -> _Taken:
        data = self._db.image()
        digest = content_digest()
        digest.update(data)
        snapshot = Snapshot(
            cluster_id=self._cluster_id,
            position=self._db.position,
            size_bytes=len(data),
            digest=digest.digest(),
        )
        return _Taken(snapshot, data=data)

    def _copy(self) -> _Taken:
        verify_at_once(self._db)  # what has rotted must not go on as a good copy
        path = Path(self._db.path + ".snapshot")
        fd = -1
        try:
            path.unlink(missing_ok=True)
            with (
                contextlib.closing(
                    sqlite3.connect(read_only_uri(self._db.path), uri=True)
                ) as source,
                contextlib.closing(sqlite3.connect(path)) as target,
            ):
                source.backup(target)
                target.execute("PRAGMA journal_mode = delete")  # all in one file
                position = position_of(target)
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            path.unlink()
            digest, size = content_digest(), 0
            while data := os.pread(fd, COPY_BYTES, size):
                digest.update(data)
                size += len(data)
        except (sqlite3.Error, OSError) as problem:
            if fd >= 0:
                os.close(fd)
            _remove(path)
            raise InputOutput(f"no snapshot of the database could be taken: {problem}") from problem
        snapshot = Snapshot(
            cluster_id=self._cluster_id,
            position=position,
            size_bytes=size,
            digest=digest.digest(),
        )
        return _Taken(snapshot, fd=fd)


def _remove(path: Path) -> None:
    """What cannot be removed now goes before the next one is taken."""
    try:
        path.unlink(missing_ok=True)
    except OSError as problem:
        log.warning("%s stays: %s", path, problem)
