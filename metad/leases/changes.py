"""Changes of which everybody else is told before they are executed.  Pure; a part of table.py.

If a change were executed first, one client could ask and see it while another, that has not heard
of it yet, still finds the old state in its cache.  So whoever may have cached what a change makes
untrue forgets it first, and from the moment that he is told until the change is executed (or given
up) nobody else may keep an answer about these inodes: nobody would tell him.  (Xattrs and link
targets count as attributes.  The data of a file may be kept meanwhile; who does so is told after.)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from dfswire.messages import Invalidated, Invalidation

AFTER = int(Invalidated.GONE | Invalidated.POLICY)  # asks what is open; or need not be waited for
_DATA = int(Invalidated.DATA)


@dataclass(eq=False)
class Change:
    """One change on its way: who makes it, and what others were told of it."""

    session: str
    inodes: set[int] = field(default_factory=set)
    told: dict[str, dict[tuple[int, bytes], int]] = field(default_factory=dict)

    def untold(self, session: str, change: Invalidation, *, executed: bool) -> Invalidation | None:
        """What this session was not told yet.

        Once the change is `executed`, of data only what it still has counts: it may have asked
        since.
        """
        told = self.told.get(session, {}).get((change.inode, change.name), 0)
        what = change.what & ~(told & ~_DATA if executed else told)
        if what == change.what:
            return change
        return Invalidation(inode=change.inode, what=what, name=change.name) if what else None

    def note(self, tell: Mapping[str, Iterable[Invalidation]]) -> None:
        """They are told this."""
        for session, invalidations in tell.items():
            told = self.told.setdefault(session, {})
            for each in invalidations:
                key = (each.inode, each.name)
                told[key] = told.get(key, 0) | each.what


class Changes:
    """Those of which others were told, and that are not executed."""

    def __init__(self) -> None:
        self._of_inode: dict[int, list[Change]] = {}

    def __bool__(self) -> bool:
        return bool(self._of_inode)

    def add(self, change: Change, inodes: Iterable[int]) -> None:
        """The change is (also) about these inodes."""
        for inode in set(inodes) - change.inodes:
            change.inodes.add(inode)
            self._of_inode.setdefault(inode, []).append(change)

    def end(self, change: Change) -> None:
        """It is executed, or given up.  Idempotent."""
        for inode in change.inodes:
            changes = self._of_inode[inode]
            changes.remove(change)
            if not changes:
                del self._of_inode[inode]
        change.inodes = set()

    def by_others(self, session: str, inode: int) -> bool:
        """Is another session about to change the inode?"""
        return any(each.session != session for each in self._of_inode.get(inode, ()))

    def fleeting(self, session: str, inodes: Iterable[int]) -> list[int]:
        """Those of these inodes of which the session must not keep what it is answered now."""
        if not self._of_inode:
            return []
        return [inode for inode in inodes if self.by_others(session, inode)]
