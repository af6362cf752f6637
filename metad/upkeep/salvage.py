"""Salvage: chunks of which no copy is good are put together again from the damaged ones.

Looks for lost chunks at intervals, and orders a server to make a whole one of the good blocks that
all disks still have (chunkd/rebuild.py).  When blocks are missing everywhere, that is written down
(damage.py) and tried again later, or when a disk has come back or was removed; soon when not all
could be asked.  Also says which damaged copies may be thrown away: never one that could be the last
to have a block.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from typing import NamedTuple

import trio

from dfswire.messages import Replica
from dfswire.orders import Order, OrderResult
from dfswire.verify import Settled, SettledReply
from metad.copies import damage, replicas
from metad.copies.damage import LostChunk
from metad.copies.placement import choose
from metad.hosts.servers import Servers
from metad.recovery.fence import reclaim_held
from metad.storage.database import Database

CHUNKS_PER_PASS_MAX = 500
SOURCES_MAX = 64  # disks that are asked for one chunk: those that had it once, then any other
AGAIN_AFTER_S = 600.0  # a lost chunk is tried again; at once when a disk has come (back)
UNSURE_AFTER_S = 15.0  # when somebody was not reached; twice as long after each more such try


class _Try(NamedTuple):
    """With which disks a chunk was tried, when it is tried again, and the last pause (0: none)."""

    disks: frozenset[str]
    again_s: float
    pause_s: float = 0.0


class Salvager:
    """See the module's text.  `wanted`: how many good copies a policy asks for, by its key."""

    def __init__(
        self,
        db: Database,
        servers: Servers,
        wanted: Callable[[int], int],
        rng: random.Random,
        *,
        repair_after_s: float,
        interval_s: float,
        clock: Callable[[], float],
    ) -> None:
        self._db = db
        self._servers = servers
        self._wanted = wanted
        self._rng = rng
        self._repair_after_s = repair_after_s
        self._interval_s = interval_s
        self._clock = clock
        self._tried: dict[bytes, _Try] = {}
        self._disks: set[str] = set()  # that were not removed
        self._after = b""
        self._wake = trio.Event()

    def wake(self) -> None:
        """A chunk was lost."""
        self._wake.set()

    def urge(self, chunks: Iterable[bytes]) -> None:
        """Somebody waits for these: they are tried again now."""
        for chunk in chunks:
            self._tried.pop(chunk, None)
        self.wake()

    async def run_forever(self) -> None:
        while True:
            self._wake = trio.Event()
            await self.run_once()
            await trio.sleep(self._interval_s)
            with trio.move_on_after(self._interval_s):
                await self._wake.wait()

    async def run_once(self) -> int:
        """Order what can be tried now; how many rebuilds."""
        now = self._clock()
        waited_for = self._servers.disks_worth_waiting_for(now, self._repair_after_s)
        if not damage.any_lost(self._db, waited_for):
            self._tried.clear()
            return 0
        self._forget_who_is_away(now)
        self._forget_who_was_removed()
        after = self._after
        lost = await self._db.read_in_thread(
            lambda db: damage.lost_chunks(db, waited_for, after, CHUNKS_PER_PASS_MAX)
        )
        self._after = lost[-1].chunk if len(lost) == CHUNKS_PER_PASS_MAX else b""
        return sum(self._order(chunk, self._clock()) for chunk in lost)

    def _forget_who_is_away(self, now: float) -> None:
        """One that goes may not have been asked any more: when it is back it is a new one."""
        live = self._servers.live_disks(now)
        self._tried = {
            chunk: tried._replace(disks=tried.disks & live) for chunk, tried in self._tried.items()
        }

    def _forget_who_was_removed(self) -> None:
        """What only they could have had is lost for certain, once the others have been asked."""
        before, self._disks = self._disks, damage.active_disks(self._db)
        if not before <= self._disks:
            self._tried.clear()

    def ended(self, order: Order, result: OrderResult) -> None:
        """A rebuild is booked; if now nobody knows what is lost, not all have been asked."""
        tried = self._tried.get(order.chunk)
        if order.kind != "rebuild" or tried is None or result.ok:
            return
        if not damage.is_known(self._db, order.chunk):
            pause_s = min(max(2 * tried.pause_s, UNSURE_AFTER_S), AGAIN_AFTER_S)
            again_s = self._clock() + pause_s
            self._tried[order.chunk] = tried._replace(again_s=again_s, pause_s=pause_s)

    def _order(self, chunk: LostChunk, now: float) -> bool:
        live = frozenset(self._servers.live_disks(now))
        tried = self._tried.get(chunk.chunk)
        if tried is not None and now < tried.again_s and live <= tried.disks:
            return False
        target = choose(self._servers.candidates(now), 1, chunk.length, self._rng)
        if not target:
            return False
        pause_s = tried.pause_s if tried is not None else 0.0
        self._tried[chunk.chunk] = _Try(live, now + AGAIN_AFTER_S, pause_s)
        return self._servers.orders.add(
            "rebuild",
            chunk.chunk,
            target[0].disk,
            length=chunk.length,
            digest=chunk.digest,
            sources=self._sources(chunk.chunk, now),
        )

    def _sources(self, chunk: bytes, now: float) -> list[Replica]:
        """Those that have had it first: a damaged copy may be anywhere, also where metad forgot."""
        had = [disk for disk, _state in replicas.replicas_of(self._db, chunk)]
        live = self._servers.live_disks(now)
        others = sorted(live.difference(had))
        known = self._servers.replicas([disk for disk in had if disk in live], now)
        return (known + self._servers.replicas(others, now))[:SOURCES_MAX]

    async def settled(self, request: Settled) -> SettledReply:
        """The call server.settled: which damaged copies nothing can depend on any more."""
        await trio.lowlevel.checkpoint()
        live = self._servers.live_disks(self._clock())
        return SettledReply(
            chunks=[chunk for chunk in request.chunks if self._is_settled(chunk, live)]
        )

    def _is_settled(self, chunk: bytes, live: set[str]) -> bool:
        stored = replicas.chunk_info(self._db, chunk)
        if stored is None:
            return not reclaim_held(self._db)
        if stored.state != replicas.LIVE:
            return stored.state == replicas.DEAD
        good = [
            disk
            for disk, state in replicas.replicas_of(self._db, chunk)
            if state == replicas.GOOD and disk in live
        ]
        return len(good) >= self._wanted(stored.policy)
