"""Exclusive leases: which session alone may have (and change at home) which parts of an inode.

Pure; a part of table.py, which knows who shares what.  Each lease has a number, larger than all
before it, those of earlier metads included.  Whatever is said of a lease names its number and is
void when the session has been granted a newer one since: messages may be late or come twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from dfswire.messages import Lease

Recalls = dict[str, list[Lease]]
"""Session -> the leases (of these the parts) that it is to give back."""


@dataclass(slots=True)
class Exclusive:
    """What one session has of one inode; `recalled` are the parts that it was asked for."""

    parts: int
    number: int
    recalled: int = 0


class Exclusives:
    """All exclusive leases, by inode and by session."""

    def __init__(self, first_number: int) -> None:
        self._number = first_number
        self._of_inode: dict[int, dict[str, Exclusive]] = {}
        self._of_session: dict[str, dict[int, Exclusive]] = {}

    @property
    def count(self) -> int:
        """Of all sessions."""
        return sum(len(held) for held in self._of_session.values())

    def only_of(self, session: str) -> bool:
        """Does no other session hold anything?"""
        return not self._of_session or (len(self._of_session) == 1 and session in self._of_session)

    def parts(self, session: str, inode: int) -> int:
        """The parts of `inode` that `session` holds."""
        held = self._of_inode.get(inode)
        return held[session].parts if held and session in held else 0

    def contradicts(self, session: str, wanted: Mapping[int, int]) -> bool:
        """Does another session hold any of the wanted parts?"""
        return any(True for _ in self._others(session, wanted))

    def current(self, session: str, lease: Lease) -> bool:
        """Is this still the session's lease, and not asked for by anybody?"""
        held = self._of_inode.get(lease.inode, {}).get(session)
        return held is not None and held.number == lease.number and not held.recalled

    def grant(self, session: str, inode: int, parts: int) -> Lease:
        """`parts` in addition to what is held; nobody else has them (the caller has looked)."""
        self._number += 1
        exclusive = Exclusive(parts | self.parts(session, inode), self._number)
        self._put(session, inode, exclusive)
        return Lease(inode=inode, parts=exclusive.parts, number=exclusive.number)

    def recall(self, session: str, wanted: Mapping[int, int]) -> Recalls:
        """The holders that must be asked for parts that they were not yet asked for."""
        recalls: Recalls = {}
        for inode, holder, exclusive in self._others(session, wanted):
            asked = exclusive.parts & wanted[inode] & ~exclusive.recalled
            if asked:
                exclusive.recalled |= asked
                lease = Lease(inode=inode, parts=exclusive.recalled, number=exclusive.number)
                recalls.setdefault(holder, []).append(lease)
        return recalls

    def give_back(self, session: str, lease: Lease) -> int:
        """The parts that ended; 0 when the lease is another one by now."""
        held = self._of_inode.get(lease.inode, {}).get(session)
        if held is None or held.number != lease.number:
            return 0
        ended = held.parts & lease.parts
        held.parts &= ~ended
        held.recalled &= held.parts
        if not held.parts:
            self.drop(session, lease.inode)
        return ended

    def drop(self, session: str, inode: int) -> None:
        """The session has nothing of the inode any more, whatever the number."""
        of_session = self._of_session.get(session, {})
        if of_session.pop(inode, None) is None:
            return
        if not of_session:
            del self._of_session[session]
        of_inode = self._of_inode[inode]
        del of_inode[session]
        if not of_inode:
            del self._of_inode[inode]

    def end(self, session: str) -> list[int]:
        """Everything of a session ends; the inodes that it held something of."""
        inodes = list(self._of_session.get(session, ()))
        for inode in inodes:
            self.drop(session, inode)
        return inodes

    def adopt(self, session: str, lease: Lease) -> bool:
        """Granted by an earlier metad, says the session.  False: somebody has a newer one.

        Only a lease that was given back can have a successor; its old holder did not hear that
        metad had heard of it.
        """
        contradicting = list(self._others(session, {lease.inode: lease.parts}))
        if any(exclusive.number > lease.number for _, _, exclusive in contradicting):
            return False
        for inode, holder, _ in contradicting:
            self.drop(holder, inode)
        self._number = max(self._number, lease.number)
        self._put(session, lease.inode, Exclusive(lease.parts, lease.number))
        return True

    def reopened(self, session: str, used: Iterable[Lease]) -> list[Lease]:
        """The session said on a new stream what it still uses: what it must be asked for there.

        That is what it was asked for before, and all that it does not use: it may not even know
        of a grant whose answer was lost.
        """
        still = {lease.inode: lease.parts for lease in used}
        asked = []
        for inode, exclusive in self._of_session.get(session, {}).items():
            exclusive.recalled |= exclusive.parts & ~still.get(inode, 0)
            if exclusive.recalled:
                asked.append(Lease(inode=inode, parts=exclusive.recalled, number=exclusive.number))
        return asked

    def _put(self, session: str, inode: int, exclusive: Exclusive) -> None:
        self._of_inode.setdefault(inode, {})[session] = exclusive
        self._of_session.setdefault(session, {})[inode] = exclusive

    def _others(
        self, session: str, wanted: Mapping[int, int]
    ) -> Iterable[tuple[int, str, Exclusive]]:
        """Who has any of the wanted parts."""
        for inode, parts in wanted.items():
            for holder, exclusive in self._of_inode.get(inode, {}).items():
                if holder != session and exclusive.parts & parts:
                    yield inode, holder, exclusive
