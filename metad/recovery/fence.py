"""The hold after a restore: nothing is deleted that a database made from old pieces does not know.

`dfs metad restore` sets it, `dfs metad release` ends it; reclaim, trimming and the inventories ask.
"""

from __future__ import annotations

from metad.storage.database import Database


def reclaim_held(db: Database) -> str:
    """Why nothing may be deleted: a restore that no operator has confirmed; "" when it may."""
    row = db.read_one("SELECT value FROM setting WHERE name = 'reclaim_held'")
    return str(row[0]) if row is not None else ""


def release(db: Database) -> None:
    """In a mutation: the restored database is what counts."""
    db.change("DELETE FROM setting WHERE name = 'reclaim_held'")
