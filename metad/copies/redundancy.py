"""Which chunks have fewer good replicas than wanted, or more: the views of repair, trim and status.

Synchronous functions on the database that look at all chunks at once and change nothing; disks are
named by their identity strings.  They rely on chunk.good, which replicas.py keeps exact, and on the
index that begins with it, so they cost little as long as the cluster is well.
"""

from __future__ import annotations

import heapq
import json
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from typing import NamedTuple

from dfswire.status import ChunkTotals
from metad.copies.replicas import LIVE, chunk_info, replicas_of
from metad.storage.database import Database

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


class EndangeredChunk(NamedTuple):
    """A live chunk with too few good replicas on live disks, and all its (disk, state) pairs."""

    chunk: bytes
    length: int
    digest: bytes
    policy: int
    replicas: list[tuple[str, str]]


class Endangered(NamedTuple):
    """Live chunks with too few good replicas: the most urgent ones, how many there are in all, the
    bytes to copy until they have enough; and how many are lost, which is none of these."""

    urgent: list[bytes]
    chunks: int
    bytes: int
    lost: int = 0


def endangered(
    db: Database, live_disks: Collection[str], wanted: Mapping[int, int], limit: int
) -> Endangered:
    """Live chunks with fewer good replicas than `wanted` on `live_disks` that are not drained.

    The most urgent have the fewest copies anywhere alive; at most `limit` are named.  `wanted` says
    how many for each policy.  Lost chunks (none on any of `live_disks`) are only counted: nothing
    can be done for them, and thousands of them must not hide what can be saved.

    The candidates come first, from two indexes: without them SQLite looked at every chunk (of a
    million, with nothing to find, 1.8 s; now under 5 ms: bench/chunks.py).
    """
    chunks = size_bytes = lost = 0

    def found() -> Iterator[tuple[int, int, bytes]]:
        nonlocal chunks, size_bytes, lost
        for chunk, length, missing, present, alive in db.iterate(
            f"WITH {_AWAY}, {_UNWANTED}, {_WANTED}, found (id) AS MATERIALIZED (SELECT id "
            "FROM wanted w CROSS JOIN chunk s ON s.policy = w.policy "
            f"AND s.state = 'live' AND s.good < w.copies UNION {_affected('unwanted')}) "
            f"SELECT id, length, copies - present, present, {_present('away')} AS alive FROM ("
            f"SELECT c.id, length, copies, {_present('unwanted')} AS present "
            "FROM found CROSS JOIN chunk c ON c.id = found.id JOIN wanted USING (policy) "
            "WHERE c.state = 'live' AND present < copies) c",
            (json.dumps(list(live_disks)), json.dumps(wanted)),
        ):
            if not alive:
                lost += 1
                continue
            chunks += 1
            size_bytes += missing * length
            yield alive, present, chunk

    urgent = heapq.nsmallest(limit, found())
    return Endangered([chunk for _alive, _present, chunk in urgent], chunks, size_bytes, lost)


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
