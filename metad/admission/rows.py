"""Invitations and revocations as rows: what they say must outlive a restart of metad.

Synchronous functions in the caller's transaction; calls.py uses them.
"""

from __future__ import annotations

from dataclasses import dataclass

from dfswire.errors import Forbidden
from metad.storage.database import Database

KEPT_NS = 3600 * 10**9  # after its end, so that who comes late is told why


@dataclass(frozen=True)
class Invitation:
    """Who may join once with the certificate of guest `guest`."""

    guest: str
    role: str
    name: str
    inviter: str
    ends_ns: int


def add_invitation(db: Database, invitation: Invitation, now_ns: int) -> None:
    """Remember it, and forget those that ended long ago."""
    db.change("DELETE FROM invitation WHERE ends_ns < ?", (now_ns - KEPT_NS,))
    db.change(
        "INSERT INTO invitation (id, role, name, inviter, ends_ns, key) "
        "VALUES (?, ?, ?, ?, ?, x'')",
        (
            invitation.guest,
            invitation.role,
            invitation.name,
            invitation.inviter,
            invitation.ends_ns,
        ),
    )


def use_invitation(db: Database, guest: str, key: bytes, now_ns: int) -> tuple[str, str]:
    """(role, name) of who joins with it now; `key` stands for the key that the certificate is for.

    Raises Forbidden when it is unknown, over, or was used with another key.
    """
    row = db.read_one("SELECT role, name, ends_ns, key FROM invitation WHERE id = ?", (guest,))
    if row is None:
        raise Forbidden("this invitation is not known here (any more): ask for another")
    role, name, ends_ns, used_with = row
    if used_with not in (b"", key):
        raise Forbidden(f"this invitation of {role} {name} was used already: ask for another")
    if now_ns >= ends_ns:
        raise Forbidden(f"this invitation of {role} {name} is over: ask for another")
    db.change("UPDATE invitation SET key = ? WHERE id = ?", (key, guest))
    return str(role), str(name)


def revoke(db: Database, role: str, name: str, since_s: int) -> None:
    """Remember from when on certificates of this party count; what it was to invite is void."""
    db.change(
        "INSERT INTO revocation (role, name, since_s) VALUES (?, ?, ?) "
        "ON CONFLICT (role, name) DO UPDATE SET since_s = excluded.since_s",
        (role, name, since_s),
    )
    db.change("DELETE FROM invitation WHERE role = ? AND name = ?", (role, name))
    if role == "operator":
        db.change("DELETE FROM invitation WHERE inviter = ?", (name,))


def revocations(db: Database) -> dict[tuple[str, str], int]:
    """(role, name) -> from when on its certificates count, in Unix seconds."""
    rows = db.read("SELECT role, name, since_s FROM revocation")
    return {(role, name): since_s for role, name, since_s in rows}
