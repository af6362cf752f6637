"""The invariants of metad's database, one check each; fsck.py runs them.

Every check is one query over whole tables that yields (subject, message) for each violation, so a
healthy database costs a few scans.  What is true of chunks on disks is the scrubbers' business.
Those of names and of chunks have modules of their own; here are the rest, and the list of all.
"""

from __future__ import annotations

from dfswire.errors import InputOutput, Unavailable
from metad.checks import checkchunks, checknames
from metad.checks.queries import IS_DIRECTORY, Check, Violations, violations
from metad.storage.database import Database


def check_disk(db: Database) -> Violations:
    """Disks belong to a server."""
    return violations(
        db,
        "SELECT 'disk ' || identity, 'its server ' || server || ' does not exist' FROM disk "
        "WHERE server NOT IN (SELECT id FROM server)",
    )


def check_admin(db: Database) -> Violations:
    """Operators want one of a few things of servers and disks."""
    known = "admin NOT IN ('enabled', 'draining', 'drained', 'removed')"
    return violations(
        db,
        f"SELECT 'server ' || id, 'is to be ' || admin FROM server WHERE {known} "
        f"UNION ALL SELECT 'disk ' || identity, 'is to be ' || admin FROM disk WHERE {known}",
    )


def check_policy(db: Database) -> Violations:
    """Chunks follow policies that exist, directories have such, and what waits for one exists."""
    return violations(
        db,
        "SELECT 'chunk ' || lower(hex(id)), 'follows policy ' || policy || ', which does not "
        "exist' FROM chunk WHERE policy NOT IN (SELECT key FROM policy) "
        "UNION ALL SELECT 'directory ' || inode, 'has policy ' || policy || ', which does not "
        "exist' FROM directory_policy WHERE policy NOT IN (SELECT key FROM policy) "
        "UNION ALL SELECT 'policy of ' || d.inode, 'is not of a directory' FROM directory_policy d "
        f"WHERE NOT EXISTS (SELECT 1 FROM inode i WHERE i.inode = d.inode AND {IS_DIRECTORY}) "
        "UNION ALL SELECT 'inode ' || inode, 'waits for a policy, and does not exist' "
        "FROM converging WHERE inode NOT IN (SELECT inode FROM inode) "
        "UNION ALL SELECT 'policy 0', 'does not exist' "
        "WHERE NOT EXISTS (SELECT 1 FROM policy WHERE key = 0)",
    )


def check_applied(db: Database) -> Violations:
    """Stored replies belong to a session."""
    return violations(
        db,
        "SELECT 'batch ' || sequence, 'of session ' || session || ', which does not exist' "
        "FROM applied WHERE session NOT IN (SELECT id FROM session)",
    )


def check_damage(db: Database) -> Violations:
    """SQLite finds its own pages and indexes sound."""
    try:
        verdicts = db.read("PRAGMA quick_check")
    except (InputOutput, Unavailable) as problem:
        return [("database", str(problem))]
    return [("database", text) for (text,) in verdicts if text != "ok"]


CHECKS: tuple[Check, ...] = (
    *checknames.CHECKS,
    *checkchunks.CHECKS,
    check_disk,
    check_admin,
    check_policy,
    check_applied,
)
