"""Checking metad's database; for `dfs fsck`, and the oracle of nearly every test.

Runs the checks of invariants.py on one snapshot, so nothing needs to stand still, and repairs
nothing.
"""

from __future__ import annotations

from collections.abc import Iterator

from dfswire.fsck import Finding, FsckReport
from metad.checks.invariants import CHECKS, check_damage
from metad.checks.queries import Check
from metad.storage.database import Database

_TABLES = ("inode", "dentry", "extent", "chunk", "replica", "orphan")


def run(db: Database, limit: int) -> FsckReport:
    """Run every check; describe at most `limit` findings, count them all.

    Reads all tables: about a second per million rows, so the service calls it through
    Database.read_in_thread.  When SQLite's own pages are damaged nothing else is looked at (nor
    counted): it could not be trusted, or not be read at all.
    """
    with db.snapshot():
        damage = list(_findings(db, check_damage))
        if damage:
            return _report(damage[:limit], len(damage), [0] * len(_TABLES))
        findings: list[Finding] = []
        count = 0
        for finding in (found for check in CHECKS for found in _findings(db, check)):
            count += 1
            if count <= limit:
                findings.append(finding)
        return _report(findings, count, [_count(db, table) for table in _TABLES])


def _findings(db: Database, check: Check) -> Iterator[Finding]:
    name = check.__name__.removeprefix("check_")
    for subject, message in check(db):
        yield Finding(check=name, subject=subject, message=message)


def _report(findings: list[Finding], count: int, rows: list[int]) -> FsckReport:
    inodes, dentries, extents, chunks, replicas, orphans = rows
    return FsckReport(
        findings=findings,
        count=count,
        inodes=inodes,
        dentries=dentries,
        extents=extents,
        chunks=chunks,
        replicas=replicas,
        orphans=orphans,
    )


def _count(db: Database, table: str) -> int:
    ((count,),) = db.read(f"SELECT count(*) FROM {table}")
    return int(count)
