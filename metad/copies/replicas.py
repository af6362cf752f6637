"""Chunks and their replicas as metad believes them to be: redundancy, repair's and reclaim's views.

Synchronous functions on the database for service, repair, reclaim and status; disks are named by
their identity strings.  They keep chunk.good exact.  None of them deletes the row of a chunk that a
file names, and a replica counts only while its state is good.
"""

from __future__ import annotations

import heapq
import json
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from typing import NamedTuple

from dfswire.errors import DiskFailed, UnknownChunk
from dfswire.status import ChunkTotals
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


class EndangeredChunk(NamedTuple):
    """A live chunk with too few good replicas on live disks, and all its (disk, state) pairs."""

    chunk: bytes
    length: int
    digest: bytes
    policy: int
    replicas: list[tuple[str, str]]


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


Abundant = tuple[int, int, int, bytes]
"""(policy, good, length, chunk): the order of index chunk_live."""


def abundant(
    db: Database, wanted: Mapping[int, int], after: Abundant, limit: int
) -> list[Abundant]:
    """Live chunks with more good replicas than `wanted`, by policy, after a place in this order."""
    found: list[Abundant] = []
    for policy, copies in sorted(wanted.items()):
        if policy >= after[0] and len(found) < limit:
            found += db.read(
                "SELECT policy, good, length, id FROM chunk WHERE state = 'live' AND policy = ? "
                "AND good > ? AND (policy, good, length, id) > (?, ?, ?, ?) "
                "ORDER BY policy, good, length, id LIMIT ?",
                (policy, copies, *after, limit - len(found)),
            )
    return found


def count_good(db: Database, chunk: bytes) -> None:
    """Make chunk.good exact again after a change of its replica rows."""
    db.change(
        "UPDATE chunk SET good = (SELECT count(*) FROM replica WHERE chunk = id AND "
        "state = 'good') WHERE id = ?",
        (chunk,),
    )


# Disks that do not count at the moment.  json_each carries a list of any length in one parameter.
_AWAY = (
    "away (disk) AS (SELECT key FROM disk WHERE state <> 'active' "
    "OR identity NOT IN (SELECT value FROM json_each(?1)))"
)
# And those that an operator drains too: copies there can be read, and are sources.
_UNWANTED = (
    "unwanted (disk) AS (SELECT disk FROM away UNION SELECT key FROM disk d "
    "LEFT JOIN server s ON s.id = d.server WHERE d.admin <> 'enabled' OR s.admin <> 'enabled')"
)
# How many copies chunks of each policy shall have.
_WANTED = "wanted (policy, copies) AS (SELECT CAST(key AS INTEGER), value FROM json_each(?2))"


def _affected(disks: str) -> str:
    """Chunks that have good replicas on such disks."""
    return (
        f"SELECT DISTINCT chunk FROM replica WHERE disk IN (SELECT disk FROM {disks}) "
        "AND state = 'good'"
    )


def _present(disks: str) -> str:
    """How many good replicas chunk `c` has elsewhere."""
    return (
        "(SELECT count(*) FROM replica r WHERE r.chunk = c.id AND r.state = 'good' "
        f"AND r.disk NOT IN (SELECT disk FROM {disks}))"
    )


def totals(db: Database, live_disks: Collection[str], wanted: Mapping[int, int]) -> ChunkTotals:
    """Live chunks by good replicas on `live_disks`; fewer than `wanted` is under-replicated.

    `wanted` says so for each policy.  Counts all chunks from the index chunk_live, then corrects
    those with replicas elsewhere, which are few as long as the cluster is well.
    `under_replicated` includes the lost.
    """
    with db.snapshot():
        groups = db.read(
            "SELECT policy, good, count(*), sum(length) FROM chunk WHERE state = 'live' "
            "GROUP BY policy, good"
        )
        corrections = db.read(
            f"WITH {_AWAY} SELECT policy, good, {_present('away')} AS present, count(*) "
            f"FROM ({_affected('away')}) JOIN chunk c ON c.id = chunk WHERE c.state = 'live' "
            "GROUP BY policy, good, present",
            (json.dumps(list(live_disks)),),
        )
        (pending,) = db.read("SELECT count(*) FROM chunk WHERE dead_since_ns IS NOT NULL")
    by_policy = Counter({(policy, good): count for policy, good, count, _bytes in groups})
    for policy, good, present, count in corrections:
        by_policy[policy, good] -= count
        by_policy[policy, present] += count
    counts: Counter[int] = Counter()
    for (_policy, good), count in by_policy.items():
        counts[good] += count
    counts = +counts  # without those that have become 0
    return ChunkTotals(
        total=sum(counts.values()),
        bytes=sum(size for _policy, _good, _count, size in groups),
        under_replicated=sum(
            count for (policy, good), count in by_policy.items() if good < wanted.get(policy, 0)
        ),
        lost=counts[0],
        by_replicas=[counts[n] for n in range(max(counts, default=-1) + 1)],
        pending_delete=pending[0],
    )


class Endangered(NamedTuple):
    """Live chunks with too few good replicas: the most urgent ones, how many there are in all, and
    the bytes to copy until they have enough."""

    urgent: list[bytes]
    chunks: int
    bytes: int


def endangered(
    db: Database, live_disks: Collection[str], wanted: Mapping[int, int], limit: int
) -> Endangered:
    """Live chunks with fewer good replicas than `wanted` on `live_disks` that are not drained.

    The most urgent have the fewest copies anywhere alive; at most `limit` are named.  `wanted` says
    how many for each policy.  Lost chunks (none on any of `live_disks`) are left out: nothing can
    be done for them, and thousands of them must not hide what can be saved.

    The candidates come first, from two indexes: without them SQLite looked at every chunk (of a
    million, with nothing to find, 1.8 s; now under 5 ms: bench/chunks.py).
    """
    chunks = size_bytes = 0

    def found() -> Iterator[tuple[int, int, bytes]]:
        nonlocal chunks, size_bytes
        for chunk, length, missing, present, alive in db.iterate(
            f"WITH {_AWAY}, {_UNWANTED}, {_WANTED}, found (id) AS MATERIALIZED (SELECT id "
            "FROM wanted w CROSS JOIN chunk s ON s.policy = w.policy "
            f"AND s.state = 'live' AND s.good < w.copies UNION {_affected('unwanted')}) "
            f"SELECT id, length, copies - present, present, {_present('away')} AS alive FROM ("
            f"SELECT c.id, length, copies, {_present('unwanted')} AS present "
            "FROM found CROSS JOIN chunk c ON c.id = found.id JOIN wanted USING (policy) "
            "WHERE c.state = 'live' AND present < copies) c WHERE alive > 0",
            (json.dumps(list(live_disks)), json.dumps(wanted)),
        ):
            chunks += 1
            size_bytes += missing * length
            yield alive, present, chunk

    urgent = heapq.nsmallest(limit, found())
    return Endangered([chunk for _alive, _present, chunk in urgent], chunks, size_bytes)


def load_endangered(db: Database, chunk: bytes) -> EndangeredChunk | None:
    """What repair needs to know of a chunk; None when no file names it any more."""
    stored = chunk_info(db, chunk)
    if stored is None or stored.state != LIVE:
        return None
    return EndangeredChunk(
        chunk, stored.length, stored.digest, stored.policy, replicas_of(db, chunk)
    )


def any_short(db: Database, wanted: Mapping[int, int]) -> bool:
    """Has any live chunk fewer good replicas than `wanted`, wherever they are?  From an index."""
    return any(
        db.read_one(
            "SELECT 1 FROM chunk WHERE state = 'live' AND policy = ? AND good < ? LIMIT 1",
            (policy, copies),
        )
        for policy, copies in wanted.items()
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
