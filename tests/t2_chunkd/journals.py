"""Entries, snapshots and a journal directory, for the tests of what a chunkd keeps of metad."""

from __future__ import annotations

from pathlib import Path

import msgspec

from chunkd.journal import Journal
from dfswire import codec
from dfswire.journal import NOWHERE, Entry, Position, Snapshot, content_digest, encode_changes, seal

CLUSTER = "c" * 32
START = msgspec.structs.replace(NOWHERE, epoch=1, term=1)


def entries(after: Position, count: int, *, size_bytes: int = 100) -> list[Entry]:
    """A history; each entry is a second later than the one before."""
    found = []
    for number in range(count):
        body = encode_changes([("INSERT INTO t VALUES (?)", [(bytes(size_bytes), number)])])
        entry = seal(after, after.term, after.time_ns + 10**9, body)
        found.append(entry)
        after = entry.position
    return found


def encoded(history: list[Entry]) -> list[bytes]:
    return [codec.encode(each) for each in history]


def opened(root: Path, *, kept_s: float = 1000.0, segment_bytes: int = 2000) -> Journal:
    """The journal of a process that has just started."""
    journal = Journal(root, kept_s=kept_s, max_bytes=1 << 30, segment_bytes=segment_bytes)
    journal.load()
    return journal


def snapshot_of(position: Position, content: bytes = b"database") -> Snapshot:
    digest = content_digest()
    digest.update(content)
    return Snapshot(
        cluster_id=CLUSTER, position=position, size_bytes=len(content), digest=digest.digest()
    )


def keep_snapshot(journal: Journal, position: Position, content: bytes = b"database") -> None:
    """As it arrives."""
    writer = journal.begin_snapshot(snapshot_of(position, content))
    writer.add(content[:3])
    writer.add(content[3:])
    writer.finish()
