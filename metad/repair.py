"""Repair: chunks that lost replicas are copied until they have enough again.

`plan_repair` is pure and decides; `Repairer` reads what is endangered, queues the orders, and books
their results.  It promises: copies are made from good replicas on living servers only and count
when the receiving chunkd has verified them; nothing is ever deleted here.  When a lost server
comes back, its chunks have a replica too many: trim.py sees to that.
"""

from __future__ import annotations

import logging
import random
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import trio

from dfswire.cluster import Order
from dfswire.messages import Replica
from metad import replicas
from metad.database import Database
from metad.placement import Candidate, choose
from metad.policies import Policies, Policy
from metad.replicas import EndangeredChunk
from metad.servers import Servers

log = logging.getLogger(__name__)

CHUNKS_PER_PASS_MAX = 2000  # more than can be ordered at once; the rest is found again
SEARCH_PAUSE = 4.0  # times the duration of a search


@dataclass(frozen=True)
class RepairLimits:
    """From when on a silent server is missed, how hard to work on a disk."""

    repair_after_s: float = 30.0  # from down
    transfers_per_disk: int = 16


@dataclass(frozen=True)
class Copy:
    """One planned copy of a chunk to `disk`; `sources` in the order in which to ask them."""

    chunk: bytes
    length: int
    digest: bytes
    disk: str
    sources: list[Replica]


@dataclass
class _Plan:
    """What planning one chunk after the other has used up."""

    servers: Servers
    now: float
    limits: RepairLimits
    policy_of: Callable[[int], Policy]
    rng: random.Random
    busy: Counter[str] = field(default_factory=Counter)  # disk -> transfers
    under_way: dict[bytes, list[str]] = field(default_factory=dict)  # chunk -> destinations
    candidates: list[Candidate] = field(default_factory=list)

    def occupy(self, chunk: bytes, disk: str, sources: Iterable[Replica]) -> None:
        self.under_way.setdefault(chunk, []).append(disk)
        self.busy.update([disk, *(each.disk for each in list(sources)[:1])])

    def has_capacity(self, disk: str) -> bool:
        return self.busy[disk] < self.limits.transfers_per_disk


def plan_repair(
    endangered: Iterable[EndangeredChunk],
    servers: Servers,
    now: float,
    limits: RepairLimits,
    policy_of: Callable[[int], Policy],
    rng: random.Random,
) -> list[Copy]:
    """Which copies to order now, in the order of `endangered` (the most endangered first)."""
    plan = _Plan(servers, now, limits, policy_of, rng, candidates=servers.candidates(now))
    for order in servers.orders.copies():
        plan.occupy(order.chunk, order.disk, order.sources)
    present = servers.disks_worth_waiting_for(now, limits.repair_after_s)
    return [copy for chunk in endangered for copy in _plan_chunk(plan, chunk, present)]


def _plan_chunk(plan: _Plan, chunk: EndangeredChunk, present: set[str]) -> list[Copy]:
    good = [disk for disk, state in chunk.replicas if state == replicas.GOOD and disk in present]
    counted = [disk for disk in good if plan.servers.is_wanted(disk)]
    coming = plan.under_way.get(chunk.chunk, [])
    policy = plan.policy_of(chunk.policy)
    missing = policy.replicas - len(counted) - len(coming)
    if missing <= 0:
        return []
    destinations = choose(
        [each for each in plan.candidates if plan.has_capacity(each.disk)],
        missing,
        chunk.length,
        plan.rng,
        taken=plan.servers.domains([*counted, *coming]),
        label=policy.label,
    )
    copies = []
    for destination in destinations:
        sources = _sources(plan, good)
        if not sources or not plan.has_capacity(sources[0].disk):
            break
        copies.append(Copy(chunk.chunk, chunk.length, chunk.digest, destination.disk, sources))
        plan.occupy(chunk.chunk, destination.disk, sources)
    return copies


def _sources(plan: _Plan, good: Iterable[str]) -> list[Replica]:
    """The living ones: first those with capacity, of these the healthy, of these the idle."""
    states = {disk: plan.servers.disk_state(disk, plan.now) for disk in good}
    alive = [disk for disk, state in states.items() if state != "down"]
    return sorted(
        plan.servers.replicas(alive, plan.now),
        key=lambda each: (
            not plan.has_capacity(each.disk),
            states[each.disk] != "up",
            plan.busy[each.disk],
        ),
    )


class Repairer:
    """Looks for endangered chunks, at intervals and when woken."""

    def __init__(
        self,
        db: Database,
        servers: Servers,
        limits: RepairLimits,
        policies: Policies,
        rng: random.Random,
        *,
        tell: Callable[[str, str, str], None] = lambda kind, subject, message: None,
        interval_s: float = 1.0,
        clock: Callable[[], float] = trio.current_time,
    ) -> None:
        self._db = db
        self._servers = servers
        self._limits = limits
        self._policies = policies
        self._rng = rng
        self._tell = tell  # EventLog.add
        self._at_work = False
        self._interval_s = interval_s
        self._clock = clock
        self._wanted = trio.Event()
        self._urgent: dict[bytes, None] = {}

    def wake(self) -> None:
        """There is news: a replica turned bad, a disk failed, a copy ended."""
        self._wanted.set()

    async def run_forever(self) -> None:
        while True:
            self._wanted = trio.Event()
            began_s = self._clock()
            await self.run_once()
            # After a great loss the search takes seconds; it must not be all that metad does.
            await trio.sleep(SEARCH_PAUSE * (self._clock() - began_s))
            with trio.move_on_after(self._interval_s):
                await self._wanted.wait()

    async def run_once(self) -> int:
        """Queue the copies that are due; how many."""
        now = self._clock()
        self._drop_hopeless(now)
        present = self._servers.disks_worth_waiting_for(now, self._limits.repair_after_s)
        wanted = self._attainable(present)
        if self._all_is_well(present, wanted):
            if self._at_work:
                self._at_work = False
                self._tell("repair.finished", "repair", "every chunk has its replicas")
            return 0
        endangered = await self._db.read_in_thread(
            lambda db: replicas.endangered(db, present, wanted, CHUNKS_PER_PASS_MAX)
        )
        copies = plan_repair(
            [*self._take_urgent(), *endangered],
            self._servers,
            self._clock(),
            self._limits,
            self._policies.of,
            self._rng,
        )
        for copy in copies:
            self._servers.orders.add(
                "copy",
                copy.chunk,
                copy.disk,
                length=copy.length,
                digest=copy.digest,
                sources=copy.sources,
            )
        if copies:
            log.info("repair: %d copies ordered", len(copies))
            if not self._at_work:
                self._at_work = True
                self._tell("repair.begun", "repair", f"{len(copies)} copies to begin with")
        return len(copies)

    def urge(self, chunks: Iterable[bytes]) -> None:
        """Somebody waits for these: they go before all others."""
        self._urgent.update(dict.fromkeys(chunks))
        self.wake()

    def _take_urgent(self) -> list[EndangeredChunk]:
        """Those that still need copies; each stays until it has them."""
        found = []
        for chunk in list(self._urgent):
            stored = replicas.chunk_info(self._db, chunk)
            rows = replicas.replicas_of(self._db, chunk)
            good = sum(state == replicas.GOOD for _, state in rows)
            if (
                stored is None
                or stored.state != replicas.LIVE
                or good >= self._policies.of(stored.policy).replicas
            ):
                del self._urgent[chunk]
            else:
                found.append(
                    EndangeredChunk(chunk, stored.length, stored.digest, stored.policy, rows)
                )
        return found

    def _attainable(self, present: Iterable[str]) -> dict[int, int]:
        """How many replicas there can be: a cluster of two servers is not searched for a third."""
        wanted = filter(self._servers.is_wanted, present)
        found = [self._servers.server_of(disk) for disk in wanted]
        count = max(len({server.server_id for server in found if server is not None}), 1)
        policies = self._policies.all()
        return {key: min(policy.replicas, count) for key, policy in policies.items()}

    def _all_is_well(self, present: set[str], wanted: Mapping[int, int]) -> bool:
        """The usual case, told from two indexes."""
        disks = {disk for (disk,) in self._db.read("SELECT identity FROM disk")}
        return disks <= set(filter(self._servers.is_wanted, present)) and not replicas.any_short(
            self._db, wanted
        )

    def book(self, order: Order) -> None:
        """In a mutation: the copy was made.  It counts only while its chunk is known.

        A dead chunk gets the row too, so that reclaim deletes the copy.
        """
        stored = replicas.chunk_info(self._db, order.chunk)
        if stored is None:
            return
        replicas.add_replica(self._db, order.chunk, order.disk)
        rows = replicas.replicas_of(self._db, order.chunk)
        wanted = self._policies.of(stored.policy).replicas
        if sum(state == replicas.GOOD for _, state in rows) >= wanted:
            for disk, state in rows:
                if state == replicas.BAD:
                    replicas.remove_replica(self._db, order.chunk, disk)

    def failed(self, order: Order, reason: str) -> None:
        """A copy was not made: perhaps a source is not what it should be, so that is looked at."""
        log.info("copy of %s to %s failed: %s", order.chunk.hex(), order.disk, reason)
        for source in order.sources:
            self._servers.orders.add("verify", order.chunk, source.disk)

    def _drop_hopeless(self, now: float) -> None:
        """Copies to disks that went down are planned anew, elsewhere."""
        for order in self._servers.orders.copies():
            if self._servers.disk_state(order.disk, now) == "down":
                self._servers.orders.finish(order)
