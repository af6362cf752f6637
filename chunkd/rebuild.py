"""Making a whole chunk again of what several damaged copies still have.

metad orders it when no copy is good.  Every server that may have something is asked which blocks of
it match the checksums that metad's digest vouches for; one good copy of each block is enough.  What
nobody has is told to metad, so the ranges of files that are lost are known exactly.
"""

from __future__ import annotations

import logging

from chunkd.remains import block_length
from chunkd.storage import Runner, Store
from dfswire.chunks import CHECKSUM_BYTES, block_checksums, block_count, chunk_digest
from dfswire.client import Client
from dfswire.errors import CorruptChunk, DFSError, Invalid
from dfswire.messages import BLOCK_SIZE_BYTES, CHUNK_MAX_BYTES, Replica
from dfswire.orders import Order
from dfswire.verify import SalvageChunk, SalvageReply

log = logging.getLogger(__name__)

SALVAGE_DEADLINE_S = 30.0  # as for a copy: a whole chunk over a slow link


class BlocksLost(CorruptChunk):
    """No server that could be asked has these blocks; `sure`: every one could be asked."""

    def __init__(self, text: str, blocks: list[int], *, sure: bool) -> None:
        super().__init__(text)
        self.blocks = blocks
        self.sure = sure


async def rebuild_chunk(client: Client, store: Store, order: Order, run: Runner) -> None:
    """Carry out a `rebuild` order.  Raises BlocksLost when not all blocks are found."""
    if not order.digest or not 1 <= order.length <= CHUNK_MAX_BYTES:
        raise Invalid("rebuilding needs the digest and the length of the chunk")
    work = _Rebuilding(client, order)
    await work.gather()
    checksums = work.checksums
    await run(lambda: store.write(order.chunk, work.data, checksums, True))


class _Rebuilding:
    """The blocks found so far."""

    def __init__(self, client: Client, order: Order) -> None:
        self._client = client
        self._order = order
        self.checksums = b""
        self.data = memoryview(bytearray(order.length))
        self._missing = dict.fromkeys(range(block_count(order.length)))
        self._unreachable: set[str] = set()

    async def gather(self) -> None:
        """Ask everybody for checksums, then everybody for the blocks that are still missing."""
        for source in self._order.sources:
            if not self.checksums:
                await self._ask(source, [])
        if self.checksums:
            for source in self._order.sources:
                if self._missing:
                    await self._ask(source, list(self._missing))
        if self._missing:
            away = f"; not reached: {len(self._unreachable)} disks" if self._unreachable else ""
            count = block_count(self._order.length)
            raise BlocksLost(
                f"no copy has {len(self._missing)} of {count} blocks{away}",
                list(self._missing),
                sure=not self._unreachable,
            )

    async def _ask(self, source: Replica, wanted: list[int]) -> None:
        order = self._order
        request = SalvageChunk(
            chunk=order.chunk,
            disk=source.disk,
            length=order.length,
            digest=order.digest,
            checksums=self.checksums,
            wanted=wanted,
            token=source.token,
        )
        reply: SalvageReply
        try:
            reply, body = await self._client.call(
                "chunk.salvage", source.address, request, deadline_s=SALVAGE_DEADLINE_S
            )
        except DFSError as problem:
            log.info("nothing salvaged from disk %s: %s", source.disk, problem)
            self._unreachable.add(source.disk)
            return
        self._unreachable.discard(source.disk)
        if chunk_digest(order.chunk, order.length, reply.checksums) == order.digest:
            self.checksums = reply.checksums
        if self.checksums:
            self._take([block for block in wanted if block in set(reply.good)], memoryview(body))

    def _take(self, blocks: list[int], body: memoryview) -> None:
        """Keep the blocks that came, each only if it is right."""
        at = 0
        for block in blocks:
            length = block_length(self._order.length, block)
            data = body[at : at + length]
            at += length
            at_sum = block * CHECKSUM_BYTES
            right = self.checksums[at_sum : at_sum + CHECKSUM_BYTES]
            if block_checksums(self._order.chunk, data, block) == right:
                start = block * BLOCK_SIZE_BYTES
                self.data[start : start + length] = data
                self._missing.pop(block, None)
