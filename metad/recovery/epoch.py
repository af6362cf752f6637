"""The beginning of a new epoch, with which every restore ends.

Its first entry says that nothing may be deleted before `dfs metad release`.  When a part of the
history is left behind, clients have seen what is no more, so it also ends their sessions (their
mounts go on with new ones, and forget everything), and skips the numbers that were given out since:
no program that still has an old file open may meet a new one in its place.  `deleted_since` finds
what the state of an earlier moment lacks, because reclaim has deleted it in the meantime.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

import msgspec

from dfswire.journal import Change, Entry, Position, encode_changes, seal
from metad.journal.replay import position_of, replay

NUMBERS_SKIPPED = 1 << 32  # of inodes and cookies: more than any history has given out

_DELETED = (
    "SELECT count(*), coalesce(sum(length), 0) FROM chunk c WHERE state = 'live' AND NOT EXISTS "
    "(SELECT 1 FROM later.chunk l WHERE l.id = c.id)"
)


def begin_epoch(connection: sqlite3.Connection, epoch: int, *, leaves_behind: bool) -> Entry:
    """Make the first entry of the new epoch."""
    before = position_of(connection)
    changes: list[Change] = [
        ("UPDATE setting SET value = ? WHERE name = 'epoch'", [(str(epoch),)]),
        (
            "INSERT OR REPLACE INTO setting VALUES ('reclaim_held', ?)",
            [(f"restored to entry {before.number} of epoch {before.epoch}",)],
        ),
    ]
    if leaves_behind:
        changes += _leaving(before)
    body = encode_changes(changes)
    entry = seal(msgspec.structs.replace(before, epoch=epoch), before.term, before.time_ns, body)
    connection.execute("BEGIN")
    replay(connection, entry)
    connection.execute("COMMIT")
    return entry


def _leaving(before: Position) -> Sequence[Change]:
    return [
        ("DELETE FROM session", [()]),
        ("DELETE FROM applied", [()]),
        (
            "UPDATE chunk SET state = 'dead', dead_since_ns = ?, session = NULL, "
            "expires_ns = NULL WHERE state = 'granted'",
            [(before.time_ns,)],
        ),
        (
            "UPDATE sqlite_sequence SET seq = seq + ? WHERE name IN ('inode', 'dentry')",
            [(NUMBERS_SKIPPED,)],
        ),
    ]


def deleted_since(connection: sqlite3.Connection, later: str) -> tuple[int, int]:
    """How many chunks of files are unknown to the later database at path `later`, and their bytes:
    they were deleted in between."""
    connection.execute("ATTACH DATABASE ? AS later", (later,))
    try:
        ((chunks, size_bytes),) = connection.execute(_DELETED).fetchall()
    finally:
        connection.execute("DETACH DATABASE later")
    return chunks, size_bytes
