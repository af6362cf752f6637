"""Chunks follow the policies of their directories: the walk that makes it so after a change.

Synchronous functions on the database for policycalls.py, in a mutation.  Table converging is the
frontier of the walk: what is in it is looked at, with everything below, and then goes.  New files
and commits follow the directory at once, and what is renamed, linked or shared meanwhile is put
there again, so that nothing is missed.  A step is bounded, and harmless when repeated.
"""

from __future__ import annotations

import stat
from typing import NamedTuple

from metad.copies import policies
from metad.storage.database import Database

_ENTRIES = (
    "SELECT d.cookie, d.inode, i.mode, p.inode, "
    "(SELECT count(*) FROM extent e WHERE e.inode = d.inode AND e.chunk IS NOT NULL) "
    "FROM dentry d INDEXED BY dentry_parent JOIN inode i ON i.inode = d.inode "
    "LEFT JOIN directory_policy p ON p.inode = d.inode "
    "WHERE d.parent = ? AND d.cookie > ? ORDER BY d.cookie LIMIT ?"
)


class Walked(NamedTuple):
    """What a step has done: inodes looked at, and chunks whose policy changed."""

    inodes: int
    changed: int
    finished: bool


def walk(db: Database, budget: int) -> Walked:
    """Look at about `budget` files, directories and chunks."""
    row = db.read_one("SELECT inode, position FROM converging ORDER BY inode LIMIT 1")
    if row is None:
        return Walked(0, 0, True)
    inode, position = row
    found = db.read_one("SELECT mode FROM inode WHERE inode = ?", (inode,))
    if found is not None and stat.S_ISDIR(found[0]):
        inodes, changed = _walk_directory(db, inode, position, budget)
        return Walked(inodes, changed, False)
    changed, go_on = _walk_file(db, inode, position, budget)
    _advance(db, inode, go_on)
    return Walked(int(go_on is None), changed, False)


def waiting(db: Database) -> int:
    """How many files and directories are to be looked at, without what is below those."""
    ((count,),) = db.read("SELECT count(*) FROM converging")
    return int(count)


def _walk_directory(db: Database, directory: int, position: int, budget: int) -> tuple[int, int]:
    entries = db.read(_ENTRIES, (directory, position, budget))
    changed = looked_at = 0
    go_on: int | None = None
    for cookie, inode, mode, has_own, chunks in entries:
        if budget <= 0:
            break
        go_on = cookie
        budget -= 1 + min(chunks, budget)
        looked_at += 1
        if stat.S_ISDIR(mode):
            if has_own is None:
                policies.converge_later(db, inode)
        elif chunks > budget:
            policies.converge_later(db, inode)  # a step, or several, of its own
        elif chunks:
            changed += _walk_file(db, inode, 0, chunks + 1)[0]
    _advance(db, directory, go_on)
    return looked_at, changed


def _walk_file(db: Database, inode: int, offset: int, limit: int) -> tuple[int, int | None]:
    """(chunks changed, where to go on): the next extents of a file."""
    own = policies.of_file(db, inode)
    keys: dict[int, int] = {inode: own}
    extents = db.read(
        "SELECT offset, chunk FROM extent WHERE inode = ? AND offset >= ? AND chunk IS NOT NULL "
        "ORDER BY offset LIMIT ?",
        (inode, offset, limit),
    )
    changed = 0
    for chunk in dict.fromkeys(chunk for _, chunk in extents):
        sharers = db.read("SELECT DISTINCT inode FROM extent WHERE chunk = ?", (chunk,))
        for (sharer,) in sharers:
            if sharer not in keys:
                keys[sharer] = policies.of_file(db, sharer)
        key = policies.strictest(db, {keys[sharer] for (sharer,) in sharers})
        changed += db.change(
            "UPDATE chunk SET policy = ? WHERE id = ? AND policy <> ?", (key, chunk, key)
        )
    return changed, extents[-1][0] + 1 if len(extents) == limit else None


def _advance(db: Database, inode: int, position: int | None) -> None:
    """There is more to do from `position` on, or (None) nothing."""
    if position is None:
        db.change("DELETE FROM converging WHERE inode = ?", (inode,))
    else:
        db.change("UPDATE converging SET position = ? WHERE inode = ?", (position, inode))
