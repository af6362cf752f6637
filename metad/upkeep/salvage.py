"""Salvage: chunks of which no copy is good are put together again from the damaged ones.

Looks for lost chunks at intervals, and orders a server to make a whole one of the good blocks that
all disks still have (chunkd/rebuild.py).  When blocks are missing everywhere, that is written down
(damage.py) and tried again later, or when a disk has come back.  Also says which damaged copies may
be thrown away: never one that could be the last to have a block.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable

import trio

from dfswire.messages import Replica
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
        self._tried: dict[bytes, tuple[float, frozenset[str]]] = {}  # when, with which disks
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
        after = self._after
        lost = await self._db.read_in_thread(
            lambda db: damage.lost_chunks(db, waited_for, after, CHUNKS_PER_PASS_MAX)
        )
        self._after = lost[-1].chunk if len(lost) == CHUNKS_PER_PASS_MAX else b""
        return sum(self._order(chunk, self._clock()) for chunk in lost)

    def _forget_who_is_away(self, now: float) -> None:
        """One that goes may not have been asked any more: when it is back it is a new one."""
        live = self._servers.live_disks(now)
        self._tried = {chunk: (when, disks & live) for chunk, (when, disks) in self._tried.items()}

    def _order(self, chunk: LostChunk, now: float) -> bool:
        live = frozenset(self._servers.live_disks(now))
        tried_s, tried_with = self._tried.get(chunk.chunk, (-AGAIN_AFTER_S, frozenset()))
        if now - tried_s < AGAIN_AFTER_S and live <= tried_with:
            return False
        target = choose(self._servers.candidates(now), 1, chunk.length, self._rng)
        if not target:
            return False
        self._tried[chunk.chunk] = (now, live)
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
