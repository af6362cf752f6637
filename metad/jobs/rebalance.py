"""Which copies to move so that all disks are about equally full, and where policies want them.

Pure; moving.py supplies the chunks, moves.py carries them out.  It promises for every move: the
copies of the chunk are in as many zones, racks and hosts afterwards as before, never two on one
server, on servers with its label if they were; the destination has room, and is less full after it
than the source.  So each move makes the cluster more even: planning ends, and nothing moves back
and forth.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice

from metad.copies.placement import Candidate, domain_of, spare_bytes
from metad.copies.policies import Policy

LOOK_AHEAD = 16  # chunks of a disk, for one that can go to a disk below the mean


@dataclass(frozen=True)
class Movable:
    """A chunk, and the disks of its good copies."""

    chunk: bytes
    length: int
    disks: Sequence[str]
    label: str = ""


@dataclass(frozen=True)
class Move:
    """A copy of a chunk goes from one disk to another."""

    chunk: bytes
    length: int
    source: str
    destination: str

    @property
    def disks(self) -> tuple[str, str]:
        """Both of them."""
        return self.source, self.destination


@dataclass
class Fill:
    """How full each disk is, or will be when what is planned is done."""

    places: dict[str, Candidate]
    used: dict[str, int]

    @classmethod
    def of(cls, candidates: Iterable[Candidate]) -> Fill:
        places = {each.disk: each for each in candidates if each.total_bytes}
        return cls(
            places, {disk: each.total_bytes - each.free_bytes for disk, each in places.items()}
        )

    def fraction(self, disk: str, more: int = 0) -> float:
        return (self.used[disk] + more) / self.places[disk].total_bytes

    @property
    def mean(self) -> float:
        total = sum(each.total_bytes for each in self.places.values())
        return sum(self.used.values()) / total if total else 0.0

    @property
    def deviation(self) -> float:
        """How far the fraction of the worst disk is from the mean."""
        mean = self.mean
        return max((abs(self.fraction(disk) - mean) for disk in self.places), default=0.0)

    def has_room(self, disk: str, length: int) -> bool:
        place = self.places[disk]
        return spare_bytes(place.total_bytes, place.total_bytes - self.used[disk]) >= length

    def apply(self, move: Move) -> None:
        """As if it were done; one of its disks may be unknown (away)."""
        self.arrive(move)
        self.leave(move)

    def arrive(self, move: Move) -> None:
        """The first half of it."""
        if move.destination in self.used:
            self.used[move.destination] += move.length

    def leave(self, move: Move) -> None:
        """The second half."""
        if move.source in self.used:
            self.used[move.source] -= move.length


@dataclass
class Balancing:
    """Plans one move after the other, until all disks are within `band` of the mean.

    What goes to a disk above the mean has to leave it again later: such a move is planned only when
    no chunk of the next ones can go to a disk below it.
    """

    fill: Fill
    band: float
    supply: Callable[[str], Iterator[Movable]]
    _open: dict[str, Iterator[Movable]] = field(default_factory=dict)
    _put_aside: dict[str, deque[Movable]] = field(default_factory=dict)
    _exhausted: set[str] = field(default_factory=set)
    _moved: set[bytes] = field(default_factory=set)

    def moves(self, limit: int) -> Iterator[Move]:
        """At most so many; they are applied to `fill`."""
        while limit and self.fill.deviation > self.band:
            source = self._fullest()
            if source is None:
                return
            move = self._next(source)
            if move is not None:
                self._moved.add(move.chunk)
                self.fill.apply(move)
                limit -= 1
                yield move

    def _next(self, source: str) -> Move | None:
        """None: not with the chunks that were looked at; others may follow."""
        supply = self._open.setdefault(source, self.supply(source))
        aside = self._put_aside.setdefault(source, deque())
        mean = self.fill.mean
        looked_at = 0
        for movable in islice(supply, LOOK_AHEAD):
            looked_at += 1
            move = self._move(movable, source)
            if move is not None and self.fill.fraction(move.destination) < mean:
                return move
            if move is not None:
                aside.append(movable)
        while aside:
            move = self._move(aside.popleft(), source)
            if move is not None:
                return move
        if looked_at < LOOK_AHEAD:
            self._exhausted.add(source)
        return None

    def _fullest(self) -> str | None:
        mean = self.fill.mean
        over = [
            disk
            for disk in self.fill.places
            if disk not in self._exhausted and self.fill.fraction(disk) > mean
        ]
        return max(over, key=lambda disk: (self.fill.fraction(disk), disk), default=None)

    def _move(self, movable: Movable, source: str) -> Move | None:
        fill = self.fill
        if movable.chunk in self._moved or source not in movable.disks:
            return None
        if any(disk not in fill.places for disk in movable.disks):
            return None  # a copy is on a disk that is away: repair may come first
        after = fill.fraction(source, -movable.length)
        fitting = [
            disk
            for disk in fill.places
            if fill.fraction(disk, movable.length) < after
            and fill.has_room(disk, movable.length)
            and keeps_apart(fill.places, movable, source, disk)
        ]
        if not fitting:
            return None
        best = min(fitting, key=lambda disk: (fill.fraction(disk), disk))
        return Move(movable.chunk, movable.length, source, best)


def keeps_apart(
    places: dict[str, Candidate], movable: Movable, source: str, destination: str
) -> bool:
    """Are the copies as far from one another, and where the label wants them, after the move?"""
    others = [places[disk] for disk in movable.disks if disk != source]
    old, new = places[source], places[destination]
    if new.server_id in {each.server_id for each in others} or destination in movable.disks:
        return False
    if movable.label and movable.label in old.labels and movable.label not in new.labels:
        return False
    return all(
        len({domain_of(each, level) for each in [*others, new]})
        >= len({domain_of(each, level) for each in [*others, old]})
        for level in ("host", "rack", "zone")
    )


def better_place(movable: Movable, policy: Policy, fill: Fill) -> Move | None:
    """The move of one copy that brings a chunk nearer to what its policy says; None: it is there.

    First to servers with the label, then from one server to two, then into more of the policy's
    domains.
    """
    places = fill.places
    if any(disk not in places for disk in movable.disks):
        return None
    copies = [places[disk] for disk in movable.disks]
    free = [
        each
        for each in places.values()
        if each.disk not in movable.disks and fill.has_room(each.disk, movable.length)
    ]
    if policy.label:
        labelled = [each for each in free if policy.label in each.labels]
        for copy in copies:
            if policy.label not in copy.labels:
                found = _best(movable, copy, labelled, policy, fill)
                if found is not None:
                    return found
        free = labelled
    for copy in copies:
        if sum(each.server_id == copy.server_id for each in copies) > 1:
            found = _best(movable, copy, free, policy, fill)
            if found is not None:
                return found
    domains = [domain_of(each, policy.domain) for each in copies]
    for copy, domain in zip(copies, domains, strict=True):
        if domains.count(domain) > 1:
            fresh = [each for each in free if domain_of(each, policy.domain) not in domains]
            found = _best(movable, copy, fresh, policy, fill)
            if found is not None:
                return found
    return None


def _best(
    movable: Movable,
    copy: Candidate,
    free: Iterable[Candidate],
    policy: Policy,
    fill: Fill,
) -> Move | None:
    """To the emptiest that lowers no number of the policy's domains."""
    others = [fill.places[disk] for disk in movable.disks if disk != copy.disk]
    servers = {each.server_id for each in others}
    taken = {domain_of(each, policy.domain) for each in others}
    before = len(taken | {domain_of(copy, policy.domain)})
    fitting = [
        each.disk
        for each in free
        if each.server_id not in servers and len(taken | {domain_of(each, policy.domain)}) >= before
    ]
    if not fitting:
        return None
    best = min(fitting, key=lambda disk: (fill.fraction(disk), disk))
    return Move(movable.chunk, movable.length, copy.disk, best)
