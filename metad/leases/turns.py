"""Whose turn it is: operations that wait for leases go on in the order in which they came.

Pure; a part of table.py.  Without it those who only look could keep somebody waiting for ever who
wants an inode for himself, and the other way round.  Numbers are given once for all inodes, so two
operations that concern several inodes never wait for each other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(eq=False)
class Turn:
    """One operation that waits, and the parts of inodes that it is about.

    `exclusive`: it wants them for its session alone.  Others only look, or change and are done.
    """

    session: str
    number: int
    exclusive: bool
    wanted: dict[int, int] = field(default_factory=dict)


class Turns:
    """Everybody who waits."""

    def __init__(self) -> None:
        self._number = 0
        self._of_inode: dict[int, list[Turn]] = {}
        self._exclusive: set[Turn] = set()

    @property
    def any_exclusive(self) -> bool:
        """Does anybody wait whom those who only look, or change, may have to let go first?"""
        return bool(self._exclusive)

    def enter(self, session: str, wanted: Mapping[int, int], *, exclusive: bool = False) -> Turn:
        """A new turn, behind all others."""
        self._number += 1
        turn = Turn(session, self._number, exclusive)
        self.want(turn, wanted)
        return turn

    def want(self, turn: Turn, wanted: Mapping[int, int]) -> None:
        """What it is about has changed (a name means another inode now); its place stays."""
        self.leave(turn)
        turn.wanted = dict(wanted)
        if turn.exclusive and wanted:
            self._exclusive.add(turn)
        for inode in wanted:
            self._of_inode.setdefault(inode, []).append(turn)

    def leave(self, turn: Turn) -> None:
        """Done, or given up.  Idempotent."""
        self._exclusive.discard(turn)
        for inode in turn.wanted:
            waiting = self._of_inode[inode]
            waiting.remove(turn)
            if not waiting:
                del self._of_inode[inode]
        turn.wanted = {}

    def is_behind(
        self, session: str, inode: int, parts: int, turn: Turn | None, *, exclusive: bool
    ) -> bool:
        """Must an operation (with this turn, or new) let somebody of another session go first?"""
        for earlier in self._of_inode.get(inode, ()):
            if (
                earlier.session != session
                and (turn is None or earlier.number < turn.number)
                and (exclusive or earlier.exclusive)
                and earlier.wanted[inode] & parts
            ):
                return True
        return False
