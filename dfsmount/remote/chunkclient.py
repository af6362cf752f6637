"""Typed chunkd calls: one chunk written through a chain, read from the best replica, synced.

The uploader, the block cache and the durability record use it.  It computes checksums before bytes
leave and checks them when they arrive, so no server is trusted.  It promises that a replica that it
names has acknowledged the chunk, and that bytes that it returns match their checksums.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import trio

from dfsmount.ports import Caller, Metadata
from dfsmount.remote.badreplicas import BadReplicas
from dfsmount.remote.hedging import first_answer
from dfsmount.remote.serverhealth import ServerHealth
from dfswire.chunks import (
    ReadChunk,
    ReadReply,
    SyncChunks,
    SyncReply,
    WriteChunk,
    WriteReply,
    block_checksums,
    chunk_digest,
)
from dfswire.errors import CorruptChunk, DFSError, TokenRefused, Unavailable, UnknownChunk
from dfswire.messages import BLOCK_SIZE_BYTES, ChunkGrant, ChunkLocation, Replica, WrittenChunk

log = logging.getLogger(__name__)

WRITE_DEADLINE_S = 10.0  # a full chunk through three fsyncs on disks under load
DIRECT_DEADLINE_S = 3.0  # of a server that the chain has just failed to reach: it may be stopped
READ_DEADLINE_S = 5.0
SYNC_DEADLINE_S = 20.0
SYNC_MAX_CHUNKS = 10_000  # of one call
HEDGE_AFTER_S = 0.25  # while there is too little experience for a percentile
HEDGE_LEAST_S = 0.01  # below this it is scheduling, not the server
PROBE_EVERY_S = 5.0
PROBES = 3  # of a block each, one after the other, while they are slow
PROBE_SLOW_S = 0.1
HEDGES_MAX = 4  # at once: a slow cluster must not be asked for everything twice


@dataclass(frozen=True)
class Stored:
    """A chunk that servers have: what Commit says of it, and where to read it."""

    written: WrittenChunk
    location: ChunkLocation
    durable: bool


class ChunkClient:
    """Calls to all chunkds.  Reports of bad replicas (`report`) and probes run in `nursery`."""

    def __init__(
        self, client: Caller, metadata: Metadata, health: ServerHealth, nursery: trio.Nursery
    ) -> None:
        self._client = client
        self._health = health
        self._nursery = nursery
        self._hedges = trio.Semaphore(HEDGES_MAX)
        self._probed_s: dict[str, float] = {}
        self.hedged = 0  # reads for which a second server was asked
        self.on_refused_write: Callable[[], None] = lambda: None
        """A server wants another token for a grant: the others of its batch are no better."""
        self._bad = BadReplicas(client, metadata, nursery)
        self.report = self._bad.report

    # Writing

    async def write(self, grant: ChunkGrant, data: memoryview, *, durable: bool) -> Stored:
        """Store `data` under the granted id on as many of the targets as possible.

        The first target forwards to the others.  Those that it could not reach are tried directly.
        The caller looks at how many have it.  Raises Unavailable when none has, or the first
        target's answer when every target refused.
        """
        checksums = block_checksums(grant.chunk, data)
        acknowledged: list[Replica] = []
        pending = list(grant.targets)
        refusal: DFSError = Unavailable(f"no server for chunk {grant.chunk.hex()}")
        deadline_s = WRITE_DEADLINE_S
        while pending:
            request = WriteChunk(
                chunk=grant.chunk,
                length=len(data),
                checksums=checksums,
                disk=pending[0].disk,
                chain=pending[1:],
                durable=durable,
                token=pending[0].token,
            )
            stored, problem = await self._write_chain(pending[0].address, request, data, deadline_s)
            refusal = problem or refusal
            acknowledged += [target for target in pending if target.disk in stored]
            pending = [target for target in pending[1:] if target.disk not in stored]
            if problem is None:  # the chain broke behind the first server
                deadline_s = DIRECT_DEADLINE_S
        if not acknowledged:
            raise refusal
        written = WrittenChunk(
            chunk=grant.chunk,
            length=len(data),
            digest=chunk_digest(grant.chunk, len(data), checksums),
            disks=[target.disk for target in acknowledged],
        )
        location = ChunkLocation(
            chunk=grant.chunk, length=len(data), replicas=acknowledged, needed=grant.needed
        )
        return Stored(written, location, durable)

    async def _write_chain(
        self, address: str, request: WriteChunk, data: memoryview, deadline_s: float
    ) -> tuple[set[str], DFSError | None]:
        """The disks that stored it, and why the first server did not."""
        try:
            reply: WriteReply = await self._client.call(
                "chunk.write",
                address,
                request,
                deadline_s=deadline_s,
                attempts=2,
                body=data,
                body_length=len(data),
            )
        except TokenRefused as problem:
            log.info("chunk %s not written to %s: %s", request.chunk.hex(), address, problem)
            self.on_refused_write()
            return set(), problem
        except DFSError as problem:
            log.info("chunk %s not written to %s: %s", request.chunk.hex(), address, problem)
            self._health.failed(address)
            return set(), problem
        if any(each.error.startswith(TokenRefused.code) for each in reply.results):
            self.on_refused_write()
        own = next((one.error for one in reply.results if one.disk == request.disk), "no answer")
        if own:
            log.info("chunk %s not written to %s: %s", request.chunk.hex(), address, own)
            self._health.failed(address)
        self._note_times(address, request, reply)
        stored = {result.disk for result in reply.results if not result.error}
        return stored, Unavailable(own) if own else None

    def _note_times(self, address: str, request: WriteChunk, reply: WriteReply) -> None:
        addresses = {request.disk: address, **{each.disk: each.address for each in request.chain}}
        for result in reply.results:
            if not result.error and result.disk in addresses:
                self._health.stored(addresses[result.disk], request.length, result.took_s)

    # Reading

    async def read(self, location: ChunkLocation, offset: int, length: int) -> memoryview:
        """Verified bytes of a chunk.  The range starts at a block and ends at one or at the end.

        Replicas are tried one after the other, the second one also when the first is slow, the
        damaged ones last.  Raises Unavailable when one could not be reached that may have the
        bytes, UnknownChunk or CorruptChunk when every replica answered that it has not.
        """
        try:
            return await self._read_whole(location, offset, length)
        except CorruptChunk:
            if length <= BLOCK_SIZE_BYTES or len(location.replicas) + len(location.damaged) < 2:
                raise
        # Each has a wrong block in this range, perhaps not the same one.
        return await self._read_blocks(location, offset, length)

    async def _read_blocks(self, location: ChunkLocation, offset: int, length: int) -> memoryview:
        data = bytearray()
        end = offset + length
        for start in range(offset, end, BLOCK_SIZE_BYTES):
            size = min(BLOCK_SIZE_BYTES, end - start)
            data += await self._read_whole(location, start, size)
        return memoryview(data)

    async def _read_whole(self, location: ChunkLocation, offset: int, length: int) -> memoryview:
        """All of the range from one replica."""
        replicas = self._health.order(location.replicas, length) + location.damaged
        if not replicas:
            raise UnknownChunk(f"no good replica of chunk {location.chunk.hex()} is known")

        async def attempt(replica: Replica) -> memoryview:
            return await self._read_replica(location, replica, offset, length)

        answer, problems = await first_answer(
            attempt,
            replicas,
            self._patience_s(replicas[0].address, length),
            self._hedges,
            self._count_hedge,
        )
        if answer is not None:
            return answer
        unreachable = [
            problem for problem in problems if not isinstance(problem, (UnknownChunk, CorruptChunk))
        ]
        text = "; ".join(str(problem) for problem in problems)
        if unreachable:
            raise Unavailable(text) from unreachable[0]
        corrupt = [problem for problem in problems if isinstance(problem, CorruptChunk)]
        kind = CorruptChunk if corrupt else UnknownChunk
        raise kind(text) from problems[0]

    def _count_hedge(self) -> None:
        self.hedged += 1

    def _patience_s(self, address: str, length: int) -> float:
        p95_s = self._health.p95_s(address, length)
        return HEDGE_AFTER_S if p95_s is None else max(p95_s, HEDGE_LEAST_S)

    async def _read_replica(
        self, location: ChunkLocation, replica: Replica, offset: int, length: int
    ) -> memoryview:
        request = ReadChunk(
            chunk=location.chunk,
            disk=replica.disk,
            offset=offset,
            length=length,
            token=replica.token,
        )
        started = trio.current_time()
        try:
            reply, data = await self._client.call(
                "chunk.read", replica.address, request, deadline_s=READ_DEADLINE_S, attempts=1
            )
            _check(location, offset, length, reply, data)
        except (CorruptChunk, UnknownChunk) as problem:
            self.report(location.chunk, replica, str(problem))
            raise
        except TokenRefused:
            raise  # says nothing of the server: the layout is asked again
        except DFSError:
            self._health.failed(replica.address)
            raise
        except trio.Cancelled:
            waited_s = trio.current_time() - started
            if waited_s >= self._patience_s(replica.address, length):
                self._health.outpaced(replica.address, length, waited_s)
                self._probe_soon(location, replica)
            raise
        self._health.succeeded(replica.address, length, trio.current_time() - started)
        return memoryview(data)

    def _probe_soon(self, location: ChunkLocation, replica: Replica) -> None:
        """Find out how slow a server is that was outpaced: that its read was given up says little.

        At most once in a while.
        """
        now = trio.current_time()
        if now - self._probed_s.get(replica.address, -PROBE_EVERY_S) >= PROBE_EVERY_S:
            self._probed_s[replica.address] = now
            self._nursery.start_soon(self._probe, location, replica)

    async def _probe(self, location: ChunkLocation, replica: Replica) -> None:
        length = min(location.length, BLOCK_SIZE_BYTES)
        for _ in range(PROBES):
            began_s = trio.current_time()
            try:
                await self._read_replica(location, replica, 0, length)
            except DFSError as problem:
                log.info("probe of %s: %s", replica.address, problem)
            if trio.current_time() - began_s < PROBE_SLOW_S:
                return

    # Syncing

    async def sync(
        self, chunks: Mapping[str, Sequence[tuple[bytes, bytes]]]
    ) -> dict[tuple[str, bytes], bool | None]:
        """Make chunks durable on servers: address -> chunk ids, each with a token for that server.

        The answer has for (address, chunk) True when it is durable there, False when it can't be
        made so (a failed fsync is final), None when the server wants another token, and nothing
        when it could not be asked.
        """
        answers: dict[tuple[str, bytes], bool | None] = {}

        async def sync_server(address: str, wanted: Sequence[tuple[bytes, bytes]]) -> None:
            for start in range(0, len(wanted), SYNC_MAX_CHUNKS):
                part = wanted[start : start + SYNC_MAX_CHUNKS]
                answers.update(await self._sync(address, part))

        async with trio.open_nursery() as nursery:
            for address, wanted in chunks.items():
                nursery.start_soon(sync_server, address, wanted)
        return answers

    async def _sync(
        self, address: str, wanted: Sequence[tuple[bytes, bytes]]
    ) -> dict[tuple[str, bytes], bool | None]:
        chunks = [chunk for chunk, _ in wanted]
        tokens = [token for _, token in wanted]
        request = SyncChunks(chunks=chunks, tokens=tokens if any(tokens) else [])
        try:
            reply: SyncReply = await self._client.call(
                "chunk.sync", address, request, deadline_s=SYNC_DEADLINE_S, attempts=1
            )
        except TokenRefused as problem:
            log.info("%d chunks not synced on %s: %s", len(chunks), address, problem)
            return {(address, chunk): None for chunk in chunks}
        except DFSError as problem:
            log.info("%d chunks not synced on %s: %s", len(chunks), address, problem)
            self._health.failed(address)
            return {}
        failed = set(reply.failed)
        return {(address, chunk): chunk not in failed for chunk in chunks}


def _check(
    location: ChunkLocation, offset: int, length: int, reply: ReadReply, data: memoryview
) -> None:
    if reply.chunk_length != location.length or len(data) != length:
        raise CorruptChunk(f"chunk {location.chunk.hex()} has another length")
    first_block = offset // BLOCK_SIZE_BYTES
    if block_checksums(location.chunk, data, first_block) != reply.checksums:
        raise CorruptChunk(f"chunk {location.chunk.hex()} does not match its checksums")
