"""Repairing extents, chunks and what belongs to them; see mend.py."""

from __future__ import annotations

import stat

from dfswire.messages import FILE_MAX_BYTES
from metad.checks.rescue import Mended, Rescue
from metad.names import extents

_TYPE = f"(mode & {0o170000})"
_DIRECTORY = f"{_TYPE} = {stat.S_IFDIR}"
_REGULAR = f"{_TYPE} = {stat.S_IFREG}"


def mend_extent_inode(work: Rescue) -> Mended:
    for (inode,) in work.all(
        "SELECT DISTINCT e.inode FROM extent e LEFT JOIN inode i USING (inode) "
        f"WHERE i.inode IS NULL OR NOT {_REGULAR}"
    ):
        yield f"inode {inode}", _rescue_extents(work, inode, 0)
    for inode, size in work.all(
        "SELECT DISTINCT inode, size FROM extent JOIN inode USING (inode) "
        f"WHERE {_REGULAR} AND size >= 0 AND offset + length > size AND offset >= 0"
    ):
        yield f"inode {inode}", _rescue_extents(work, inode, size)


def _rescue_extents(work: Rescue, inode: int, start: int) -> str:
    """Move what an inode has from `start` on to a new file in /lost+found."""
    exists = work.one("SELECT 1 FROM inode WHERE inode = ?", inode)
    (end,) = work.all("SELECT max(offset + length) FROM extent WHERE inode = ?", inode)[0]
    rescued = work.insert_inode(None, stat.S_IFREG | 0o600, nlink=1, size=end)
    extents.copy_extents(work.db, inode, start, end, rescued, start, work.now_ns)
    extents.cut_extents(work.db, inode, start, FILE_MAX_BYTES, work.now_ns)
    if exists:
        work.effects.data(inode)
    name = work.put_name(rescued, b"#%d" % inode)
    return f"bytes {start} to {end}, which cannot be there, are in {name}"


def mend_allocated(work: Rescue) -> Mended:
    for inode, allocated in work.db.read(
        "UPDATE inode SET allocated_bytes = total FROM (SELECT i.inode AS which, "
        "coalesce(sum(e.length), 0) AS total FROM inode i LEFT JOIN extent e USING (inode) "
        "GROUP BY i.inode) WHERE inode = which AND allocated_bytes <> total "
        "RETURNING inode, allocated_bytes"
    ):
        work.effects.attr(inode)
        yield f"inode {inode}", f"allocated_bytes is {allocated}"


def mend_refs(work: Rescue) -> Mended:
    for chunk, refs in work.db.read(
        "UPDATE chunk SET refs = (SELECT count(*) FROM extent e WHERE e.chunk = chunk.id) "
        "WHERE refs <> (SELECT count(*) FROM extent e WHERE e.chunk = chunk.id) "
        "RETURNING id, refs"
    ):
        yield f"chunk {chunk.hex()}", f"refs is {refs}"


def mend_good(work: Rescue) -> Mended:
    count = "(SELECT count(*) FROM replica r WHERE r.chunk = id AND r.state = 'good')"
    for chunk, good in work.db.read(
        f"UPDATE chunk SET good = {count} WHERE good <> {count} RETURNING id, good"
    ):
        yield f"chunk {chunk.hex()}", f"good is {good}"


def mend_chunk_state(work: Rescue) -> Mended:
    for sql, action in (
        (
            "UPDATE chunk SET state = 'live', session = NULL, expires_ns = NULL, "
            "dead_since_ns = NULL WHERE refs > 0 AND length > 0 AND length(digest) = 16 "
            "AND (state <> 'live' OR session IS NOT NULL OR expires_ns IS NOT NULL "
            "OR dead_since_ns IS NOT NULL)",
            "is live: a file names it",
        ),
        (
            "UPDATE chunk SET state = 'dead', session = NULL, expires_ns = NULL, "
            "dead_since_ns = coalesce(dead_since_ns, ?1) WHERE refs = 0 AND NOT CASE state "
            "WHEN 'granted' THEN dead_since_ns IS NULL AND expires_ns IS NOT NULL "
            "AND (session IS NULL OR session IN (SELECT id FROM session)) "
            "WHEN 'dead' THEN session IS NULL AND expires_ns IS NULL "
            "AND dead_since_ns IS NOT NULL ELSE 0 END",
            "is dead: no file names it, and nobody may write it",
        ),
    ):
        parameters = (work.now_ns,) if "?1" in sql else ()
        for (chunk,) in work.db.read(f"{sql} RETURNING id", parameters):
            yield f"chunk {chunk.hex()}", action


def mend_replica(work: Rescue) -> Mended:
    for chunk, disk in work.db.read(
        "DELETE FROM replica WHERE chunk NOT IN (SELECT id FROM chunk) "
        "OR disk NOT IN (SELECT key FROM disk) RETURNING chunk, disk"
    ):
        action = "forgotten: its chunk or its disk does not exist"
        yield f"replica {chunk.hex()} on disk {disk}", action
    for chunk, disk in work.db.read(
        "UPDATE replica SET state = 'bad' WHERE state NOT IN ('granted', 'good', 'bad', 'excess') "
        "RETURNING chunk, disk"
    ):
        yield f"replica {chunk.hex()} on disk {disk}", "not believed in"


def mend_lost_range(work: Rescue) -> Mended:
    for (chunk,) in work.db.read(
        "DELETE FROM damage WHERE length < 1 OR offset < 0 OR NOT EXISTS "
        "(SELECT 1 FROM chunk c WHERE c.id = chunk AND offset + damage.length <= c.length) "
        "RETURNING chunk"
    ):
        yield f"damage {chunk.hex()}", "forgotten: there are no such bytes"


def mend_policy(work: Rescue) -> Mended:
    for (chunk,) in work.db.read(
        "UPDATE chunk SET policy = 0 WHERE policy NOT IN (SELECT key FROM policy) "
        "AND EXISTS (SELECT 1 FROM policy WHERE key = 0) RETURNING id"
    ):
        yield f"chunk {chunk.hex()}", "follows the cluster's default policy"
    for (inode,) in work.db.read(
        "DELETE FROM directory_policy WHERE inode NOT IN "
        f"(SELECT inode FROM inode WHERE {_DIRECTORY}) RETURNING inode"
    ):
        yield f"inode {inode}", "no directory: it has no policy"
    for (inode,) in work.db.read(
        "DELETE FROM converging WHERE inode NOT IN (SELECT inode FROM inode) RETURNING inode"
    ):
        yield f"inode {inode}", "does not exist: nothing of it converges"


def mend_applied(work: Rescue) -> Mended:
    for session, sequence in work.db.read(
        "DELETE FROM applied WHERE session NOT IN (SELECT id FROM session) "
        "RETURNING session, sequence"
    ):
        yield f"batch {sequence}", f"forgotten: there is no session {session}"
