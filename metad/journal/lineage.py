"""Which of several histories is the one: pure reasoning about entries of a journal.

A restore puts what several chunkds kept into one Lineage and asks for the tip: the last entry of
the history that counts.  Every acknowledged entry was committed by metad, and each metad goes on
from its own last commit in a term of its own; so the entry of the highest (epoch, term, number) has
all acknowledged ones behind it.  What was given out and never committed is at most one entry; so a
chunkd that has more than one beyond a database proves that it is an old copy (`ahead_of`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from dfswire.journal import Position


@dataclass(frozen=True)
class Node:
    """An entry without its content; `source` says where that is."""

    position: Position
    previous: bytes
    source: str


class Lineage:
    """Entries by their digests, and the places from which metad said that it goes on."""

    def __init__(self) -> None:
        self.nodes: dict[bytes, Node] = {}
        self._bases: list[Position] = []

    def add(self, base: Position, nodes: Iterable[Node]) -> None:
        """A run of entries that follow `base`."""
        self._bases.append(base)
        for node in nodes:
            self.nodes.setdefault(node.position.digest, node)

    def tip(self, epoch: int | None = None) -> Position | None:
        """The end of the history that counts, of an epoch up to `epoch`; None without any entry."""
        allowed = [
            node for node in self.nodes.values() if epoch is None or node.position.epoch <= epoch
        ]
        if not allowed:
            return None
        best = max(allowed, key=lambda node: node.position.rank)
        # metad may have said, in a later term, that the last one was never committed.
        for base in self._bases:
            newer = (base.epoch, base.term) > (best.position.epoch, best.position.term)
            if newer and base.epoch == best.position.epoch and base.digest == best.previous:
                return base
        return best.position

    def back_from(self, tip: Position) -> list[Node]:
        """The entries up to `tip`, newest first, as far back as they are known."""
        found: list[Node] = []
        digest = tip.digest
        while (node := self.nodes.get(digest)) is not None:
            found.append(node)
            digest = node.previous
        return found

    def left_out(self, tip: Position) -> list[Position]:
        """Ends of other histories of the same epoch with more than one entry that `tip` lacks.

        There are none unless metad ran on an old copy of its database.
        """
        counted = {node.position.digest for node in self.back_from(tip)} | {tip.digest}
        continued = {node.previous for node in self.nodes.values()}
        found = []
        for node in self.nodes.values():
            if node.position.digest in continued or node.position.epoch != tip.epoch:
                continue
            beyond = 0
            walker: Node | None = node
            while walker is not None and walker.position.digest not in counted:
                beyond += 1
                walker = self.nodes.get(walker.previous)
            if beyond > 1 and (walker is not None or node.position.number > tip.number):
                found.append(node.position)
        return found


def ahead_of(ours: Position, theirs: Position, previous: bytes) -> str | None:
    """What proves that a database which ends with `ours` is not the newest; None for nothing.

    `theirs` is what a chunkd has, `previous` the digest before its last entry.
    """
    if theirs.epoch > ours.epoch:
        return (
            f"has the journal of epoch {theirs.epoch}, this database is of epoch {ours.epoch}: "
            "the cluster was restored elsewhere, and this metad must not run"
        )
    if theirs.epoch < ours.epoch or theirs.number <= ours.number:
        return None
    if theirs.number == ours.number + 1 and previous == ours.digest:
        return None  # was given out, never committed, never acknowledged
    return (
        f"has entry {theirs.number} of the journal, this database ends with {ours.number}: "
        "it is an old copy; use 'dfs metad restore'"
    )
