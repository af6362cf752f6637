"""Leases with sessions that have names, and what is asked of them most."""

from __future__ import annotations

from dfswire.messages import Invalidated, Invalidation, Lease
from metad.leases.table import Blocked, Leases
from metad.names.orphans import Orphans

FENCE_S = 30.0
ATTR, DATA, NAME, ALL_NAMES, GONE = (
    int(Invalidated.ATTR),
    int(Invalidated.DATA),
    int(Invalidated.NAME),
    int(Invalidated.ALL_NAMES),
    int(Invalidated.GONE),
)
FILE = ATTR | DATA


def change(inode: int, what: int, name: bytes = b"") -> Invalidation:
    return Invalidation(inode=inode, what=what, name=name)


class Names:
    """Leases with the sessions a, b and c, and what is asked of them most."""

    def __init__(self, *sessions: str, synced: bool = True, held_inodes_max: int = 100) -> None:
        self.leases = Leases(FENCE_S, held_inodes_max, first_lease=100)
        self.orphans = Orphans(self.leases)
        for session in sessions:
            self.leases.open(session, 0.0, synced=synced)

    def hold(self, session: str, *inodes: int, parts: int = FILE) -> int:
        return self.leases.hold(session, dict.fromkeys(inodes, parts))

    def tell(self, by_session: str, *changes: Invalidation) -> dict[str, list[Invalidation]]:
        return self.leases.invalidate(changes, by_session).tell

    def confirm(self, session: str) -> None:
        """Everything that it was told until now."""
        self.leases.confirmed(session, 1 << 60)

    def take(self, session: str, inode: int, parts: int = FILE) -> Lease | Blocked:
        return self.leases.take(session, inode, parts, None)

    def lease(self, session: str, inode: int, parts: int = FILE) -> Lease:
        granted = self.take(session, inode, parts)
        assert isinstance(granted, Lease)
        return granted

    def may_tell(self, session: str, inode: int, parts: int = ATTR) -> bool:
        return self.leases.obstacles(session, {inode: parts}) is None

    def asked(self, session: str, inode: int, parts: int = ATTR) -> dict[str, list[Lease]]:
        """Who is recalled when this session looks."""
        blocked = self.leases.obstacles(session, {inode: parts})
        return blocked.recalls if blocked is not None else {}
