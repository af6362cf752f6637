"""Which copies repair orders next.

Pure; repair.py reads what is endangered and gives it here.  It promises for every plan: copies come
from good replicas on living servers, and go to disks that have room beyond a reserve, in as many
failure domains as the cluster has; what waits or is under way already is counted in; no disk and
not the whole has more to do than the limits say.  A chunk whose best place is busy waits for it,
rather than to be put into a worse one.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field

from dfswire.messages import Replica
from metad.copies.placement import Candidate, choose
from metad.copies.policies import Policy
from metad.copies.redundancy import EndangeredChunk
from metad.copies.replicas import EXCESS, GOOD
from metad.copies.surplus import spread
from metad.hosts.servers import Servers
from metad.upkeep.rates import Throttle
from metad.upkeep.transfers import RepairLimits, Transfers


@dataclass(frozen=True)
class Copy:
    """One planned copy of a chunk to `disk`; `sources` in the order in which to ask them."""

    chunk: bytes
    length: int
    digest: bytes
    disk: str
    sources: list[Replica]


@dataclass(frozen=True)
class Planned:
    """`copies` to order now; the chunks of `waiting` when something has ended."""

    copies: list[Copy] = field(default_factory=list)
    waiting: list[bytes] = field(default_factory=list)


class Cuts:
    """Pairs of servers that did not reach each other a moment ago."""

    FOR_S = 15.0  # a try costs 2 s; repair goes on within 30 s after the network is whole again

    def __init__(self) -> None:
        self._until: dict[tuple[str, str], float] = {}

    def add(self, server: str, peer: str, now: float) -> None:
        """`server` did not reach `peer`."""
        self._until[server, peer] = now + self.FOR_S
        self._until = {pair: until for pair, until in self._until.items() if until > now}

    def between(self, server: str, peer: str, now: float) -> bool:
        return self._until.get((server, peer), now) > now


@dataclass
class Situation:
    """What planning goes by.

    `present`: disks whose replicas count as there; `urgent`: chunks that come before all others.
    """

    servers: Servers
    now: float
    limits: RepairLimits
    policy_of: Callable[[int], Policy]
    rng: random.Random
    present: Collection[str]
    throttle: Throttle = field(default_factory=lambda: Throttle(0, 0))
    cuts: Cuts = field(default_factory=Cuts)
    urgent: Collection[bytes] = ()


class _Plan:
    """What planning one chunk after the other has used up."""

    def __init__(self, situation: Situation) -> None:
        self.at = situation
        self.candidates = situation.servers.candidates(situation.now)
        copies = situation.servers.orders.copies()
        self.transfers = Transfers.of_copies(situation.limits, copies)
        self.under_way: dict[bytes, list[str]] = {}  # chunk -> destinations
        self.result = Planned()
        self._room: dict[str, float] = {}  # what shares its capacity -> bytes
        for candidate in self.candidates:
            share = candidate.total_bytes * situation.limits.reserve_share
            self._room[self._volume(candidate.disk)] = candidate.free_bytes - share
        for order in copies:
            self.expect(order.chunk, order.disk, order.length)

    def expect(self, chunk: bytes, disk: str, length: int) -> None:
        self.under_way.setdefault(chunk, []).append(disk)
        volume = self._volume(disk)
        self._room[volume] = self._room.get(volume, 0.0) - length

    def has_room(self, candidate: Candidate, length: int) -> bool:
        return self._room[self._volume(candidate.disk)] >= length

    def has_capacity(self, disk: str) -> bool:
        return self.transfers.fit([disk]) and self.at.throttle.allows([disk], self.at.now)

    def _volume(self, disk: str) -> str:
        return self.at.servers.volume_of(disk)

    def add(self, copy: Copy) -> None:
        self.result.copies.append(copy)
        self.expect(copy.chunk, copy.disk, copy.length)
        disks = [copy.disk, copy.sources[0].disk]
        self.transfers.occupy(disks, copy.length)
        self.at.throttle.spend(disks, copy.length, self.at.now)


def plan_repair(endangered: Iterable[EndangeredChunk], situation: Situation) -> Planned:
    """What to do now: those with the fewest good copies first, then those in fewest domains."""
    plan = _Plan(situation)
    for chunk in sorted(endangered, key=lambda each: _urgency(each, situation)):
        if _plan_chunk(plan, chunk):
            plan.result.waiting.append(chunk.chunk)
    return plan.result


def _good(chunk: EndangeredChunk, situation: Situation) -> list[str]:
    return [disk for disk, state in chunk.replicas if state == GOOD and disk in situation.present]


def _urgency(chunk: EndangeredChunk, situation: Situation) -> tuple[object, ...]:
    good = _good(chunk, situation)
    return (
        chunk.chunk not in situation.urgent,
        len(good),
        spread(situation.servers.domains(good)),
        chunk.chunk,
    )


def _plan_chunk(plan: _Plan, chunk: EndangeredChunk) -> bool:
    """Plan the copies that can be made now.  True when some must wait for others to end."""
    at = plan.at
    good = _good(chunk, at)
    counted = [disk for disk in good if at.servers.is_wanted(disk)]
    coming = plan.under_way.get(chunk.chunk, [])
    policy = at.policy_of(chunk.policy)
    missing = policy.replicas - len(counted) - len(coming)
    if missing <= 0:
        return False
    occupied = {disk for disk, state in chunk.replicas if state == EXCESS}
    fitting = [
        each
        for each in plan.candidates
        if plan.has_room(each, chunk.length) and each.disk not in occupied
    ]
    taken = at.servers.domains([*counted, *coming])
    places, must_wait = _destinations(plan, chunk, fitting, taken, missing, policy.label)
    for place in places:
        sources = _sources(plan, chunk, place.server_id)
        if not sources:
            continue  # nobody can reach anybody who has it; looked at again with the next search
        if not plan.has_capacity(sources[0].disk):
            must_wait = True
            break
        plan.add(Copy(chunk.chunk, chunk.length, chunk.digest, place.disk, sources))
    return must_wait


def _destinations(
    plan: _Plan,
    chunk: EndangeredChunk,
    fitting: Sequence[Candidate],
    taken: Sequence[Candidate],
    missing: int,
    label: str,
) -> tuple[list[Candidate], bool]:
    """Where copies can go now, and whether others must wait for a better place."""
    reachable = [each for each in fitting if _sources(plan, chunk, each.server_id)]
    free = [each for each in reachable if plan.has_capacity(each.disk)]

    def chosen(candidates: Sequence[Candidate]) -> list[Candidate]:
        rng = plan.at.rng
        return choose(candidates, missing, chunk.length, rng, taken=taken, label=label)

    places = chosen(free)
    if len(free) == len(reachable):
        return places, False
    best = chosen(reachable)
    if spread([*taken, *places]) >= spread([*taken, *best]):
        return places, len(places) < len(best)
    return [each for each in best if plan.has_capacity(each.disk)], True


def _sources(plan: _Plan, chunk: EndangeredChunk, destination: str) -> list[Replica]:
    """The living ones that the destination reaches: first those with capacity, of these the
    healthy, of these the idle.

    Copies that are on their way out come after all others: they may be gone, but whoever copies
    verifies what it gets.
    """
    at = plan.at
    leaving = {disk for disk, state in chunk.replicas if state == EXCESS}
    states = {
        disk: at.servers.disk_state(disk, at.now) for disk in [*_good(chunk, at), *sorted(leaving)]
    }
    alive = [
        disk
        for disk, state in states.items()
        if state != "down"
        and (server := at.servers.server_of(disk)) is not None
        and not at.cuts.between(destination, server.server_id, at.now)
    ]
    return sorted(
        at.servers.replicas(alive, at.now),
        key=lambda each: (
            each.disk in leaving,
            not plan.has_capacity(each.disk),
            states[each.disk] != "up",
            plan.transfers.of(each.disk),
        ),
    )
