"""Chunk grants, fetched ahead: leave to write new chunks costs one metad call for sixteen of them.

The uploader takes a grant for every chunk that it stores, for the file that it belongs to: there is
one pool for each policy that files follow.  Grants that are about to expire, or that name a server
which failed or was slow here a moment ago, are dropped (an unused grant is garbage that metad
collects).  One refill is under way at a time.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable
from dataclasses import dataclass

import trio

from dfsmount.ports import Metadata
from dfsmount.remote.followed import FollowedPolicies
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


def addresses_of(grant: ChunkGrant) -> list[str]:
    """The servers that a chunk goes to, in the order of the chain."""
    return [target.address for target in grant.targets]


class GrantPool:
    """Grants of one session.  Refills run in `nursery`."""

    def __init__(
        self,
        metadata: Metadata,
        health: ServerHealth,
        nursery: trio.Nursery,
        policies: FollowedPolicies,
    ) -> None:
        self._metadata = metadata
        self._health = health
        self._nursery = nursery
        self._policies = policies
        self._pools: defaultdict[int, deque[_Pooled]] = defaultdict(deque)  # by policy
        self._asking = trio.Lock()
        self._generation = 0

    async def take(self, inode: int) -> ChunkGrant:
        """A grant to write one chunk of a file now.  Raises NoSpace, SessionLost, Unavailable."""
        grant = self._pop(inode, self._health.to_avoid())
        if grant is None:
            async with self._asking:
                grant = self._pop(inode, self._health.to_avoid())
                if grant is None:
                    policy = await self._fetch(inode)
                    # Asked just now with this list, metad had nothing better: no longer picky.
                    grant = self._pop_from(policy, [])
            if grant is None:
                raise Unavailable("metad granted no chunk that can be written now")
        elif self._is_low(inode) and not self._asking.locked():
            self._nursery.start_soon(self._refill, inode)
        return grant

    async def take_elsewhere(self, inode: int, addresses: list[str]) -> list[ChunkGrant]:
        """Grants without these servers; if that can't be, some without one of them each.

        They are asked for now.  Raises what metad answers, but for NoSpace: then there are none.
        """
        found = await self._ask_without(inode, addresses)
        if not found:
            for address in addresses:
                found += await self._ask_without(inode, [address])
        return found

    async def _ask_without(self, inode: int, addresses: list[str]) -> list[ChunkGrant]:
        avoid = sorted({*self._health.to_avoid(), *addresses})
        try:
            reply = await self._metadata.grant(1, avoid, inode)
        except NoSpace:
            return []
        return [
            grant
            for grant in reply.grants
            if not any(target.address in addresses for target in grant.targets)
        ]

    def silent(self, addresses: Iterable[str]) -> None:
        """One of these servers did not answer in time."""
        self._health.silent(addresses)

    def prepare(self, inode: int) -> None:
        """A file was made: know what chunks it shall have by the time that one is full."""
        key = self._policies.of(inode)
        if key is not None and not self._policies.is_known(key) and not self._asking.locked():
            self._nursery.start_soon(self._refill, inode)

    def clear(self) -> None:
        """The session is another one: forget its predecessor's grants."""
        self._generation += 1
        self._pools.clear()

    def _pop(self, inode: int, avoid: list[str]) -> ChunkGrant | None:
        key = self._policies.of(inode)
        return None if key is None else self._pop_from(key, avoid)

    def _pop_from(self, policy: int, avoid: list[str]) -> ChunkGrant | None:
        pool = self._pools[policy]
        while pool:
            pooled = pool.popleft()
            if pooled.usable() and not pooled.names(avoid):
                return pooled.grant
        return None

    def _is_low(self, inode: int) -> bool:
        key = self._policies.of(inode)
        return key is None or len(self._pools[key]) < LOW

    async def _refill(self, inode: int) -> None:
        async with self._asking:
            if not self._is_low(inode):
                return
            try:
                await self._fetch(inode)
            except DFSError:
                return  # nobody waits for these; whoever finds the pool empty asks and is told

    async def _fetch(self, inode: int) -> int:
        """Ask for more of what a file needs; the policy whose grants they are."""
        generation, edition = self._generation, self._policies.edition
        sent_at = trio.current_time()
        avoid = self._health.to_avoid()
        try:
            reply = await self._metadata.grant(BATCH, avoid, inode)
        except NoSpace:
            if not avoid:
                raise
            # Avoiding is a wish.  A server that is back beats an error.
            reply = await self._metadata.grant(BATCH, [], inode)
        if reply.uniform:
            self._policies.learn_uniform(edition)
        self._policies.learn(inode, reply.policy, edition)
        self._policies.learn_chunk_size(reply.policy, reply.chunk_size_bytes)
        if generation == self._generation:
            self._pools[reply.policy].extend(
                _Pooled(grant, sent_at + max(grant.expires_s - MARGIN_S, grant.expires_s / 2))
                for grant in reply.grants
            )
        return reply.policy
