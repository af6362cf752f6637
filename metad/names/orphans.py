"""Unlinked inodes that somebody may still have open: they live until the last one says otherwise.

Pure.  An inode that loses its last name (or is made without one) is an orphan from then on; every
session that may have it open keeps it.  Functions return the inodes that nobody has open (any
more): purge them now.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from metad.leases.table import Leases


class Orphans:
    """The orphans, and which sessions may have each of them open."""

    def __init__(self, leases: Leases) -> None:
        self._leases = leases
        self._openers: dict[int, set[str]] = {}

    def add(self, inode: int, by_session: str, *, held: bool) -> bool:
        """`inode` lost its last name through `by_session`, which has it open if `held`.

        Returns True when nobody can have it open.
        """
        openers = {
            each.session
            for each in self._leases
            if each.session != by_session and each.may_have_open(inode)
        }
        if held:
            openers.add(by_session)
        if openers:
            self._openers[inode] = openers
        else:
            self._leases.forget(by_session, inode)
        return not openers

    def load(self, inode: int) -> bool:
        """An orphan found in the database at start: every unsynced session may have it open.

        Returns True when there is no such session.
        """
        openers = set(self._leases.unsynced())
        if openers:
            self._openers[inode] = openers
        return not openers

    def adopt(self, inode: int) -> None:
        """`inode` has got its first name: it does not go when nobody has it open."""
        self._openers.pop(inode, None)

    def release(self, session: str, inode: int) -> bool:
        """The session has the orphan neither open nor cached.  True when nobody has it open."""
        if inode not in self._openers:
            return False
        self._leases.forget(session, inode)
        return bool(self._release(session, [inode]))

    def reopened(self, session: str, open_inodes: Collection[int]) -> list[int]:
        """The session reopened its stream and said what it has open."""
        opened = frozenset(open_inodes)
        for inode in opened & self._openers.keys():
            self._openers[inode].add(session)
        return self._release(session, [i for i in self._openers if i not in opened])

    def end(self, session: str) -> list[int]:
        """The session is no more.  Idempotent."""
        return self._release(session, list(self._openers))

    def _release(self, session: str, inodes: Iterable[int]) -> list[int]:
        unused = []
        for inode in inodes:
            openers = self._openers[inode]
            openers.discard(session)
            if not openers:
                del self._openers[inode]
                unused.append(inode)
        return unused
