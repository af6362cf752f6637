"""Copies that are too many are given up: after a lost server returned, a drain, a rebalancing.

`Trimmer` looks for chunks with more good replicas than are wanted.  The copies that shall stay are
verified by their servers first; then, in one transaction that looks again, the others become
`excess`, and only after that are they ordered to be deleted.  It promises: a copy on its way out
counts for nothing from the commit that condemned it, is never relied on again unless its server
has verified it after the last order to delete it, and no copy is condemned unless `wanted` others
on different servers, which have been up for a while, are known to be good.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice

import trio

from dfswire.errors import DFSError
from metad.copies import redundancy, replicas
from metad.copies.policies import Policies
from metad.copies.redundancy import Abundant
from metad.copies.surplus import Held, Surplus, surplus
from metad.copies.verified import Verified
from metad.hosts.servers import Servers
from metad.recovery.fence import reclaim_held
from metad.storage.database import Database
from metad.upkeep.transfers import RepairLimits, Transfers

log = logging.getLogger(__name__)

CHUNKS_PER_PASS_MAX = 500
VERIFICATIONS_SHARE = 0.5  # of what a disk may have to do; scrub and readers want it too
UNWANTED_MAX = 100_000  # asked for and not yet gone; who asks, asks again


@dataclass
class _Pass:
    """What looking at one chunk after the other has found."""

    condemn: list[tuple[bytes, list[str]]] = field(default_factory=list)
    verify: list[tuple[bytes, str]] = field(default_factory=list)


class Trimmer:
    """Looks for copies that are too many, at intervals and when woken."""

    def __init__(
        self,
        db: Database,
        servers: Servers,
        policies: Policies,
        verified: Verified,
        limits: RepairLimits,
        *,
        settle_s: float = 60.0,
        interval_s: float = 1.0,
        clock: Callable[[], float] = trio.current_time,
    ) -> None:
        """`settle_s`: for how long a server must be up before its copies are relied on."""
        self._db = db
        self._servers = servers
        self._policies = policies
        self._settle_s = settle_s
        self._verified = verified
        self._limits = limits
        self._interval_s = interval_s
        self._clock = clock
        self._after: Abundant = _START
        self._unwanted: OrderedDict[bytes, list[str]] = OrderedDict()  # what was asked last is last

    def give_up(self, chunk: bytes, disk: str) -> None:
        """This copy shall go as soon as the others suffice; for rebalancing and drains.

        Kept in memory only.  Whoever asks looks at the rows to see whether it is gone.
        """
        if chunk in self._unwanted or len(self._unwanted) < UNWANTED_MAX:
            before = self._unwanted.get(chunk, [])
            self._unwanted[chunk] = [each for each in before if each != disk] + [disk]

    @property
    def is_idle(self) -> bool:
        """Has nobody asked for a copy to be given up that could still be?"""
        return not self._unwanted

    async def run_forever(self) -> None:
        while True:
            try:
                await self.run_once()
            except DFSError as problem:  # the database can't be written now
                log.warning("copies that are too many stay: %s", problem)
            await trio.sleep(self._interval_s)

    async def run_once(self) -> int:
        """Verify, condemn and order to delete what is due; how many copies were condemned."""
        if reclaim_held(self._db):
            return 0
        await self._delete_condemned()
        found = _Pass()
        for chunk in self._next_chunks():
            self._look(chunk, found)
        self._order_verifications(found.verify)
        if not found.condemn:
            return 0
        condemned = await self._db.write(lambda: self._condemn(found.condemn))
        for chunk, disk in condemned:
            self._servers.orders.add("delete", chunk, disk)
        if condemned:
            log.info("trim: %d copies too many are deleted", len(condemned))
        return len(condemned)

    def _next_chunks(self) -> list[bytes]:
        """Those that somebody asked for, then some of those with more than enough replicas."""
        asked = self._asked_for()
        wanted = {key: policy.replicas for key, policy in self._policies.all().items()}
        found = redundancy.abundant(self._db, wanted, self._after, CHUNKS_PER_PASS_MAX)
        self._after = found[-1] if len(found) == CHUNKS_PER_PASS_MAX else _START
        return list(dict.fromkeys([*asked, *(each[-1] for each in found)]))

    def _asked_for(self) -> list[bytes]:
        """The next of those; what is gone is forgotten, and what can't go for nothing is left."""
        asked = []
        for chunk in list(islice(self._unwanted, CHUNKS_PER_PASS_MAX)):
            good = _good(self._db, chunk)
            if len(good) > self._wanted_of(chunk) and set(self._unwanted[chunk]) & set(good):
                asked.append(chunk)
                self._unwanted.move_to_end(chunk)
            else:
                del self._unwanted[chunk]
        return asked

    def _look(self, chunk: bytes, found: _Pass) -> None:
        plan = self._surplus(chunk)
        if not plan.trim:
            return
        unproven = [disk for disk in plan.keep if not self._is_proven(chunk, disk)]
        if not unproven:
            found.condemn.append((chunk, plan.trim))
        found.verify += [(chunk, disk) for disk in unproven]

    def _order_verifications(self, wanted: list[tuple[bytes, str]]) -> None:
        if not wanted:
            return
        orders, transfers = self._servers.orders, Transfers(self._limits, VERIFICATIONS_SHARE)
        for order in orders.of_kind("verify"):
            transfers.occupy([order.disk], order.length)
        for chunk, disk in wanted:
            stored = replicas.chunk_info(self._db, chunk)
            length = stored.length if stored is not None else 0
            if transfers.fit([disk]) and orders.add("verify", chunk, disk, length=length):
                transfers.occupy([disk], length)

    def _surplus(self, chunk: bytes) -> Surplus:
        stored = replicas.chunk_info(self._db, chunk)
        if stored is None:
            return Surplus([], [])
        policy, good = self._policies.of(stored.policy), _good(self._db, chunk)
        unwanted = list(self._unwanted.get(chunk, ()))
        while True:
            held = self._held(good, policy.label, unwanted)
            plan = surplus(held, policy.replicas, policy.domain)
            if plan.keep or not unwanted:
                return plan
            # More was asked for than can go (a copy was lost since, say): the last wish counts.
            del unwanted[0]

    def _wanted_of(self, chunk: bytes) -> int:
        stored = replicas.chunk_info(self._db, chunk)
        return self._policies.of(stored.policy).replicas if stored is not None else 0

    def _held(self, disks: Iterable[str], label: str, unwanted: Sequence[str]) -> list[Held]:
        now = self._clock()
        return [
            Held(
                place,
                counts=self._servers.is_settled(place.disk, now, self._settle_s),
                unwanted=place.disk in unwanted
                or not self._servers.is_wanted(place.disk)
                or bool(label and label not in place.labels),
            )
            for place in self._servers.domains(list(disks))
        ]

    def _is_proven(self, chunk: bytes, disk: str) -> bool:
        up_since_s = self._servers.up_since_s(disk)
        return self._verified.since(chunk, disk, up_since_s, self._clock())

    def _condemn(self, chosen: list[tuple[bytes, list[str]]]) -> list[tuple[bytes, str]]:
        """In a mutation, so what is read is what is true: look at each chunk again."""
        condemned = []
        for chunk, disks in chosen:
            plan = self._surplus(chunk)
            if all(self._is_proven(chunk, disk) for disk in plan.keep):
                for disk in sorted(set(plan.trim) & set(disks)):
                    replicas.condemn(self._db, chunk, disk)
                    condemned.append((chunk, disk))
        return condemned

    # what is condemned

    async def _delete_condemned(self) -> None:
        """Order the deletions that are not ordered, unless their chunks have become too few.

        That is so after a restart of metad or of a server, and after another loss.  An order that
        was given out can't be taken back; a copy is good again when its server, which does one
        thing after the other with a chunk, has verified it after the last such order.
        """
        orders = self._servers.orders
        for disk in replicas.disks_with_condemned(self._db):
            if self._servers.disk_state(disk, self._clock()) == "down":
                continue
            for chunk in replicas.condemned(self._db, disk, CHUNKS_PER_PASS_MAX):
                if orders.is_given_out("delete", chunk, disk):
                    continue
                if self._has_enough(chunk, {"up"}):
                    orders.add("delete", chunk, disk)
                elif not self._has_enough(chunk, {"up", "suspect"}):
                    orders.withdraw("delete", chunk, disk)
                    orders.add("verify", chunk, disk)
        await trio.lowlevel.checkpoint()

    def _has_enough(self, chunk: bytes, states: set[str]) -> bool:
        """Besides its condemned copies, on servers in one of these states?"""
        now = self._clock()
        disks = [
            disk for disk in _good(self._db, chunk) if self._servers.disk_state(disk, now) in states
        ]
        servers = {place.server_id for place in self._servers.domains(disks)}
        return len(servers) >= self._wanted_of(chunk)


def _good(db: Database, chunk: bytes) -> list[str]:
    rows = replicas.replicas_of(db, chunk)
    return [disk for disk, state in rows if state == replicas.GOOD]


_START = (-1, -1, -1, b"")
