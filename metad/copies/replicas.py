"""Chunks and replicas as metad believes them to be: each by itself, from granted to forgotten.

Synchronous functions on the database for all of metad; disks are named by their identity strings.
They keep chunk.good exact.  None of them deletes the row of a chunk that a file names, and a
replica counts only while its state is good.  Which chunks have too few or too many is asked of
redundancy.py.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import NamedTuple

from dfswire.errors import DiskFailed, UnknownChunk
from metad.copies import damage
from metad.storage.database import Database

GRANTED, LIVE, DEAD = "granted", "live", "dead"  # chunk.state
GOOD, BAD, EXCESS = "good", "bad", "excess"  # replica.state, besides GRANTED


class StoredChunk(NamedTuple):
    """A row of table chunk."""

    chunk: bytes
    length: int
    digest: bytes
    refs: int
    state: str
    policy: int


def disk_key(db: Database, disk: str) -> int:
    """The integer that stands for a disk in table replica.  Raises DiskFailed when unknown."""
    row = db.read_one("SELECT key FROM disk WHERE identity = ?", (disk,))
    if row is None:
        raise DiskFailed(f"no server has registered disk {disk}")
    key: int = row[0]
    return key


def chunk_info(db: Database, chunk: bytes) -> StoredChunk | None:
    """The chunk's row, or None when metad does not know the id."""
    row = db.read_one(
        "SELECT id, length, digest, refs, state, policy FROM chunk WHERE id = ?", (chunk,)
    )
    return StoredChunk(*row) if row else None


def replicas_of(db: Database, chunk: bytes) -> list[tuple[str, str]]:
    """(disk, state) of every replica row of a chunk."""
    return [
        (disk, state)
        for disk, state in db.read(
            "SELECT identity, r.state FROM replica r JOIN disk ON key = r.disk "
            "WHERE chunk = ? ORDER BY identity",
            (chunk,),
        )
    ]


def set_replica(db: Database, chunk: bytes, disk: str, state: str) -> None:
    """Say what the replica of a chunk on a disk is, adding its row when there is none.

    `state` is granted, good or bad (see `condemn` for excess).  Raises UnknownChunk,
    DiskFailed (unknown disk).
    """
    if chunk_info(db, chunk) is None:
        raise UnknownChunk(f"no chunk {chunk.hex()}")
    db.change(
        "INSERT INTO replica (chunk, disk, state) VALUES (?, ?, ?) "
        "ON CONFLICT (chunk, disk) DO UPDATE SET state = excluded.state",
        (chunk, disk_key(db, disk), state),
    )
    if state == GOOD:
        damage.forget(db, chunk)
    count_good(db, chunk)


def add_replica(db: Database, chunk: bytes, disk: str) -> None:
    """A verified copy was made: the disk has a good replica.  Raises as set_replica does."""
    set_replica(db, chunk, disk, GOOD)


def remove_replica(db: Database, chunk: bytes, disk: str) -> None:
    """The disk does not have the chunk (any more); harmless when metad knew of none."""
    db.change(
        "DELETE FROM replica WHERE chunk = ? AND disk = (SELECT key FROM disk WHERE identity = ?)",
        (chunk, disk),
    )
    count_good(db, chunk)


def condemn(db: Database, chunk: bytes, disk: str) -> None:
    """A good replica too many is on its way out: it counts for nothing from now on."""
    db.change(
        "UPDATE replica SET state = 'excess' WHERE chunk = ? AND state = 'good' "
        "AND disk = (SELECT key FROM disk WHERE identity = ?)",
        (chunk, disk),
    )
    count_good(db, chunk)


def disks_with_condemned(db: Database) -> list[str]:
    """Disks that have replicas on their way out."""
    return [
        disk
        for (disk,) in db.read(
            "SELECT identity FROM disk WHERE key IN "
            "(SELECT DISTINCT disk FROM replica WHERE state = 'excess') ORDER BY identity"
        )
    ]


def count_condemned(db: Database) -> int:
    """How many replicas are on their way out."""
    ((count,),) = db.read("SELECT count(*) FROM replica WHERE state = 'excess'")
    return int(count)


def condemned(db: Database, disk: str, limit: int) -> list[bytes]:
    """Live chunks whose replica on a disk is on its way out."""
    return [
        chunk
        for (chunk,) in db.read(
            "SELECT r.chunk FROM replica r JOIN chunk c ON c.id = r.chunk WHERE r.disk = "
            "(SELECT key FROM disk WHERE identity = ?) AND r.state = 'excess' "
            "AND c.state = 'live' ORDER BY r.chunk LIMIT ?",
            (disk, limit),
        )
    ]


def count_good(db: Database, chunk: bytes) -> None:
    """Make chunk.good exact again after a change of its replica rows."""
    db.change(
        "UPDATE chunk SET good = (SELECT count(*) FROM replica WHERE chunk = id AND "
        "state = 'good') WHERE id = ?",
        (chunk,),
    )


def expire_grants(db: Database, now_ns: int, limit: int) -> int:
    """Granted chunks whose time is over become dead; how many (at most `limit`)."""
    return db.change(
        "UPDATE chunk SET state = 'dead', dead_since_ns = ?1, session = NULL, expires_ns = NULL "
        "WHERE id IN "
        "(SELECT id FROM chunk WHERE expires_ns <= ?1 ORDER BY expires_ns, id LIMIT ?2)",
        (now_ns, limit),
    )


def dead_chunks(
    db: Database, dead_before_ns: int, limit: int, on: Collection[str] | None = None
) -> list[tuple[bytes, list[str]]]:
    """Chunks dead since before a time, oldest first, with every disk that may have a replica.

    `on`: only those that one of these disks may have.
    """
    there = (
        "AND (?3 IS NULL OR EXISTS (SELECT 1 FROM replica r JOIN disk ON key = r.disk WHERE "
        "r.chunk = chunk.id AND identity IN (SELECT value FROM json_each(?3)))) "
    )
    with db.snapshot():
        found = db.read(
            f"SELECT id FROM chunk WHERE dead_since_ns < ?1 {there}ORDER BY dead_since_ns LIMIT ?2",
            (dead_before_ns, limit, None if on is None else json.dumps(sorted(on))),
        )
        return [(chunk, [disk for disk, _state in replicas_of(db, chunk)]) for (chunk,) in found]


def forget_chunk(db: Database, chunk: bytes) -> bool:
    """Forget a dead chunk and its replicas once its bytes are deleted; False: it is not dead."""
    if not db.change("DELETE FROM chunk WHERE id = ? AND state = 'dead'", (chunk,)):
        return False
    db.change("DELETE FROM replica WHERE chunk = ?", (chunk,))
    damage.forget(db, chunk)
    return True
