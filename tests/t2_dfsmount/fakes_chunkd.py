"""chunkds in memory, as the client's data path calls them.

`FakeChunkds` answers `Caller` calls directly, takes delays from trio's clock, and each server has a
switch for every way in which it can misbehave.  fakes_data.py puts a metad beside them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import trio

from dfswire.chunks import (
    ReadReply,
    SyncReply,
    VerifyReply,
    WriteChunk,
    WriteReply,
    WriteResult,
    block_checksums,
)
from dfswire.errors import (
    CorruptChunk,
    DFSError,
    Unavailable,
    UnknownChunk,
)
from dfswire.messages import (
    BLOCK_SIZE_BYTES,
    Replica,
)


@dataclass
class FakeServer:
    """One chunkd with one disk.  The switches may be turned at any time."""

    address: str
    disk: str
    chunks: dict[bytes, bytes] = field(default_factory=dict)
    synced: set[bytes] = field(default_factory=set)
    is_down: bool = False
    delay_s: float = 0.001
    refuses: DFSError | None = None  # its answer to every write
    cannot_forward: bool = False
    fails_sync: bool = False
    corrupts: bool = False  # flips a bit of what it sends
    lies_about_length: bool = False

    @property
    def replica(self) -> Replica:
        return Replica(disk=self.disk, address=self.address)


class FakeChunkds:
    """`count` servers, and what they were asked."""

    def __init__(self, count: int) -> None:
        self.servers = {f"h{n}:9500": FakeServer(f"h{n}:9500", f"disk{n}") for n in range(count)}
        self.calls: Counter[str] = Counter()
        self.calls_to: list[tuple[str, str]] = []
        self.reads: list[tuple[str, int, int]] = []  # address, offset, length
        self.upload_delay: Callable[[bytes], float] = lambda data: 0.0

    async def call(self, name: str, address: str, request: Any, **options: Any) -> Any:
        self.calls[name] += 1
        self.calls_to.append((name, address))
        server = self.servers[address]
        with trio.move_on_after(options.get("deadline_s", 5.0)):
            if server.is_down:
                raise Unavailable(f"{address} is down")
            await trio.sleep(server.delay_s)
            if name == "chunk.write":
                await trio.sleep(self.upload_delay(bytes(options["body"])))
            if server.is_down:
                raise Unavailable(f"{address} went down")
            return await getattr(self, "_" + name.partition(".")[2])(server, request, options)
        raise Unavailable(f"{address} is slow")

    async def _write(self, server: FakeServer, request: WriteChunk, options: Any) -> WriteReply:
        data = bytes(options["body"])
        if block_checksums(request.chunk, data) != request.checksums:
            raise CorruptChunk("damaged on the way")
        results = [WriteResult(disk=server.disk)]
        if server.refuses is not None:
            if not request.chain:
                raise server.refuses
            results = [WriteResult(disk=server.disk, error=str(server.refuses))]
        else:
            server.chunks[request.chunk] = data
            if request.durable:
                server.synced.add(request.chunk)
        if request.chain:
            results += await self._forward(server, request, options)
        return WriteReply(results=results)

    async def _forward(
        self, server: FakeServer, request: WriteChunk, options: Any
    ) -> list[WriteResult]:
        following = self.servers[request.chain[0].address]
        if server.cannot_forward or following.is_down:
            return [WriteResult(disk=one.disk, error="not reached") for one in request.chain]
        await trio.sleep(following.delay_s)
        onward = WriteChunk(
            chunk=request.chunk,
            length=request.length,
            checksums=request.checksums,
            disk=following.disk,
            chain=request.chain[1:],
            durable=request.durable,
        )
        try:
            reply = await self._write(following, onward, options)
        except DFSError as problem:
            return [WriteResult(disk=one.disk, error=str(problem)) for one in request.chain]
        return reply.results

    async def _read(self, server: FakeServer, request: Any, options: Any) -> Any:
        self.reads.append((server.address, request.offset, request.length))
        data = server.chunks.get(request.chunk)
        if data is None:
            raise UnknownChunk("never heard of it")
        body = bytearray(data[request.offset : request.offset + request.length])
        assert request.offset % BLOCK_SIZE_BYTES == 0
        first = request.offset // BLOCK_SIZE_BYTES
        sums = block_checksums(request.chunk, body, first)
        if server.corrupts:
            body[len(body) // 2] ^= 1
        length = len(data) + server.lies_about_length
        return ReadReply(chunk_length=length, checksums=sums), memoryview(body)

    async def _sync(self, server: FakeServer, request: Any, options: Any) -> SyncReply:
        if server.fails_sync:
            return SyncReply(failed=request.chunks)
        server.synced.update(set(request.chunks) & set(server.chunks))
        return SyncReply(failed=[one for one in request.chunks if one not in server.chunks])

    async def _verify(self, server: FakeServer, request: Any, options: Any) -> VerifyReply:
        return VerifyReply(state="bad")
