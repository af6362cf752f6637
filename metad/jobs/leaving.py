"""What disks that leave the cluster still have: for drain and remove.

Synchronous functions on the database; `keys` are disk.key of all disks that leave together.  They
promise that the row of a last good copy goes only when that was asked for, and that no grant of a
disk that is gone can become part of a file.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping

from metad.copies import replicas
from metad.storage.database import Database
from metad.storage.statements import Row

_LEAVING = "leaving (disk) AS (SELECT value FROM json_each(?1))"
# Good copies on those disks that no good one elsewhere, on a disk that can be reached, backs up.
_LAST = (
    "last (chunk) AS (SELECT DISTINCT r.chunk FROM replica r JOIN chunk c ON c.id = r.chunk "
    "WHERE r.disk IN (SELECT disk FROM leaving) AND r.state = 'good' AND c.state = 'live' "
    "AND NOT EXISTS (SELECT 1 FROM replica o WHERE o.chunk = r.chunk AND o.state = 'good' "
    "AND o.disk NOT IN (SELECT disk FROM leaving) AND o.disk IN (SELECT key FROM disk "
    "WHERE state = 'active' AND identity IN (SELECT value FROM json_each(?2)))))"
)


def disk_keys(db: Database, disks: Collection[str]) -> list[int]:
    """The keys of the known ones of these disks."""
    rows = db.read(
        "SELECT key FROM disk WHERE identity IN (SELECT value FROM json_each(?)) ORDER BY key",
        (json.dumps(list(disks)),),
    )
    return [key for (key,) in rows]


def disks_of_server(db: Database, server_id: str) -> list[str]:
    """Every disk that it was the last to report."""
    rows = db.read("SELECT identity FROM disk WHERE server = ? ORDER BY identity", (server_id,))
    return [disk for (disk,) in rows]


def needed(
    db: Database, keys: Collection[int], relied_on: Collection[str], wanted: Mapping[int, int]
) -> tuple[int, int, int]:
    """(chunks, bytes) that have good copies on these disks and too few on those `relied_on`; the
    most copies that any of them shall have."""
    ((count, size, copies),) = db.read(
        f"WITH {_LEAVING}, others (disk) AS (SELECT key FROM disk WHERE state = 'active' "
        "AND identity IN (SELECT value FROM json_each(?2)) "
        "AND key NOT IN (SELECT disk FROM leaving)), "
        "wanted (policy, copies) AS (SELECT CAST(key AS INTEGER), value FROM json_each(?3)) "
        "SELECT count(*), coalesce(sum(length), 0), coalesce(max(copies), 1) "
        "FROM chunk c LEFT JOIN wanted USING (policy) "
        "WHERE c.id IN (SELECT chunk FROM replica WHERE disk IN (SELECT disk FROM leaving) "
        "AND state = 'good') AND c.state = 'live' AND coalesce(copies, 1) > "
        "(SELECT count(*) FROM replica r WHERE r.chunk = c.id AND r.state = 'good' "
        "AND r.disk IN (SELECT disk FROM others))",
        (json.dumps(list(keys)), json.dumps(list(relied_on)), json.dumps(wanted)),
    )
    return count, size, copies


def last_copies(
    db: Database, keys: Collection[int], reachable: Collection[str]
) -> tuple[int, int, int]:
    """(chunks, bytes, files) of which the last good copies that can be reached are there."""
    parameters = (json.dumps(list(keys)), json.dumps(list(reachable)))
    ((count, size),) = db.read(
        f"WITH {_LEAVING}, {_LAST} SELECT count(*), coalesce(sum(length), 0) FROM last "
        "JOIN chunk ON id = chunk",
        parameters,
    )
    ((files,),) = db.read(
        f"WITH {_LEAVING}, {_LAST} SELECT count(DISTINCT inode) FROM last JOIN extent "
        "USING (chunk)",
        parameters,
    )
    return count, size, files


def files_with_last_copies(
    db: Database, keys: Collection[int], reachable: Collection[str], limit: int
) -> list[Row]:
    """(inode, chunks) of the first files that such chunks are part of."""
    return db.read(
        f"WITH {_LEAVING}, {_LAST} SELECT inode, count(DISTINCT chunk) FROM last JOIN extent "
        "USING (chunk) GROUP BY inode ORDER BY inode LIMIT ?3",
        (json.dumps(list(keys)), json.dumps(list(reachable)), limit),
    )


def withdraw_grants(db: Database, keys: Collection[int], now_ns: int) -> int:
    """In a mutation: chunks granted to these disks can't be committed any more.

    Their writers are told so and store the bytes again, elsewhere.
    """
    return db.change(
        f"WITH {_LEAVING} UPDATE chunk SET state = 'dead', dead_since_ns = ?2, session = NULL, "
        "expires_ns = NULL WHERE state = 'granted' AND id IN (SELECT chunk FROM replica "
        "WHERE disk IN (SELECT disk FROM leaving))",
        (json.dumps(list(keys)), now_ns),
    )


def forget_replicas(
    db: Database, key: int, after: bytes, limit: int, *, last_too: bool
) -> tuple[bytes | None, int, int]:
    """In a mutation: forget some copies on a disk, in the order of their chunks.

    (where to go on, or None at the end; how many it looked at; last good ones it left alone).
    """
    rows = db.read(
        "SELECT r.chunk, r.state, c.state, (SELECT count(*) FROM replica o "
        "WHERE o.chunk = r.chunk AND o.disk <> r.disk AND o.state = 'good') "
        "FROM replica r LEFT JOIN chunk c ON c.id = r.chunk "
        "WHERE r.disk = ? AND r.chunk > ? ORDER BY r.chunk LIMIT ?",
        (key, after, limit),
    )
    kept = 0
    for chunk, state, chunk_state, others in rows:
        live = chunk_state == replicas.LIVE
        if state == replicas.GOOD and live and not others and not last_too:
            kept += 1
            continue
        db.change("DELETE FROM replica WHERE chunk = ? AND disk = ?", (chunk, key))
        if state == replicas.GOOD:
            replicas.count_good(db, chunk)
    return (rows[-1][0] if len(rows) == limit else None), len(rows), kept
