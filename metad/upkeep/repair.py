"""Repair: chunks that lost replicas are copied until they have enough again.

`Repairer` searches what is endangered, has repairplan.py plan from that what comes next, queues the
orders, and books their results.  It promises: copies are made from good replicas on living servers
only and count when the receiving chunkd has verified them; nothing is ever deleted here.  When a
lost server comes back, copies that have become needless are called off; what was made already is
a replica too many, which trim.py sees to.

A search reads all that is endangered and may take seconds after a great loss; it remembers the most
urgent chunks, and each of them is looked at again when its turn comes.
"""

from __future__ import annotations

import logging
import random
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping
from itertools import islice

import trio

from dfswire.health import RepairStatus
from dfswire.orders import Order, OrderResult
from metad.copies import redundancy, replicas
from metad.copies.losses import Losses
from metad.copies.policies import Policies
from metad.copies.redundancy import Endangered, EndangeredChunk
from metad.hosts.servers import Servers
from metad.storage.database import Database
from metad.upkeep.rates import Meter, Throttle
from metad.upkeep.repairplan import Cuts, Planned, Situation, plan_repair
from metad.upkeep.transfers import RepairLimits

log = logging.getLogger(__name__)

# One that was drained and removed is missed by nobody.
_DISKS_WITH_COPIES = (
    "SELECT identity FROM disk WHERE EXISTS (SELECT 1 FROM replica r WHERE r.disk = key)"
)
REMEMBERED_MAX = 50_000  # chunks of one search: 200 GB of copies, about 5 MB of memory
CHUNKS_PER_PLAN_MAX = 500  # 20 us each to read, on the loop
PAUSE = 4.0  # times the duration of a plan, and of a search
SEARCH_EVERY_S = 10.0  # while there is something left of the last one


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
        self._losses = Losses()
        self._present: set[str] = set()
        self.throttle = Throttle(limits.bytes_per_s, limits.disk_bytes_per_s)
        self._meter = Meter()
        self._cuts = Cuts()
        self._left = Endangered([], 0, 0)  # what the last search counted, less what was done since
        self._work: deque[bytes] = deque()  # the most urgent first
        self._search_due = True
        self._searched_s = 0.0
        self._search_took_s = 0.0

    def wake(self) -> None:
        """There is news: a replica turned bad, a disk failed."""
        self._search_due = True
        self._wanted.set()

    async def run_forever(self) -> None:
        while True:
            self._wanted = trio.Event()
            began_s = self._clock()
            await self.run_once()
            # In a large cluster every heartbeat brings news; this must not be all that metad does.
            await trio.sleep(PAUSE * (self._clock() - began_s))
            with trio.move_on_after(self._interval_s):
                await self._wanted.wait()

    async def run_once(self) -> int:
        """Queue the copies that are due; how many."""
        now = self._clock()
        self._drop_hopeless(now)
        self._look_who_is_there(now)
        wanted = self._attainable(self._present)
        if self._all_is_well(wanted):
            self._rest()
            return 0
        await self._search_if_due(wanted)
        copies = self._plan().copies
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
                self._tell("repair.begun", "repair", f"{self._left.chunks} chunks are endangered")
        return len(copies)

    def urge(self, chunks: Iterable[bytes]) -> None:
        """Somebody waits for these: they go before all others."""
        self._urgent.update(dict.fromkeys(chunks))
        self.wake()

    def _take_urgent(self) -> set[bytes]:
        """Those that still need copies; each stays until it has them."""
        for chunk in list(self._urgent):
            loaded = redundancy.load_endangered(self._db, chunk)
            if loaded is None or self._suffices(loaded, self._present):
                del self._urgent[chunk]
        return set(self._urgent)

    def status(self) -> RepairStatus:
        """How far it is."""
        now = self._clock()
        running = self._servers.orders.copies()
        per_s = self._meter.per_s(now)
        left = self._left.bytes
        return RepairStatus(
            chunks=self._left.chunks,
            running=len(running),
            bytes_left=left,
            bytes_per_s=per_s,
            eta_s=left / per_s if per_s else None,
        )

    # the parts of a run

    def _look_who_is_there(self, now: float) -> None:
        """Take note of disks that are lost now, and of those that have come back."""
        known = self._servers.known_disks()
        usable = self._servers.disks_worth_waiting_for(now, self._limits.repair_after_s)
        missing = {disk: server for disk, server in known.items() if disk not in usable}
        present = known.keys() - self._losses.update(missing, now)
        if present != self._present:
            self._search_due = True
            if present - self._present:
                self._call_off_needless(present)
            self._present = present

    def _rest(self) -> None:
        self._work.clear()
        self._left = Endangered([], 0, 0)
        self._finish()

    def _finish(self) -> None:
        """A server may be away or drained still, for good perhaps: its copies were made anew."""
        if self._at_work:
            self._at_work = False
            lost = f" but {self._left.lost}, which are lost" if self._left.lost else ""
            self._tell("repair.finished", "repair", f"every chunk has its replicas{lost}")

    async def _search_if_due(self, wanted: Mapping[int, int]) -> None:
        """Not so often that it is all that metad does."""
        now = self._clock()
        if self._work and now - self._searched_s < PAUSE * self._search_took_s:
            return
        if self._work and not self._search_due and now - self._searched_s < SEARCH_EVERY_S:
            return
        self._search_due = False
        present = set(self._present)
        self._left = await self._db.read_in_thread(
            lambda db: redundancy.endangered(db, present, wanted, REMEMBERED_MAX)
        )
        self._searched_s = self._clock()
        self._search_took_s = self._searched_s - now
        self._work = deque(self._left.urgent)
        if not self._left.chunks and not self._search_due:
            self._finish()

    def _plan(self) -> Planned:
        """Plan for as many chunks as may find a place now; the others keep their order."""
        usual_bytes = self._left.bytes // self._left.chunks if self._left.chunks else 0
        under_way = [order.length for order in self._servers.orders.copies()]
        places = self._limits.places(len(self._present), under_way, usual_bytes)
        count = min(CHUNKS_PER_PLAN_MAX, places)
        urgent = self._take_urgent()
        chosen = list(islice(self._work, count))
        every = dict.fromkeys([*urgent, *chosen])
        loaded = [redundancy.load_endangered(self._db, chunk) for chunk in every]
        planned = plan_repair(
            [chunk for chunk in loaded if chunk is not None],
            Situation(
                self._servers,
                self._clock(),
                self._limits,
                self._policies.of,
                self._rng,
                self._present,
                self.throttle,
                self._cuts,
                urgent,
            ),
        )
        for _ in chosen:
            self._work.popleft()
        self._work.extendleft(chunk for chunk in reversed(planned.waiting) if chunk not in urgent)
        return planned

    def _attainable(self, present: Iterable[str]) -> dict[int, int]:
        """How many replicas there can be: a cluster of two servers is not searched for a third."""
        wanted = filter(self._servers.is_wanted, present)
        found = [self._servers.server_of(disk) for disk in wanted]
        count = max(len({server.server_id for server in found if server is not None}), 1)
        policies = self._policies.all()
        return {key: min(policy.replicas, count) for key, policy in policies.items()}

    def _all_is_well(self, wanted: Mapping[int, int]) -> bool:
        """The usual case, told from two indexes."""
        disks = {disk for (disk,) in self._db.read(_DISKS_WITH_COPIES)}
        return disks <= set(
            filter(self._servers.is_wanted, self._present)
        ) and not redundancy.any_short(self._db, wanted)

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

    def done(self, order: Order) -> None:
        """The copy is booked."""
        self._meter.add(order.length, self._clock())
        chunks, size_bytes = self._left.chunks - 1, self._left.bytes - order.length
        self._left = self._left._replace(chunks=max(chunks, 0), bytes=max(size_bytes, 0))
        self._wanted.set()

    def failed(self, order: Order, result: OrderResult) -> None:
        """A copy was not made: perhaps a source is not what it should be, so that is looked at.

        Servers that the destination did not reach are not its sources for a while.
        """
        now = self._clock()
        log.info("copy of %s to %s failed: %s", order.chunk.hex(), order.disk, result.reason)
        destination = self._servers.server_of(order.disk)
        for source in order.sources:
            server = self._servers.server_of(source.disk)
            if source.address not in result.unreachable:
                self._servers.orders.add("verify", order.chunk, source.disk)
            elif server is not None and destination is not None:
                self._cuts.add(destination.server_id, server.server_id, now)
        self._work.appendleft(order.chunk)
        self._wanted.set()

    def _drop_hopeless(self, now: float) -> None:
        """Copies to disks that went down are planned anew, elsewhere."""
        for order in self._servers.orders.copies():
            if self._servers.disk_state(order.disk, now) == "down":
                self._servers.orders.finish(order)
                self._work.appendleft(order.chunk)

    def _call_off_needless(self, present: Collection[str]) -> None:
        """Disks have come back: copies of chunks that have enough again are not made."""
        for order in self._servers.orders.copies():
            chunk = redundancy.load_endangered(self._db, order.chunk)
            if chunk is None or self._suffices(chunk, present):
                self._servers.orders.call_off(order)

    def _suffices(self, chunk: EndangeredChunk, present: Collection[str]) -> bool:
        good = [
            disk
            for disk, state in chunk.replicas
            if state == replicas.GOOD and disk in present and self._servers.is_wanted(disk)
        ]
        return len(good) >= self._policies.of(chunk.policy).replicas
