"""What one session may have in its caches, by inode and part, until it has confirmed otherwise.

Pure; a part of table.py, which knows all sessions and what they have exclusively.  The promise: a
part may be cached from the moment that the session was told of it until it has confirmed that it
forgot it; at worst it is named too often.
"""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass, field

from dfswire.messages import Invalidated, Invalidation, Part

# Plain numbers: arithmetic with enum.Flag costs a microsecond.
ATTR, DATA, NAMES = int(Part.ATTR), int(Part.DATA), int(Part.NAMES)
_ALL_NAMES, _GONE = int(Invalidated.ALL_NAMES), int(Invalidated.GONE)
_NOTHING = (0, 0)


@dataclass
class Session:
    """What metad knows of one client.

    `held` has every inode that the session was told about, with the parts of which it may have
    something cached (0: told to forget them, though it may still have the inode open).  `telling`:
    parts that it was told to forget, and by which announcement, until it has confirmed that.
    """

    session: str
    expires_s: float  # the fence time
    synced: bool = True  # False: may have anything cached, leased and open (metad was restarted)
    open_known: bool = True  # False: may have anything open (`held` overflowed)
    dropping: int = 0  # the announcement that tells it to drop everything, until it has confirmed
    held: dict[int, int] = field(default_factory=dict)
    telling: dict[int, tuple[int, int]] = field(default_factory=dict)  # in order of announcement

    def may_cache(self, inode: int, parts: int) -> bool:
        if not self.synced or self.dropping:
            return True
        return bool((self.held.get(inode, 0) | self.is_told(inode)) & parts)

    def is_told(self, inode: int) -> int:
        """The parts that it was told to forget and has not confirmed."""
        return self.telling.get(inode, _NOTHING)[0]

    def knows_none(self, inodes: Set[int]) -> bool:
        """A quick no: nothing of these can be cached or open.  (Most sessions, at most changes.)"""
        return (
            self.held.keys().isdisjoint(inodes)
            and (not self.telling or self.telling.keys().isdisjoint(inodes))
            and self.synced
            and self.open_known
            and not self.dropping
        )

    def may_have_open(self, inode: int) -> bool:
        return not self.synced or not self.open_known or inode in self.held

    def must_forget(self, change: Invalidation, announcement: int, *, leased: int) -> bool:
        """Is it to be told of this change?  Then `announcement` does that.

        Not of parts that it has exclusively (`leased`).
        """
        inode, what = change.inode, change.what
        parts = what & (ATTR | DATA | NAMES) | (NAMES if what & _ALL_NAMES else 0)
        if not self.may_cache(inode, parts) and not (what & _GONE and self.may_have_open(inode)):
            return False
        if leased:
            parts &= ~leased
            if not parts and not what & _GONE:
                return False
        gone = parts if what & _ALL_NAMES else parts & ~NAMES  # one name goes, others stay
        held = self.held.get(inode)
        if held is None or not self.synced:
            gone = 0
        else:
            self.held[inode] = held & ~gone
            gone &= held
        earlier = self.telling.pop(inode, _NOTHING)[0]
        if gone | earlier:
            self.telling[inode] = (gone | earlier, announcement)
        return True

    def confirmed(self, announcement: int) -> tuple[list[int], bool]:
        """It has forgotten what it was told up to this announcement: see Leases.confirmed."""
        dropped = 0 < self.dropping <= announcement
        if dropped:
            self.dropping = 0
        done = []
        for inode, (_, told) in self.telling.items():
            if told > announcement:
                break
            done.append(inode)
        for inode in done:
            del self.telling[inode]
        return done, dropped

    def reopened(self) -> None:
        """Its stream is new: everything that it had cached is forgotten."""
        self.held = dict.fromkeys(self.held, 0)
        self.telling.clear()
        self.synced, self.open_known, self.dropping = True, True, 0


def invalidation_of(inode: int, parts: int) -> Invalidation:
    """What tells a session to forget these parts as a whole."""
    what = parts & (ATTR | DATA) | (_ALL_NAMES if parts & NAMES else 0)
    return Invalidation(inode=inode, what=what)
