"""The invariants of extents, chunks and replicas; mendchunks.py mends what breaks them."""

from __future__ import annotations

from metad.checks.queries import IS_REGULAR, Check, Violations, violations
from metad.storage.database import Database


def check_extent_inode(db: Database) -> Violations:
    """Extents belong to regular files and end within their size."""
    return violations(
        db,
        "SELECT 'extent ' || e.id, 'bytes ' || offset || '+' || length || ' of inode ' || e.inode "
        f"|| coalesce(iif({IS_REGULAR}, ', whose size is ' || size, ', not a regular file'), "
        "', which does not exist') FROM extent e LEFT JOIN inode i ON i.inode = e.inode "
        f"WHERE i.inode IS NULL OR NOT {IS_REGULAR} OR offset < 0 OR offset + length > size",
    )


def check_extent_overlap(db: Database) -> Violations:
    """Extents of one inode do not overlap."""
    return violations(
        db,
        "SELECT 'extent ' || id, 'bytes ' || offset || '+' || length || ' of inode ' || inode || "
        "' overlap the extent before, which ends at ' || before FROM (SELECT id, inode, offset, "
        "length, max(offset + length) OVER (PARTITION BY inode ORDER BY offset "
        "ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS before FROM extent) "
        "WHERE before > offset",
    )


def check_extent_content(db: Database) -> Violations:
    """An extent has bytes: as many inline as its length, or a part of an existing chunk."""
    return violations(
        db,
        "SELECT 'extent ' || e.id, CASE WHEN (e.chunk IS NULL) = (data IS NULL) "
        "THEN 'must have a chunk or data' "
        "WHEN data IS NOT NULL THEN 'has ' || length(data) || ' bytes inline, length ' || e.length "
        "WHEN c.id IS NULL THEN 'its chunk ' || lower(hex(e.chunk)) || ' does not exist' "
        "ELSE 'ends beyond its chunk ' || lower(hex(e.chunk)) END "
        "FROM extent e LEFT JOIN chunk c ON c.id = e.chunk "
        "WHERE (e.chunk IS NULL) = (data IS NULL) OR e.length < 1 OR e.chunk_offset < 0 "
        "OR length(data) <> e.length "
        "OR (e.chunk IS NOT NULL AND (c.id IS NULL OR e.chunk_offset + e.length > c.length))",
    )


def check_allocated(db: Database) -> Violations:
    """allocated_bytes is the sum of an inode's extents."""
    return violations(
        db,
        "SELECT 'inode ' || i.inode, 'allocated_bytes is ' || allocated_bytes || ', counted ' || "
        "coalesce(total, 0) FROM inode i LEFT JOIN (SELECT inode, sum(length) AS total FROM extent "
        "GROUP BY inode) e ON e.inode = i.inode WHERE allocated_bytes <> coalesce(total, 0)",
    )


def check_refs(db: Database) -> Violations:
    """refs counts the extents that name a chunk."""
    return violations(
        db,
        "SELECT 'chunk ' || lower(hex(id)), 'refs is ' || refs || ', counted ' || counted FROM "
        "(SELECT id, refs, (SELECT count(*) FROM extent e WHERE e.chunk = c.id) AS counted "
        "FROM chunk c) WHERE refs <> counted",
    )


def check_chunk_state(db: Database) -> Violations:
    """Live chunks have references, length and digest; granted ones an end, and a session (or it is
    metad itself that has them made); dead ones a time of death."""
    return violations(
        db,
        "SELECT 'chunk ' || lower(hex(id)), 'is ' || state || ' with refs ' || refs || ', length ' "
        "|| length || ', session ' || coalesce(session, 'none') FROM chunk WHERE NOT CASE state "
        "WHEN 'live' THEN refs > 0 AND length > 0 AND length(digest) = 16 AND session IS NULL "
        "AND expires_ns IS NULL AND dead_since_ns IS NULL "
        "WHEN 'granted' THEN refs = 0 AND dead_since_ns IS NULL AND expires_ns IS NOT NULL "
        "AND (session IS NULL OR session IN (SELECT id FROM session)) "
        "WHEN 'dead' THEN refs = 0 AND session IS NULL AND expires_ns IS NULL "
        "AND dead_since_ns IS NOT NULL ELSE 0 END",
    )


def check_good(db: Database) -> Violations:
    """good counts the good replicas of a chunk."""
    return violations(
        db,
        "SELECT 'chunk ' || lower(hex(id)), 'good is ' || good || ', counted ' || counted FROM "
        "(SELECT id, good, (SELECT count(*) FROM replica r WHERE r.chunk = c.id "
        "AND r.state = 'good') AS counted FROM chunk c) WHERE good <> counted",
    )


def check_lost(db: Database) -> Violations:
    """Every live chunk has a good replica somewhere."""
    return violations(
        db,
        "SELECT 'chunk ' || lower(hex(id)), 'has no good replica' FROM chunk c "
        "WHERE state = 'live' AND NOT EXISTS "
        "(SELECT 1 FROM replica r WHERE r.chunk = c.id AND r.state = 'good')",
    )


def check_replica(db: Database) -> Violations:
    """Replicas belong to a chunk, a disk, and have a state."""
    return violations(
        db,
        "SELECT 'replica ' || lower(hex(chunk)) || ' on disk ' || disk, CASE "
        "WHEN c.id IS NULL THEN 'its chunk does not exist' "
        "WHEN d.key IS NULL THEN 'its disk does not exist' ELSE 'is ' || r.state END "
        "FROM replica r LEFT JOIN chunk c ON c.id = r.chunk LEFT JOIN disk d ON d.key = r.disk "
        "WHERE c.id IS NULL OR d.key IS NULL "
        "OR r.state NOT IN ('granted', 'good', 'bad', 'excess')",
    )


def check_lost_range(db: Database) -> Violations:
    """What is noted as lost is a part of a chunk that exists."""
    return violations(
        db,
        "SELECT 'damage ' || lower(hex(chunk)), 'bytes ' || offset || '+' || d.length || "
        "coalesce(', its length is ' || c.length, ', which does not exist') "
        "FROM damage d LEFT JOIN chunk c ON c.id = d.chunk "
        "WHERE c.id IS NULL OR offset < 0 OR d.length < 1 OR offset + d.length > c.length",
    )


CHECKS: tuple[Check, ...] = (
    check_extent_inode,
    check_extent_overlap,
    check_extent_content,
    check_allocated,
    check_refs,
    check_chunk_state,
    check_good,
    check_lost,
    check_replica,
    check_lost_range,
)
