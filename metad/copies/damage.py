"""What is lost: chunks without a good copy, the ranges of files that name them, and what is known.

Synchronous functions on the database, for salvage.py, status and `dfs fsck --lost`.  A lost range
is `sure` when every disk that has a row of it was asked and none has it; while one of those is away
(failed or down, and not removed) nobody knows.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from itertools import groupby
from typing import NamedTuple

from dfswire.messages import BLOCK_SIZE_BYTES
from dfswire.verify import LostRange
from metad.storage.database import Database

# By the index chunk_live, which begins with the policy.
_NONE_GOOD = "state = 'live' AND policy IN (SELECT key FROM policy) AND good = 0"
# Chunks that files need and no present disk has a good copy of: ?1 are the present ones.
_LOST = (
    "WITH here (disk) AS (SELECT key FROM disk WHERE state = 'active' "
    "AND identity IN (SELECT value FROM json_each(?1))), "
    f"gone (id) AS (SELECT id FROM chunk WHERE {_NONE_GOOD} UNION "
    "SELECT chunk FROM replica WHERE state = 'good' AND disk NOT IN (SELECT disk FROM here)), "
    "lost (id, length, digest) AS (SELECT id, length, digest FROM chunk c WHERE state = 'live' "
    "AND id IN (SELECT id FROM gone) AND NOT EXISTS (SELECT 1 FROM replica r WHERE r.chunk = c.id "
    "AND r.state = 'good' AND r.disk IN (SELECT disk FROM here))) "
)
# The ranges of files in them: of a chunk with rows in `damage` these, of any other all.
_RANGES = (
    "SELECT e.inode, e.offset + max(coalesce(d.offset, 0) - e.chunk_offset, 0) AS start, "
    "min(e.offset + e.length, e.offset - e.chunk_offset + coalesce(d.offset + d.length, l.length)) "
    "AS end, d.chunk IS NOT NULL AS sure FROM lost l JOIN extent e ON e.chunk = l.id "
    "LEFT JOIN damage d ON d.chunk = l.id "
)


class LostChunk(NamedTuple):
    """A live chunk without a good copy on a present disk, and its (disk, state) rows."""

    chunk: bytes
    length: int
    digest: bytes


def lost_chunks(
    db: Database, present: Collection[str], after: bytes, limit: int
) -> list[LostChunk]:
    """Lost chunks with an id greater than `after`, sorted."""
    return [
        LostChunk(*row)
        for row in db.read(
            f"{_LOST} SELECT id, length, digest FROM lost WHERE id > ?2 ORDER BY id LIMIT ?3",
            (json.dumps(list(present)), after, limit),
        )
    ]


def any_lost(db: Database, present: Collection[str]) -> bool:
    """Whether there is one; two index look-ups when the cluster is well."""
    if db.read(f"SELECT 1 FROM chunk WHERE {_NONE_GOOD} LIMIT 1"):
        return True
    return not active_disks(db) <= set(present) and bool(lost_chunks(db, present, b"", 1))


def lost_ranges(db: Database, present: Collection[str], inode: int) -> list[LostRange]:
    """The ranges of one file that cannot be read, in order."""
    rows = db.read(
        f"{_LOST} {_RANGES} WHERE e.inode = ?2 AND start < end ORDER BY start, end",
        (json.dumps(list(present)), inode),
    )
    return _joined((start, end, bool(sure)) for _inode, start, end, sure in rows)


def lost_files(
    db: Database, present: Collection[str], limit: int
) -> tuple[list[tuple[int, list[LostRange]]], int]:
    """Files with lost ranges, at most `limit` of them with the ranges; and how many there are."""
    rows = db.read(
        f"{_LOST} {_RANGES} WHERE start < end ORDER BY e.inode, start, end",
        (json.dumps(list(present)),),
    )
    files = [
        (inode, _joined((start, end, bool(sure)) for _inode, start, end, sure in found))
        for inode, found in groupby(rows, key=lambda row: int(row[0]))
    ]
    return files[:limit], len(files)


def record(db: Database, chunk: bytes, blocks: Iterable[int], now_ns: int) -> None:
    """In a mutation: nobody has these blocks of a chunk."""
    row = db.read_one("SELECT length FROM chunk WHERE id = ? AND state = 'live'", (chunk,))
    if row is None:
        return
    forget(db, chunk)
    for block in sorted(set(blocks)):
        offset = block * BLOCK_SIZE_BYTES
        if offset < row[0]:
            db.change(
                "INSERT INTO damage (chunk, offset, length, since_ns) VALUES (?, ?, ?, ?)",
                (chunk, offset, min(BLOCK_SIZE_BYTES, row[0] - offset), now_ns),
            )


def is_known(db: Database, chunk: bytes) -> bool:
    """Is it written down what of it nobody has?"""
    return bool(db.read("SELECT 1 FROM damage WHERE chunk = ? LIMIT 1", (chunk,)))


def active_disks(db: Database) -> set[str]:
    """Those that were not removed, away ones too."""
    return {disk for (disk,) in db.read("SELECT identity FROM disk WHERE state = 'active'")}


def forget(db: Database, chunk: bytes) -> None:
    """In a mutation: the chunk is whole again, or gone."""
    db.change("DELETE FROM damage WHERE chunk = ?", (chunk,))


def _joined(ranges: Iterable[tuple[int, int, bool]]) -> list[LostRange]:
    """Neighbours that are known alike as one."""
    joined: list[LostRange] = []
    for start, end, sure in ranges:
        last = joined[-1] if joined else None
        if last is not None and last.offset + last.length == start and last.sure == sure:
            joined[-1] = LostRange(offset=last.offset, length=end - last.offset, sure=sure)
        else:
            joined.append(LostRange(offset=start, length=end - start, sure=sure))
    return joined
