"""Rows of sessions: clients that are, or may be, alive, and what goes when one ends.

The service keeps leases in memory (metad/leases) and these rows on disk, so that a restarted metad
knows who may still hold something.  Synchronous functions in the caller's transaction.
"""

from __future__ import annotations

from typing import NamedTuple

from dfswire.errors import SessionLost
from metad.storage.database import Database


class StoredSession(NamedTuple):
    """A row of table session."""

    session: str
    host: str
    mount_point: str
    pid: int
    software: str
    opened_ns: int


def open_session(db: Database, stored: StoredSession) -> None:
    """Remember a new session, whose id must never have been used."""
    db.change("INSERT INTO session VALUES (?, ?, ?, ?, ?, ?, 0)", stored)


def list_sessions(db: Database) -> list[StoredSession]:
    """All sessions that have not been closed, by id."""
    return [
        StoredSession(*row)
        for row in db.read(
            "SELECT id, host, mount_point, pid, software, opened_ns FROM session ORDER BY id"
        )
    ]


def close_session(db: Database, session: str, now_ns: int) -> bool:
    """Forget a session, its stored replies, and its grants (those chunks are dead now).

    False when it is not known, so closing twice is harmless.  From the end of this transaction
    nothing is accepted from the session any more.
    """
    if not db.change("DELETE FROM session WHERE id = ?", (session,)):
        return False
    db.change("DELETE FROM applied WHERE session = ?", (session,))
    db.change(
        "UPDATE chunk SET state = 'dead', dead_since_ns = ?, session = NULL, expires_ns = NULL "
        "WHERE session = ?",
        (now_ns, session),
    )
    return True


def acknowledged(db: Database, session: str) -> int:
    """Up to which sequence the session has its replies.  Raises SessionLost."""
    row = db.read_one("SELECT acknowledged FROM session WHERE id = ?", (session,))
    if row is None:
        raise SessionLost(f"session {session} is unknown or closed")
    number: int = row[0]
    return number
