"""The invariants of metad's database, one check each; fsck.py runs them.

Every check is one query over whole tables that yields (subject, message) for each violation, so a
healthy database costs a few scans.  What is true of chunks on disks is the scrubbers' business.
"""

from __future__ import annotations

import sqlite3
import stat
from collections.abc import Callable, Iterable

from dfswire.errors import Invalid
from dfswire.messages import ROOT_INODE
from dfswire.operations import ACL_ACCESS, ACL_DEFAULT, FS_KEPT
from metad.names import acl
from metad.storage.database import Database

Violations = Iterable[tuple[str, str]]
Check = Callable[[Database], Violations]

_IS_DIRECTORY = f"(mode & {0o170000}) = {stat.S_IFDIR}"
_IS_REGULAR = f"(mode & {0o170000}) = {stat.S_IFREG}"
_IS_SYMLINK = f"(mode & {0o170000}) = {stat.S_IFLNK}"


# -- names and inodes -----------------------------------------------------------------------------


def check_dentry_inode(db: Database) -> Violations:
    """Every name leads to an inode and is in a directory."""
    return _violations(
        db,
        "SELECT 'dentry ' || cookie, 'names inode ' || d.inode || ', which does not exist' "
        "FROM dentry d WHERE NOT EXISTS (SELECT 1 FROM inode i WHERE i.inode = d.inode) "
        "UNION ALL SELECT 'dentry ' || cookie, 'is in ' || d.parent || ', not a directory' "
        "FROM dentry d WHERE NOT EXISTS "
        f"(SELECT 1 FROM inode i WHERE i.inode = d.parent AND {_IS_DIRECTORY})",
    )


def check_name(db: Database) -> Violations:
    """Names are 1 to 255 bytes without slash and NUL, and not "." or ".."."""
    return _violations(
        db,
        "SELECT 'dentry ' || cookie, 'has the impossible name x''' || hex(name) || '''' "
        "FROM dentry WHERE length(name) NOT BETWEEN 1 AND 255 OR name IN (x'2e', x'2e2e') "
        "OR instr(name, x'2f') OR instr(name, x'00')",
    )


def check_nlink(db: Database) -> Violations:
    """nlink counts the names of a file; of a directory 2 + its subdirectories (0: removed)."""
    files = (
        "SELECT i.inode, nlink, (SELECT count(*) FROM dentry d WHERE d.inode = i.inode) AS counted "
        f"FROM inode i WHERE NOT {_IS_DIRECTORY}"
    )
    directories = (
        "SELECT i.inode, nlink, CASE WHEN i.inode = ?1 OR EXISTS (SELECT 1 FROM dentry d "
        "WHERE d.inode = i.inode) THEN 2 + coalesce(below, 0) ELSE 0 END AS counted FROM inode i "
        "LEFT JOIN (SELECT d.parent AS directory, count(*) AS below FROM dentry d "
        f"JOIN inode c ON c.inode = d.inode WHERE {_IS_DIRECTORY} GROUP BY d.parent) "
        f"ON directory = i.inode WHERE {_IS_DIRECTORY}"
    )
    return _violations(
        db,
        "SELECT 'inode ' || inode, 'nlink is ' || nlink || ', counted ' || counted "
        f"FROM ({files} UNION ALL {directories}) WHERE nlink <> counted",
        (ROOT_INODE,),
    )


def check_parent(db: Database) -> Violations:
    """A directory has one name, in the directory that is its parent; files have no parent."""
    return _violations(
        db,
        "SELECT 'inode ' || i.inode, 'its parent is ' || i.parent || ', its name is in ' || "
        "coalesce(group_concat(d.parent), 'none') FROM inode i "
        f"LEFT JOIN dentry d ON d.inode = i.inode WHERE {_IS_DIRECTORY} AND nlink > 0 "
        "AND i.inode <> ?1 GROUP BY i.inode "
        "HAVING count(d.cookie) <> 1 OR max(d.parent) <> i.parent "
        "UNION ALL SELECT 'inode ' || inode, 'is no directory but has parent ' || parent "
        f"FROM inode WHERE NOT {_IS_DIRECTORY} AND parent <> 0 "
        "UNION ALL SELECT 'inode ' || inode, 'the root has parent ' || parent "
        "FROM inode WHERE inode = ?1 AND parent <> ?1",
        (ROOT_INODE,),
    )


def check_reachable(db: Database) -> Violations:
    """Every directory is reached from the root (there are no cycles), every other inode has a
    name or is an orphan."""
    return _violations(
        db,
        "WITH RECURSIVE tree (inode) AS (VALUES (?1) UNION SELECT i.inode FROM tree "
        "JOIN dentry d ON d.parent = tree.inode JOIN inode i ON i.inode = d.inode) "
        "SELECT 'inode ' || inode, 'cannot be reached from the root' FROM inode "
        "WHERE inode NOT IN (SELECT inode FROM tree) AND inode NOT IN (SELECT inode FROM orphan) "
        "UNION ALL SELECT 'inode ' || ?1, 'the root does not exist' "
        f"WHERE NOT EXISTS (SELECT 1 FROM inode WHERE inode = ?1 AND {_IS_DIRECTORY})",
        (ROOT_INODE,),
    )


def check_orphan(db: Database) -> Violations:
    """Orphans are exactly the inodes with nlink 0."""
    return _violations(
        db,
        "SELECT 'inode ' || o.inode, 'is an orphan, but ' || "
        "coalesce('nlink is ' || i.nlink, 'does not exist') FROM orphan o "
        "LEFT JOIN inode i ON i.inode = o.inode WHERE i.nlink IS NOT 0 "
        "UNION ALL SELECT 'inode ' || inode, 'nlink is 0, but it is not an orphan' FROM inode "
        "WHERE nlink = 0 AND inode NOT IN (SELECT inode FROM orphan)",
    )


def check_size(db: Database) -> Violations:
    """Sizes: none negative, a symlink's that of its target, none where there are no contents."""
    return _violations(
        db,
        "SELECT 'inode ' || inode, 'size is ' || size || ', target has ' || length(target) "
        f"FROM inode WHERE size < 0 OR CASE WHEN {_IS_REGULAR} THEN length(target) > 0 "
        f"WHEN {_IS_SYMLINK} THEN size <> length(target) OR size = 0 "
        "ELSE size <> 0 OR length(target) > 0 END",
    )


def check_flags(db: Database) -> Violations:
    """Flags are those that are kept, on files and directories only."""
    return _violations(
        db,
        "SELECT 'inode ' || inode, 'flags are ' || flags FROM inode WHERE flags & ~?1 "
        f"OR (flags AND NOT {_IS_REGULAR} AND NOT {_IS_DIRECTORY})",
        (FS_KEPT,),
    )


def check_xattr(db: Database) -> Violations:
    """Extended attributes belong to an inode."""
    return _violations(
        db,
        "SELECT 'xattr ' || id, 'of inode ' || inode || ', which does not exist' FROM xattr "
        "WHERE inode NOT IN (SELECT inode FROM inode)",
    )


def check_acl(db: Database) -> Violations:
    """ACLs are well formed and where they can be; an access ACL says the same as the mode."""
    for inode, mode, name, value in db.read(
        "SELECT i.inode, mode, x.name, value FROM xattr x JOIN inode i ON i.inode = x.inode "
        "WHERE x.name IN (?, ?)",
        (ACL_ACCESS, ACL_DEFAULT),
    ):
        subject = f"inode {inode}"
        try:
            entries = acl.parse(value)
        except Invalid as problem:
            yield subject, f"{name!r} is broken: {problem}"
            continue
        if name == ACL_DEFAULT and not stat.S_ISDIR(mode):
            yield subject, "has a default ACL, but is no directory"
        if name == ACL_ACCESS and (not entries or acl.mode_of(entries) != mode & 0o777):
            yield subject, f"its mode is {mode:o}, its ACL says something else"


# -- extents and chunks ---------------------------------------------------------------------------


def check_extent_inode(db: Database) -> Violations:
    """Extents belong to regular files and end within their size."""
    return _violations(
        db,
        "SELECT 'extent ' || e.id, 'bytes ' || offset || '+' || length || ' of inode ' || e.inode "
        f"|| coalesce(iif({_IS_REGULAR}, ', whose size is ' || size, ', not a regular file'), "
        "', which does not exist') FROM extent e LEFT JOIN inode i ON i.inode = e.inode "
        f"WHERE i.inode IS NULL OR NOT {_IS_REGULAR} OR offset < 0 OR offset + length > size",
    )


def check_extent_overlap(db: Database) -> Violations:
    """Extents of one inode do not overlap."""
    return _violations(
        db,
        "SELECT 'extent ' || id, 'bytes ' || offset || '+' || length || ' of inode ' || inode || "
        "' overlap the extent before, which ends at ' || before FROM (SELECT id, inode, offset, "
        "length, max(offset + length) OVER (PARTITION BY inode ORDER BY offset "
        "ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS before FROM extent) "
        "WHERE before > offset",
    )


def check_extent_content(db: Database) -> Violations:
    """An extent has bytes: as many inline as its length, or a part of an existing chunk."""
    return _violations(
        db,
        "SELECT 'extent ' || e.id, CASE WHEN (e.chunk IS NULL) = (data IS NULL) "
        "THEN 'must have a chunk or data' "
        "WHEN data IS NOT NULL THEN 'has ' || length(data) || ' bytes inline, length ' || e.length "
        "WHEN c.id IS NULL THEN 'its chunk ' || hex(e.chunk) || ' does not exist' "
        "ELSE 'ends beyond its chunk ' || hex(e.chunk) END "
        "FROM extent e LEFT JOIN chunk c ON c.id = e.chunk "
        "WHERE (e.chunk IS NULL) = (data IS NULL) OR e.length < 1 OR e.chunk_offset < 0 "
        "OR length(data) <> e.length "
        "OR (e.chunk IS NOT NULL AND (c.id IS NULL OR e.chunk_offset + e.length > c.length))",
    )


def check_allocated(db: Database) -> Violations:
    """allocated_bytes is the sum of an inode's extents."""
    return _violations(
        db,
        "SELECT 'inode ' || i.inode, 'allocated_bytes is ' || allocated_bytes || ', counted ' || "
        "coalesce(total, 0) FROM inode i LEFT JOIN (SELECT inode, sum(length) AS total FROM extent "
        "GROUP BY inode) e ON e.inode = i.inode WHERE allocated_bytes <> coalesce(total, 0)",
    )


def check_refs(db: Database) -> Violations:
    """refs counts the extents that name a chunk."""
    return _violations(
        db,
        "SELECT 'chunk ' || hex(id), 'refs is ' || refs || ', counted ' || counted FROM (SELECT "
        "id, refs, (SELECT count(*) FROM extent e WHERE e.chunk = c.id) AS counted FROM chunk c) "
        "WHERE refs <> counted",
    )


def check_chunk_state(db: Database) -> Violations:
    """Live chunks have references, length and digest; granted ones an end, and a session (or it is
    metad itself that has them made); dead ones a time of death."""
    return _violations(
        db,
        "SELECT 'chunk ' || hex(id), 'is ' || state || ' with refs ' || refs || ', length ' || "
        "length || ', session ' || coalesce(session, 'none') FROM chunk WHERE NOT CASE state "
        "WHEN 'live' THEN refs > 0 AND length > 0 AND length(digest) = 16 AND session IS NULL "
        "AND expires_ns IS NULL AND dead_since_ns IS NULL "
        "WHEN 'granted' THEN refs = 0 AND dead_since_ns IS NULL AND expires_ns IS NOT NULL "
        "AND (session IS NULL OR session IN (SELECT id FROM session)) "
        "WHEN 'dead' THEN refs = 0 AND session IS NULL AND expires_ns IS NULL "
        "AND dead_since_ns IS NOT NULL ELSE 0 END",
    )


def check_good(db: Database) -> Violations:
    """good counts the good replicas of a chunk."""
    return _violations(
        db,
        "SELECT 'chunk ' || hex(id), 'good is ' || good || ', counted ' || counted FROM "
        "(SELECT id, good, (SELECT count(*) FROM replica r WHERE r.chunk = c.id "
        "AND r.state = 'good') AS counted FROM chunk c) WHERE good <> counted",
    )


def check_lost(db: Database) -> Violations:
    """Every live chunk has a good replica somewhere."""
    return _violations(
        db,
        "SELECT 'chunk ' || hex(id), 'has no good replica' FROM chunk c WHERE state = 'live' AND "
        "NOT EXISTS (SELECT 1 FROM replica r WHERE r.chunk = c.id AND r.state = 'good')",
    )


def check_replica(db: Database) -> Violations:
    """Replicas belong to a chunk, a disk, and have a state."""
    return _violations(
        db,
        "SELECT 'replica ' || hex(chunk) || ' on disk ' || disk, CASE "
        "WHEN c.id IS NULL THEN 'its chunk does not exist' "
        "WHEN d.key IS NULL THEN 'its disk does not exist' ELSE 'is ' || r.state END "
        "FROM replica r LEFT JOIN chunk c ON c.id = r.chunk LEFT JOIN disk d ON d.key = r.disk "
        "WHERE c.id IS NULL OR d.key IS NULL "
        "OR r.state NOT IN ('granted', 'good', 'bad', 'excess')",
    )


# -- servers and sessions -------------------------------------------------------------------------


def check_disk(db: Database) -> Violations:
    """Disks belong to a server."""
    return _violations(
        db,
        "SELECT 'disk ' || identity, 'its server ' || server || ' does not exist' FROM disk "
        "WHERE server NOT IN (SELECT id FROM server)",
    )


def check_admin(db: Database) -> Violations:
    """Operators want one of a few things of servers and disks."""
    known = "admin NOT IN ('enabled', 'draining', 'drained', 'removed')"
    return _violations(
        db,
        f"SELECT 'server ' || id, 'is to be ' || admin FROM server WHERE {known} "
        f"UNION ALL SELECT 'disk ' || identity, 'is to be ' || admin FROM disk WHERE {known}",
    )


def check_policy(db: Database) -> Violations:
    """Chunks follow policies that exist, directories have such, and what waits for one exists."""
    return _violations(
        db,
        "SELECT 'chunk ' || hex(id), 'follows policy ' || policy || ', which does not exist' "
        "FROM chunk WHERE policy NOT IN (SELECT key FROM policy) "
        "UNION ALL SELECT 'directory ' || inode, 'has policy ' || policy || ', which does not "
        "exist' FROM directory_policy WHERE policy NOT IN (SELECT key FROM policy) "
        "UNION ALL SELECT 'policy of ' || d.inode, 'is not of a directory' FROM directory_policy d "
        f"WHERE NOT EXISTS (SELECT 1 FROM inode i WHERE i.inode = d.inode AND {_IS_DIRECTORY}) "
        "UNION ALL SELECT 'inode ' || inode, 'waits for a policy, and does not exist' "
        "FROM converging WHERE inode NOT IN (SELECT inode FROM inode) "
        "UNION ALL SELECT 'policy 0', 'does not exist' "
        "WHERE NOT EXISTS (SELECT 1 FROM policy WHERE key = 0)",
    )


def check_applied(db: Database) -> Violations:
    """Stored replies belong to a session."""
    return _violations(
        db,
        "SELECT 'batch ' || sequence, 'of session ' || session || ', which does not exist' "
        "FROM applied WHERE session NOT IN (SELECT id FROM session)",
    )


def check_damage(db: Database) -> Violations:
    """SQLite finds its own pages and indexes sound."""
    try:
        verdicts = db.read("PRAGMA quick_check")
    except sqlite3.DatabaseError as problem:
        return [("database", str(problem))]
    return [("database", text) for (text,) in verdicts if text != "ok"]


def _violations(db: Database, sql: str, parameters: tuple[int, ...] = ()) -> Violations:
    return ((subject, message) for subject, message in db.iterate(sql, parameters))


CHECKS: tuple[Check, ...] = (
    check_dentry_inode,
    check_name,
    check_nlink,
    check_parent,
    check_reachable,
    check_orphan,
    check_size,
    check_flags,
    check_xattr,
    check_acl,
    check_extent_inode,
    check_extent_overlap,
    check_extent_content,
    check_allocated,
    check_refs,
    check_chunk_state,
    check_good,
    check_lost,
    check_replica,
    check_disk,
    check_admin,
    check_policy,
    check_applied,
)
