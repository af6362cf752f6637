"""A file of cells that all clients write, cut and empty at once, and what they may find in it.

Other than the files that have one writer each, this one is buffered now here, now there: its lease
goes round.  Who has been told that a change is done must not find what was there before it, through
whatever client.  Outcomes may be known late (a flush that fails), so all is checked at the end.
boardwork.py is what clients do with it.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field

from tests.simulation.history import Change, Value, Violation, pattern
from tests.simulation.schedule import CELL_BYTES, CELLS

NAME = "board"


NOBODYS = -1  # instead of the number of a write


@dataclass
class Look:
    """What one client found in the cells between two moments."""

    began: int
    ended: int
    found: dict[int, Value]
    party: str


@dataclass
class Board:
    """Everything that was done to the file, and seen of it."""

    inode: int = 0
    changes: list[Change] = field(default_factory=list)
    looks: list[Look] = field(default_factory=list)

    def note(self, data: bytes, began: int, ended: int, party: str) -> None:
        """Somebody has read this from its beginning."""
        writes = {value for change in self.changes for value in change.values.values()} - {None}
        found: dict[int, Value] = {}
        for cell in CELLS:
            piece = data[cell * CELL_BYTES : (cell + 1) * CELL_BYTES]
            found[cell] = None
            if piece.strip(b"\0"):
                known = (each for each in writes if each is not None)
                found[cell] = next(
                    (each for each in known if piece == pattern(NAME, each, cell)), NOBODYS
                )
        self.looks.append(Look(began, ended, found, party))

    def check(self) -> None:
        """Raise Violation unless each look could see what it saw."""
        for cell in CELLS:
            start = Change({cell: None}, -1, ended=0, done=True)
            changes = [start, *(each for each in self.changes if cell in each.values)]
            seen: list[tuple[Look, list[Change]]] = []
            for look in self.looks:
                made = [
                    change
                    for change in changes
                    if change.values[cell] == look.found[cell] and change.began < look.ended
                ]
                fresh = [each for each in made if not _overwritten(each, changes, look.began)]
                if not fresh:
                    self._refuse(cell, look, "which was overwritten before" if made else "")
                seen.append((look, fresh))
            self._check_order(cell, seen)

    def _check_order(self, cell: int, seen: list[tuple[Look, list[Change]]]) -> None:
        """No client goes back.  (Of a change under way one may see more than another.)"""
        newest: dict[str, list[tuple[int, int]]] = {}  # found until then; when that was begun
        for look, made in sorted(seen, key=lambda each: each[0].ended):
            began = min(each.began for each in made) if all(each.done for each in made) else -1
            found = newest.setdefault(look.party, [])
            if not found or began > found[-1][1]:
                found.append((look.ended, began))
        for look, made in seen:
            found = newest[look.party]
            place = bisect_left(found, look.began, key=lambda each: each[0])
            if place and max(each.ended for each in made) < found[place - 1][1]:
                self._refuse(cell, look, "though it had seen something newer")

    def _refuse(self, cell: int, look: Look, text: str) -> None:
        value = look.found[cell]
        where = f"{NAME} cell {cell}: {look.party} finds write {value}"
        raise Violation("I4", f"{where} in [{look.began}..{look.ended}] {text}")


def _overwritten(change: Change, changes: list[Change], before: int) -> bool:
    """Did a change that is known to have happened come after it, and end before that moment?"""
    return any(each.done and change.ended < each.began and each.ended < before for each in changes)
