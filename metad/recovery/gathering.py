"""What chunkds have kept of the metadata, put together for a restore.

restore.py asks here for snapshots and for entries of the journal.  Files are fetched into a
directory when they are needed; nothing is believed without its digest, and what is damaged or torn
ends up in `warnings`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from dfswire.client import Client
from dfswire.errors import DFSError, ProtocolError, UsageError
from dfswire.journal import (
    ENTRIES_BYTES,
    Entry,
    JournalFile,
    JournalFiles,
    ReadJournalFile,
    content_digest,
)
from dfswire.journalfile import HEADER_MAX_BYTES, parse_segment, parse_snapshot_head
from dfswire.messages import Empty
from metad.journal.lineage import Lineage, Node

NEWEST = 1 << 62  # an entry's number: of each chunkd the last segment alone
PART_BYTES = 4 * ENTRIES_BYTES
DEADLINE_S = 60.0


@dataclass(frozen=True)
class Source:
    """A chunkd, and its journal files by name."""

    address: str
    files: JournalFiles

    def segments(self) -> list[JournalFile]:
        return [each for each in self.files.files if each.snapshot is None]


class Gathering:
    """See the module's text.  `lineage` has the entries that were fetched so far."""

    def __init__(self, client: Client, directory: Path) -> None:
        self._client = client
        self._directory = directory
        self._fetched: set[tuple[str, str]] = set()
        self._parsed: tuple[str, dict[bytes, Entry]] = ("", {})
        self.sources: list[Source] = []
        self.lineage = Lineage()
        self.warnings: list[str] = []

    async def ask(self, addresses: Sequence[str], problem: Callable[[str], None]) -> None:
        """Find out what there is; `problem` hears of chunkds that don't answer."""
        for address in addresses:
            try:
                files: JournalFiles = await self._client.call(
                    "journal.files", address, Empty(), deadline_s=DEADLINE_S
                )
            except DFSError as error:
                problem(f"{address} cannot be asked: {error}")
                continue
            self.sources.append(Source(address, files))
            self.warnings += [f"{address}: {name} is damaged" for name in files.damaged]
        clusters = {each.files.cluster_id for each in self.sources} - {""}
        if len(clusters) > 1:
            raise UsageError(f"these chunkds belong to several clusters: {', '.join(clusters)}")

    @property
    def asked(self) -> list[str]:
        """Addresses of those that answered."""
        return [source.address for source in self.sources]

    @property
    def servers(self) -> set[str]:
        """Their identities."""
        return {source.files.server_id for source in self.sources}

    def snapshots(self) -> list[tuple[JournalFile, Source]]:
        """All, the newest first."""
        found = [
            (each, source)
            for source in self.sources
            for each in source.files.files
            if each.snapshot is not None
        ]
        return sorted(found, key=lambda one: (one[0].base.epoch, one[0].base.number), reverse=True)

    def newest_epoch(self) -> int:
        """The highest that is known of."""
        entries = (node.position.epoch for node in self.lineage.nodes.values())
        files = (file.base.epoch for source in self.sources for file in source.files.files)
        return max(max(entries, default=0), max(files, default=0))

    async def fetch_segments(self, number: int) -> None:
        """Have all entries from `number` on in `lineage`."""
        for source in self.sources:
            needed = True
            for segment in reversed(source.segments()):
                if needed and (source.address, segment.name) not in self._fetched:
                    self._fetched.add((source.address, segment.name))
                    await self._fetch_segment(source, segment)
                needed = needed and segment.base.number > number

    async def _fetch_segment(self, source: Source, segment: JournalFile) -> None:
        path = self._directory / f"{source.files.server_id}-{segment.name}"
        await self._download(source, segment, path)
        try:
            parsed = parse_segment(path.read_bytes())
        except ProtocolError as problem:
            self.warnings.append(f"{source.address}: {segment.name}: {problem}")
            return
        if not parsed.is_whole:
            self.warnings.append(f"{source.address}: the end of {segment.name} is torn or damaged")
        self.lineage.add(
            parsed.header.base,
            [Node(each.position, each.previous, str(path)) for each in parsed.entries],
        )

    def entry(self, node: Node) -> Entry:
        """With its content."""
        if self._parsed[0] != node.source:
            entries = parse_segment(Path(node.source).read_bytes()).entries
            self._parsed = (node.source, {each.digest: each for each in entries})
        return self._parsed[1][node.position.digest]

    async def fetch_snapshot(self, source: Source, file: JournalFile, target: Path) -> None:
        """The database in it.  Raises ProtocolError when it is damaged."""
        path = self._directory / "snapshot"
        await self._download(source, file, path)
        with path.open("rb") as stored:
            header, begin = parse_snapshot_head(stored.read(HEADER_MAX_BYTES))
            stored.seek(begin)
            digest = content_digest()
            with target.open("xb") as made:
                while data := stored.read(PART_BYTES):
                    digest.update(data)
                    made.write(data)
        path.unlink()
        if digest.digest() != header.digest:
            raise ProtocolError("its content is damaged")

    async def _download(self, source: Source, file: JournalFile, path: Path) -> None:
        with path.open("wb") as made:
            while made.tell() < file.size_bytes:
                request = ReadJournalFile(name=file.name, offset=made.tell(), length=PART_BYTES)
                _empty, data = await self._client.call(
                    "journal.read", source.address, request, deadline_s=DEADLINE_S
                )
                if not data:
                    break
                made.write(data)
