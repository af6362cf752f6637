"""Chunk grants, fetched ahead: leave to write new chunks costs one metad call for sixteen of them.

The uploader takes a grant for every chunk that it stores.  Grants that are about to expire, or that
name a server which failed or was slow here a moment ago, are dropped (an unused grant is garbage
that metad collects).  One refill is under way at a time.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import trio

from dfsmount.ports import Metadata
from dfsmount.remote.serverhealth import ServerHealth
from dfswire.errors import DFSError, NoSpace, Unavailable
from dfswire.messages import ChunkGrant

BATCH = 16
LOW = 4  # refilled in the background below this
MARGIN_S = 60.0  # an upload (30 s) and its commit must fit in what is left of a grant


@dataclass(frozen=True)
class _Pooled:
    grant: ChunkGrant
    usable_until: float

    def usable(self) -> bool:
        return trio.current_time() < self.usable_until

    def names(self, addresses: list[str]) -> bool:
        return any(target.address in addresses for target in self.grant.targets)


class GrantPool:
    """Grants of one session.  Refills run in `nursery`."""

    def __init__(self, metadata: Metadata, health: ServerHealth, nursery: trio.Nursery) -> None:
        self._metadata = metadata
        self._health = health
        self._nursery = nursery
        self._pool: deque[_Pooled] = deque()
        self._asking = trio.Lock()
        self._generation = 0

    async def take(self) -> ChunkGrant:
        """A grant to write one chunk now.  Raises NoSpace, SessionLost, Unavailable."""
        grant = self._pop(self._health.to_avoid())
        if grant is None:
            async with self._asking:
                grant = self._pop(self._health.to_avoid())
                if grant is None:
                    await self._fetch()
                    # Asked just now with this list, metad had nothing better: no longer picky.
                    grant = self._pop([])
            if grant is None:
                raise Unavailable("metad granted no chunk that can be written now")
        elif len(self._pool) < LOW and not self._asking.locked():
            self._nursery.start_soon(self._refill)
        return grant

    def clear(self) -> None:
        """The session is another one: forget its predecessor's grants."""
        self._generation += 1
        self._pool.clear()

    def _pop(self, avoid: list[str]) -> ChunkGrant | None:
        while self._pool:
            pooled = self._pool.popleft()
            if pooled.usable() and not pooled.names(avoid):
                return pooled.grant
        return None

    async def _refill(self) -> None:
        async with self._asking:
            if len(self._pool) >= LOW:
                return
            try:
                await self._fetch()
            except DFSError:
                return  # nobody waits for these; whoever finds the pool empty asks and is told

    async def _fetch(self) -> None:
        generation = self._generation
        sent_at = trio.current_time()
        avoid = self._health.to_avoid()
        try:
            grants = await self._metadata.grant(BATCH, avoid)
        except NoSpace:
            if not avoid:
                raise
            # Avoiding is a wish.  A server that is back beats an error.
            grants = await self._metadata.grant(BATCH, [])
        if generation != self._generation:
            return
        self._pool.extend(
            _Pooled(grant, sent_at + max(grant.expires_s - MARGIN_S, grant.expires_s / 2))
            for grant in grants
        )
