"""The calls that chunkd answers, each bound to the store that does the work.

`ChunkCalls` has one handler for each call; chunkd/assembly.py puts it together with the background
tasks.  The same handlers run in the daemon, with threads for what blocks, and inline in
simulations.  They never answer that something is stored or durable before that is so.
"""

from __future__ import annotations

import msgspec
import trio

from chunkd.buffers import Buffers
from chunkd.chain import CHAIN_MAX, Arriving, failure, forward
from chunkd.groupsync import Syncer
from chunkd.guard import Guard
from chunkd.identity import ServerIdentity
from chunkd.remains import good_blocks, vouched_checksums
from chunkd.storage import Runner, Store, Stores, run_inline
from dfswire.chunks import (
    ReadChunk,
    ReadReply,
    SyncChunks,
    SyncReply,
    VerifyChunk,
    VerifyReply,
    WriteChunk,
    WriteReply,
    WriteResult,
    chunk_digest,
)
from dfswire.client import Client
from dfswire.daemon import software_version
from dfswire.dispatch import BodySource, Handler, Reply
from dfswire.errors import CorruptChunk, DFSError, ProtocolError, Unavailable, UnknownChunk
from dfswire.hosts import Hello
from dfswire.messages import PROTOCOL_VERSION, Empty
from dfswire.verify import SalvageChunk, SalvageReply

FORWARD_MAX_S = 30.0
BUSY_S = 0.05  # after a read: its bytes are still being sent, and the next one is near
FORWARD_SHARE = 0.8  # of the caller's deadline, so that a hung successor is a result in time
SYNC_AT_BACKLOG = 256  # unsynced chunks of a disk; the group sync then starts at once
INLINE_WRITE_MAX_BYTES = 65_536  # into the page cache: cheaper than the way to a thread and back


class ChunkCalls:
    """The handlers; stateless but for the buffers."""

    def __init__(
        self,
        stores: Stores,
        client: Client,
        identity: ServerIdentity,
        syncer: Syncer,
        run: Runner,
        receive_buffers: int,
        guard: Guard,
    ) -> None:
        self._stores = stores
        self._client = client
        self._identity = identity
        self._syncer = syncer
        self._run = run
        self._guard = guard
        self._buffers = Buffers(receive_buffers)
        self._writes = 0
        self._read_at_s = -BUSY_S
        self._stopping: trio.Event | None = None  # set when the last write is done

    @property
    def handlers(self) -> dict[str, Handler]:
        """By call name, for the Dispatcher."""
        return {
            "chunkd.hello": self.hello,
            "chunk.write": self.write,
            "chunk.read": self.read,
            "chunk.sync": self.sync,
            "chunk.verify": self.verify,
            "chunk.salvage": self.salvage,
        }

    @property
    def is_busy(self) -> bool:
        """Is a chunk being received, or was one read just now?  The scrubber lets them go first."""
        return bool(self._writes) or trio.current_time() - self._read_at_s < BUSY_S

    async def hello(self, request: Empty, body: BodySource) -> Hello:
        """Who is here."""
        return Hello(
            service="chunkd",
            protocol=PROTOCOL_VERSION,
            software=software_version(),
            cluster_id=self._identity.cluster_id,
            server_id=self._identity.server_id,
        )

    async def finish_writes(self) -> None:
        """Take no more writes, and return when those under way are answered."""
        self._stopping = trio.Event()
        if self._writes:
            await self._stopping.wait()

    async def write(self, request: WriteChunk, body: BodySource) -> WriteReply:
        """Receive a chunk, forwarding it meanwhile; own result first, then the chain's.

        Raises Unavailable when the sender goes away: then nothing is stored here; TokenRefused, as
        all others here.
        """
        holder = self._guard.check_write(request.chunk, request.token, request.holder)
        request = msgspec.structs.replace(request, holder=holder)
        if body.length != request.length or len(request.chain) > CHAIN_MAX:
            raise ProtocolError(f"body of {body.length} bytes for a chunk of {request.length}")
        if self._stopping is not None:
            raise Unavailable("this server is being stopped")
        self._writes += 1
        try:
            return await self._receive_chunk(request, body)
        finally:
            self._writes -= 1
            if self._stopping is not None and not self._writes:
                self._stopping.set()

    async def _receive_chunk(self, request: WriteChunk, body: BodySource) -> WriteReply:
        began_s = trio.current_time()
        async with self._buffers.borrow(request.length, len(request.chain)) as buffer:
            arriving = Arriving(buffer)
            downstream: list[WriteResult] = []
            own: list[WriteResult] = []
            broken: DFSError | None = None

            async def pass_on() -> None:
                deadline_s = _forward_deadline_s()
                downstream.extend(await forward(self._client, request, arriving, deadline_s))

            async with trio.open_nursery() as nursery:
                if request.chain:
                    nursery.start_soon(pass_on)
                try:
                    await arriving.receive(body)
                except DFSError as problem:
                    broken = problem
                    nursery.cancel_scope.cancel()
                else:
                    kept = await self._keep(request, buffer)
                    took_s = trio.current_time() - began_s
                    own.append(msgspec.structs.replace(kept, took_s=took_s))
            if broken:
                raise broken
            return WriteReply(results=own + downstream)

    async def _keep(self, request: WriteChunk, data: memoryview) -> WriteResult:
        try:
            store = self._stores.on(request.disk)
            quick = request.length <= INLINE_WRITE_MAX_BYTES and not request.durable
            backlog = store.backlog > SYNC_AT_BACKLOG
            if backlog:
                self._syncer.wake()
            await (run_inline if quick and not backlog else self._run)(
                lambda: store.write(request.chunk, data, request.checksums, request.durable)
            )
        except DFSError as problem:
            return failure(request.disk, problem)
        return WriteResult(disk=request.disk)

    async def read(self, request: ReadChunk, body: BodySource) -> Reply:
        """A range with its checksums.  Raises UnknownChunk, CorruptChunk, Invalid."""
        self._guard.check_read(request.chunk, request.token)
        store = self._stores.on(request.disk)
        self._read_at_s = trio.current_time()
        found = await self._run(
            lambda: store.open_range(request.chunk, request.offset, request.length)
        )
        message = ReadReply(chunk_length=found.chunk_length, checksums=found.checksums)
        return Reply(message, found.body)

    async def sync(self, request: SyncChunks, body: BodySource) -> SyncReply:
        """Make chunks durable on whichever disks here have them.

        A chunk is failed unless some disk has it, durable now, and no disk lost it by trying.
        """
        self._guard.check_sync(request.chunks, request.tokens)
        durable: set[bytes] = set()
        failed: set[bytes] = set()
        wanted = set(request.chunks)

        async def sync_disk(store: Store) -> None:
            outcome = await self._run(lambda: store.sync(request.chunks))
            failed.update(outcome.failed)
            durable.update(wanted.difference(outcome.failed, outcome.missing))

        async with trio.open_nursery() as nursery:
            for store in self._stores:
                nursery.start_soon(sync_disk, store)
        return SyncReply(failed=sorted((wanted - durable) | failed))

    async def verify(self, request: VerifyChunk, body: BodySource) -> VerifyReply:
        """Check a whole chunk; a bad one is set aside and reported to metad."""
        self._guard.check_verify(request.chunk, request.token)
        try:
            store = self._stores.on(request.disk)
            await self._run(lambda: store.verify(request.chunk))
        except UnknownChunk as problem:
            return VerifyReply(state="missing", reason=str(problem))
        except CorruptChunk as problem:
            return VerifyReply(state="bad", reason=str(problem))
        return VerifyReply(state="good")

    async def salvage(self, request: SalvageChunk, body: BodySource) -> Reply:
        """Which blocks of a damaged chunk are still right here, and those that are wanted."""
        self._guard.check_read(request.chunk, request.token)
        store = self._stores.on(request.disk)
        checksums, found = await self._run(lambda: _salvaged(store, request))
        message = SalvageReply(checksums=checksums, good=sorted(found))
        wanted = [found[block] for block in request.wanted if block in found]
        return Reply(message, b"".join(wanted))


def _salvaged(store: Store, request: SalvageChunk) -> tuple[bytes, dict[int, bytes]]:
    chunk, length = request.chunk, request.length
    contents = store.remains(chunk)
    checksums = request.checksums
    if chunk_digest(chunk, length, checksums) != request.digest:
        vouched = (vouched_checksums(chunk, length, request.digest, each) for each in contents)
        checksums = next((each for each in vouched if each), b"")
    found: dict[int, bytes] = {}
    for content in contents if checksums else ():
        found |= good_blocks(chunk, length, checksums, content)
    return checksums, found


def _forward_deadline_s() -> float:
    """A share of the time that our own caller will still wait."""
    remaining_s = trio.current_effective_deadline() - trio.current_time()
    return max(0.0, min(FORWARD_MAX_S, FORWARD_SHARE * remaining_s))  # -inf when cancelled
