"""Making metad's database again from what chunkds have kept.

The newest good snapshot is taken, and the journal replayed on it to its end, or to a moment.  Used
by metad.tool for `dfs metad restore`.  Nothing is believed without its digest; what could lose
acknowledged changes (a chunkd that was not asked, a hole, two histories) is refused unless the
operator accepts it.  The result is a new epoch of the cluster, in which nothing is deleted before
`dfs metad release`.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import tempfile
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import msgspec
import trio

from dfswire.client import Client
from dfswire.errors import DFSError, NoEntry, ProtocolError, UsageError
from dfswire.journal import (
    ENTRIES_BYTES,
    Entry,
    JournalFile,
    JournalFiles,
    Position,
    ReadJournalFile,
    content_digest,
    encode_changes,
    seal,
)
from dfswire.journalfile import parse_segment, parse_snapshot_head
from dfswire.messages import Empty
from metad.journal.lineage import Lineage, Node
from metad.journal.replay import position_of, replay

log = logging.getLogger(__name__)

PART_BYTES = 4 * ENTRIES_BYTES
DEADLINE_S = 60.0
ENTRIES_PER_COMMIT = 500


@dataclass(frozen=True)
class Wish:
    """What is to be restored.  `at_ns`: everything up to then; `epoch`: a history that an earlier
    restore has left; `accept_loss`: what is there, even if something is known to be missing."""

    at_ns: int | None = None
    epoch: int | None = None
    accept_loss: bool = False


class Restored(msgspec.Struct, frozen=True, kw_only=True):
    """What was done."""

    snapshot: Position
    position: Position  # of the last entry that counts
    replayed: int
    epoch: int  # the new one
    asked: list[str]
    warnings: list[str]


@dataclass
class _Source:
    """A chunkd, and its journal files by name."""

    address: str
    files: JournalFiles

    def segments(self) -> list[JournalFile]:
        return [each for each in self.files.files if each.snapshot is None]


class Restorer:
    """One restore; see restore()."""

    def __init__(self, client: Client, directory: Path, wish: Wish) -> None:
        self._client = client
        self._directory = directory
        self._wish = wish
        self._sources: list[_Source] = []
        self._lineage = Lineage()
        self._known: set[tuple[str, str]] = set()
        self._parsed: tuple[str, dict[bytes, Entry]] = ("", {})
        self.warnings: list[str] = []

    async def run(self, addresses: Sequence[str], target: Path) -> Restored:
        """See restore()."""
        await self._ask(addresses)
        snapshots = sorted(
            (
                (each, source)
                for source in self._sources
                for each in source.files.files
                if each.snapshot is not None and self._may_start_with(each.base)
            ),
            key=lambda found: (found[0].base.epoch, found[0].base.number),
            reverse=True,
        )
        if not snapshots:
            raise UsageError("none of these chunkds has a snapshot of the metadata")
        for each, source in snapshots:
            await self._fetch_segments(each.base.number)
            tip = self._tip(each.base)
            path = self._path(tip, each.base)
            if path is None:
                continue
            try:
                await self._fetch_snapshot(source, each, target)
                return await self._finish(each.base, tip, path, target)
            except (ProtocolError, sqlite3.DatabaseError, NoEntry) as problem:
                self.warnings.append(f"snapshot {each.name} of {source.address}: {problem}")
                log.warning("%s", self.warnings[-1])
                _discard(target)
        raise UsageError(
            "the journal does not go on from any snapshot that is left: "
            + "; ".join(self.warnings or ["entries are missing; ask more chunkds"])
        )

    async def _ask(self, addresses: Sequence[str]) -> None:
        for address in addresses:
            try:
                files: JournalFiles = await self._client.call(
                    "journal.files", address, Empty(), deadline_s=DEADLINE_S
                )
            except DFSError as problem:
                self._object(f"{address} cannot be asked: {problem}")
                continue
            self._sources.append(_Source(address, files))
            self.warnings += [f"{address}: {name} is damaged" for name in files.damaged]
        clusters = {each.files.cluster_id for each in self._sources} - {""}
        if len(clusters) > 1:
            raise UsageError(f"these chunkds belong to several clusters: {', '.join(clusters)}")

    def _may_start_with(self, base: Position) -> bool:
        wish = self._wish
        return (wish.at_ns is None or base.time_ns <= wish.at_ns) and (
            wish.epoch is None or base.epoch <= wish.epoch
        )

    async def _fetch_segments(self, number: int) -> None:
        """All entries from `number` on."""
        for source in self._sources:
            needed = True
            for segment in reversed(source.segments()):
                if needed and (source.address, segment.name) not in self._known:
                    self._known.add((source.address, segment.name))
                    await self._fetch_segment(source, segment)
                needed = needed and segment.base.number > number

    async def _fetch_segment(self, source: _Source, segment: JournalFile) -> None:
        path = self._directory / f"{source.files.server_id}-{segment.name}"
        await self._download(source, segment, path)
        try:
            parsed = parse_segment(path.read_bytes())
        except ProtocolError as problem:
            self.warnings.append(f"{source.address}: {segment.name}: {problem}")
            return
        if not parsed.is_whole:
            self.warnings.append(f"{source.address}: the end of {segment.name} is torn or damaged")
        self._lineage.add(
            parsed.header.base,
            [Node(each.position, each.previous, str(path)) for each in parsed.entries],
        )

    def _tip(self, base: Position) -> Position:
        tip = self._lineage.tip(self._wish.epoch)
        if tip is None or base.rank > tip.rank:
            return base
        return tip

    def _path(self, tip: Position, base: Position) -> list[Node] | None:
        """The entries from `base` to `tip` in order; None when they do not connect."""
        if tip.digest == base.digest:
            return []
        back = self._lineage.back_from(tip)
        for index, node in enumerate(back):
            if node.previous == base.digest:
                return back[: index + 1][::-1]
        return None

    async def _fetch_snapshot(self, source: _Source, file: JournalFile, target: Path) -> None:
        path = self._directory / "snapshot"
        await self._download(source, file, path)
        with path.open("rb") as stored:
            header, begin = parse_snapshot_head(stored.read(4096))
            stored.seek(begin)
            digest = content_digest()
            with target.open("xb") as made:
                while data := stored.read(PART_BYTES):
                    digest.update(data)
                    made.write(data)
        path.unlink()
        if digest.digest() != header.digest:
            raise ProtocolError("its content is damaged")

    async def _download(self, source: _Source, file: JournalFile, path: Path) -> None:
        with path.open("wb") as made:
            while made.tell() < file.size_bytes:
                request = ReadJournalFile(name=file.name, offset=made.tell(), length=PART_BYTES)
                _empty, data = await self._client.call(
                    "journal.read", source.address, request, deadline_s=DEADLINE_S
                )
                if not data:
                    break
                made.write(data)

    async def _finish(
        self, base: Position, tip: Position, path: list[Node], target: Path
    ) -> Restored:
        for position in self._lineage.left_out(tip):
            self._object(
                f"another history ends with entry {position.number} (term {position.term}): metad "
                "has run on an old copy of its database"
            )
        wish = self._wish
        if wish.at_ns is not None:
            path = [node for node in path if node.position.time_ns <= wish.at_ns]
        epochs = [node.position.epoch for node in self._lineage.nodes.values()]
        epochs += [file.base.epoch for source in self._sources for file in source.files.files]
        with closing(sqlite3.connect(target, isolation_level=None)) as connection:
            connection.execute("PRAGMA synchronous = off")
            if connection.execute("PRAGMA quick_check(1)").fetchall() != [("ok",)]:
                raise ProtocolError("the database in it is damaged")
            if position_of(connection).digest != base.digest:
                raise ProtocolError("it is not of the position that it names")
            await self._replay(connection, path)
            last = position_of(connection)
            self._check_asked(connection)
            _begin_epoch(connection, 1 + max(epochs))
        return Restored(
            snapshot=base,
            position=last,
            replayed=len(path),
            epoch=1 + max(epochs),
            asked=[source.address for source in self._sources],
            warnings=self.warnings,
        )

    async def _replay(self, connection: sqlite3.Connection, path: list[Node]) -> None:
        for first in range(0, len(path), ENTRIES_PER_COMMIT):
            connection.execute("BEGIN")
            for node in path[first : first + ENTRIES_PER_COMMIT]:
                replay(connection, self._entry(node))
            connection.execute("COMMIT")
            await trio.lowlevel.checkpoint()

    def _entry(self, node: Node) -> Entry:
        if self._parsed[0] != node.source:
            entries = parse_segment(Path(node.source).read_bytes()).entries
            self._parsed = (node.source, {each.digest: each for each in entries})
        return self._parsed[1][node.position.digest]

    def _check_asked(self, connection: sqlite3.Connection) -> None:
        asked = {source.files.server_id for source in self._sources}
        for server, address in connection.execute("SELECT id, address FROM server ORDER BY id"):
            if server not in asked:
                self._object(f"server {server} at {address} may know more and was not asked")

    def _object(self, sentence: str) -> None:
        """Something acknowledged may be missing."""
        if not self._wish.accept_loss:
            raise UsageError(f"{sentence}; --accept-loss restores what there is nevertheless")
        self.warnings.append(sentence)


def _begin_epoch(connection: sqlite3.Connection, epoch: int) -> None:
    """The first entry of the new epoch."""
    before = position_of(connection)
    body = encode_changes(
        [
            ("UPDATE setting SET value = ? WHERE name = 'epoch'", [(str(epoch),)]),
            (
                "INSERT OR REPLACE INTO setting VALUES ('reclaim_held', ?)",
                [(f"restored to entry {before.number} of epoch {before.epoch}",)],
            ),
        ]
    )
    entry = seal(msgspec.structs.replace(before, epoch=epoch), before.term, before.time_ns, body)
    connection.execute("BEGIN")
    replay(connection, entry)
    connection.execute("COMMIT")


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
    _fsync(made)
    made.rename(path)
    _fsync(path.parent)


def _fsync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
