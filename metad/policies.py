"""Policies: how many replicas and what chunk size a part of the tree has.

Today the root's policy is the only one, and the settings of metad state it at each start;
service.py settles that, and everything that places or repairs chunks asks the policy, not the
settings.
"""

from __future__ import annotations

from dataclasses import dataclass

from dfswire.messages import ROOT_INODE
from metad.database import Database


@dataclass(frozen=True)
class Policy:
    """A row of table policy."""

    replicas: int
    chunk_size_bytes: int


def settle(db: Database, stated: Policy) -> Policy:
    """Make what the settings state the root's policy; the database keeps it."""
    row = db.read_one(
        "SELECT replicas, chunk_size_bytes FROM policy WHERE inode = ?", (ROOT_INODE,)
    )
    if row is None or Policy(*row) != stated:
        with db.transaction():
            db.change(
                "INSERT OR REPLACE INTO policy VALUES (?, ?, ?)",
                (ROOT_INODE, stated.replicas, stated.chunk_size_bytes),
            )
    return stated
