"""Changes of which everybody else is told before they are executed.  Pure; a part of sharing.py.

If a change were executed first, one client could ask and see it while another, that has not heard
of it yet, still finds the old state in its cache.  So whoever may have cached what a change makes
untrue forgets it first, and from the moment that he is told until the change is executed (or given
up) nobody else may keep an answer about it: nobody would tell him.  (Xattrs and link targets count
as attributes.  The data of a file may be kept meanwhile; who does so is told after.)
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from dfswire.messages import Invalidated, Invalidation
from metad.leases.knowledge import ATTR, DATA, NAMES

AFTER = int(Invalidated.GONE | Invalidated.POLICY)  # asks what is open; or need not be waited for
_NAME, _ALL_NAMES = int(Invalidated.NAME), int(Invalidated.ALL_NAMES)

Names = Mapping[int, Collection[bytes]]
"""Directory -> the names of it that an answer tells of, when it does not tell of all."""


@dataclass(frozen=True)
class Fleeting:
    """What a session must not keep: attributes of inodes, and names of directories."""

    attributes: list[int] = field(default_factory=list)
    names: list[int] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.attributes or self.names)


NOTHING = Fleeting()
ALL_NAMES: Names = {}


@dataclass(eq=False)
class Change:
    """One change on its way: who makes it, what is marked for it, and what others were told."""

    session: str
    marks: dict[int, tuple[int, set[bytes]]] = field(default_factory=dict)  # what, and which names
    told: dict[str, dict[tuple[int, bytes], int]] = field(default_factory=dict)

    @property
    def inodes(self) -> Collection[int]:
        """All that it is about."""
        return self.marks.keys()

    def untold(self, session: str, change: Invalidation, *, executed: bool) -> Invalidation | None:
        """What this session was not told yet.

        Once the change is `executed`, of data only what it still has counts: it may have asked
        since.
        """
        told = self.told.get(session, {}).get((change.inode, change.name), 0)
        what = change.what & ~(told & ~DATA if executed else told)
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

    def makes_untrue(self, inode: int, names: Collection[bytes] | None) -> bool:
        """Any of these names of a directory (None: all of them)?"""
        what, changed = self.marks[inode]
        if what & _ALL_NAMES or names is None:
            return bool(what & (_ALL_NAMES | _NAME))
        return not changed.isdisjoint(names)


class Changes:
    """Those of which others were told, and that are not executed."""

    def __init__(self) -> None:
        self._of_inode: dict[int, list[Change]] = {}

    def __bool__(self) -> bool:
        return bool(self._of_inode)

    def add(self, change: Change, invalidations: Iterable[Invalidation]) -> None:
        """The change makes this untrue (too)."""
        for each in invalidations:
            if each.inode not in change.marks:
                change.marks[each.inode] = (0, set())
                self._of_inode.setdefault(each.inode, []).append(change)
            what, names = change.marks[each.inode]
            if each.what & _NAME:
                names.add(each.name)
            change.marks[each.inode] = (what | each.what, names)

    def end(self, change: Change) -> None:
        """It is executed, or given up.  Idempotent."""
        for inode in change.marks:
            changes = self._of_inode[inode]
            changes.remove(change)
            if not changes:
                del self._of_inode[inode]
        change.marks = {}

    def by_others(self, session: str, inode: int) -> bool:
        """Is another session about to change the inode?"""
        return any(each.session != session for each in self._of_inode.get(inode, ()))

    def fleeting(self, session: str, told: Mapping[int, int], names: Names) -> Fleeting:
        """What the session must not keep of an answer that tells it of these parts of inodes."""
        if not self._of_inode:
            return NOTHING
        found = Fleeting()
        for inode, parts in told.items():
            others = [each for each in self._of_inode.get(inode, ()) if each.session != session]
            if parts & ATTR and any(each.marks[inode][0] & (ATTR | DATA) for each in others):
                found.attributes.append(inode)
            if parts & NAMES and any(each.makes_untrue(inode, names.get(inode)) for each in others):
                found.names.append(inode)
        return found
