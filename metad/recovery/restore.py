"""Making metad's database again from what chunkds have kept.

The newest good snapshot is taken, and the journal replayed on it to its end, or to a moment.  Used
by metad.tool for `dfs metad restore`.  What could lose acknowledged changes (a chunkd that was not
asked, a hole, two histories, bytes that were deleted since the moment) is refused unless the
operator accepts it.  The result is a new epoch of the cluster (epoch.py), in which nothing is
deleted before `dfs metad release`.
"""

from __future__ import annotations

import logging
import sqlite3
import tempfile
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import msgspec
import trio

from dfswire.client import Client
from dfswire.errors import NoEntry, ProtocolError, UsageError
from dfswire.journal import Position
from metad.journal.lineage import Node
from metad.journal.replay import position_of, replay
from metad.recovery.epoch import begin_epoch, deleted_since
from metad.recovery.gathering import NEWEST, Gathering
from metad.storage.durable import sync_path
from metad.storage.sumsfile import forget_sums

log = logging.getLogger(__name__)

ENTRIES_PER_COMMIT = 500


@dataclass(frozen=True)
class Wish:
    """What is to be restored.  `at_ns`: everything up to then; `epoch`: a history that an earlier
    restore has left; `accept_loss`: what is there, even if something is known to be missing."""

    at_ns: int | None = None
    epoch: int | None = None
    accept_loss: bool = False

    def allows(self, base: Position) -> bool:
        """May it be restored from a snapshot at `base`?"""
        return (self.at_ns is None or base.time_ns <= self.at_ns) and (
            self.epoch is None or base.epoch <= self.epoch
        )


class Restored(msgspec.Struct, frozen=True, kw_only=True):
    """What was done."""

    snapshot: Position
    position: Position  # of the last entry that counts
    replayed: int
    epoch: int  # the new one
    asked: list[str]
    warnings: list[str]


class Restorer:
    """One restore; see restore()."""

    def __init__(self, client: Client, directory: Path, wish: Wish) -> None:
        self._directory = directory
        self._wish = wish
        self._kept = Gathering(client, directory)
        self.warnings = self._kept.warnings

    async def run(self, addresses: Sequence[str], target: Path) -> Restored:
        """See restore()."""
        kept = self._kept
        await kept.ask(addresses, self._object)
        if self._wish.epoch is not None:
            await self._check_epoch(self._wish.epoch)
        snapshots = [found for found in kept.snapshots() if self._wish.allows(found[0].base)]
        if not snapshots:
            raise UsageError("none of these chunkds has a snapshot of the metadata from before")
        for each, source in snapshots:
            await kept.fetch_segments(each.base.number)
            tip = self._tip(each.base)
            path = self._path(tip, each.base)
            if path is None:
                continue
            try:
                await kept.fetch_snapshot(source, each, target)
                return await self._finish(each.base, tip, path, target)
            except (ProtocolError, sqlite3.DatabaseError, NoEntry) as problem:
                self.warnings.append(f"snapshot {each.name} of {source.address}: {problem}")
                log.warning("%s", self.warnings[-1])
                _discard(target)
        raise UsageError(
            "the journal does not go on from any snapshot that is left: "
            + "; ".join(self.warnings or [self._advice()])
        )

    async def _check_epoch(self, epoch: int) -> None:
        """It means all up to it, so one that was not yet would give the newest unnoticed."""
        await self._kept.fetch_segments(NEWEST)  # the end, where the newest epoch is
        newest = self._kept.newest_epoch()
        if 0 < newest < epoch:
            raise UsageError(f"there is no epoch {epoch}, the newest is {newest}")

    def _advice(self) -> str:
        epoch = self._kept.newest_epoch()
        if self._wish.at_ns is not None and self._wish.epoch is None and epoch > 1:
            return f"was it before the restore that began epoch {epoch}?  Then --epoch {epoch - 1}"
        return "entries are missing; ask more chunkds"

    def _tip(self, base: Position) -> Position:
        tip = self._kept.lineage.tip(self._wish.epoch)
        if tip is None or base.rank > tip.rank:
            return base
        return tip

    def _path(self, tip: Position, base: Position) -> list[Node] | None:
        """The entries from `base` to `tip` in order; None when they do not connect."""
        if tip.digest == base.digest:
            return []
        back = self._kept.lineage.back_from(tip)
        for index, node in enumerate(back):
            if node.previous == base.digest:
                return back[: index + 1][::-1]
        return None

    async def _finish(
        self, base: Position, tip: Position, path: list[Node], target: Path
    ) -> Restored:
        for position in self._kept.lineage.left_out(tip):
            self._object(
                f"another history ends with entry {position.number} (term {position.term}): metad "
                "has run on an old copy of its database"
            )
        at_ns = self._wish.at_ns
        wanted = [node for node in path if at_ns is None or node.position.time_ns <= at_ns]
        epoch = 1 + self._kept.newest_epoch()
        with closing(sqlite3.connect(target, isolation_level=None)) as connection:
            connection.execute("PRAGMA synchronous = off")
            if connection.execute("PRAGMA quick_check(1)").fetchall() != [("ok",)]:
                raise ProtocolError("the database in it is damaged")
            if position_of(connection).digest != base.digest:
                raise ProtocolError("it is not of the position that it names")
            await self._replay(connection, wanted)
            last = position_of(connection)
            self._check_asked(connection)
            if left := path[len(wanted) :]:
                await self._look_ahead(connection, left)
            begin_epoch(connection, epoch, leaves_behind=bool(left) or last.epoch + 1 < epoch)
        return Restored(
            snapshot=base,
            position=last,
            replayed=len(wanted),
            epoch=epoch,
            asked=self._kept.asked,
            warnings=self.warnings,
        )

    async def _replay(self, connection: sqlite3.Connection, path: list[Node]) -> None:
        for first in range(0, len(path), ENTRIES_PER_COMMIT):
            connection.execute("BEGIN")
            for node in path[first : first + ENTRIES_PER_COMMIT]:
                replay(connection, self._kept.entry(node))
            connection.execute("COMMIT")
            await trio.lowlevel.checkpoint()

    async def _look_ahead(self, connection: sqlite3.Connection, left: list[Node]) -> None:
        """Replay the rest on a copy, to see whether the bytes of that moment are still there."""
        later = self._directory / "later"
        with closing(sqlite3.connect(later, isolation_level=None)) as copy:
            copy.execute("PRAGMA synchronous = off")
            connection.backup(copy)
            await self._replay(copy, left)
        chunks, size_bytes = deleted_since(connection, str(later))
        if chunks:
            self._object(
                f"{chunks} chunks ({size_bytes} bytes) that files had at that moment have been "
                "deleted since"
            )

    def _check_asked(self, connection: sqlite3.Connection) -> None:
        asked = self._kept.servers
        for server, address in connection.execute("SELECT id, address FROM server ORDER BY id"):
            if server not in asked:
                self._object(f"server {server} at {address} may know more and was not asked")

    def _object(self, sentence: str) -> None:
        """Something acknowledged may be missing."""
        if not self._wish.accept_loss:
            raise UsageError(f"{sentence}; --accept-loss restores what there is nevertheless")
        self.warnings.append(sentence)


async def restore(
    client: Client, addresses: Sequence[str], path: Path, wish: Wish | None = None
) -> Restored:
    """Make the database `path` from what the chunkds at `addresses` have.

    Raises UsageError when there is a database already, and for whatever could lose acknowledged
    changes; then nothing is left behind.
    """
    _check_room(path)
    target = path.with_name(path.name + ".restoring")
    _discard(target)
    try:
        with tempfile.TemporaryDirectory(prefix="dfs-restore-", dir=path.parent) as directory:
            done = await Restorer(client, Path(directory), wish or Wish()).run(addresses, target)
        _keep(target, path)
    finally:
        _discard(target)
    return done


def _check_room(path: Path) -> None:
    if path.exists() or path.with_name(path.name + "-wal").exists():
        raise UsageError(f"there is a database at {path}: move it away first")
    if not path.parent.is_dir():
        raise UsageError(f"make directory {path.parent} first")


def _discard(path: Path) -> None:
    for suffix in ("", "-journal", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def _keep(made: Path, path: Path) -> None:
    sync_path(made)
    forget_sums(str(path))  # of a database that was here before
    made.rename(path)
    sync_path(path.parent)
