"""Receiving a chunk and passing it on at the same time.

`Arriving` is one chunk in a buffer: a receiver fills it, a forwarder reads what is there already
and waits for more.  `forward` sends it to the next server of the chain and says what became of the
replicas there; trouble downstream is a result, never an exception: the own replica stands.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

import trio

from dfswire.bodies import BodySource
from dfswire.chunks import WriteChunk, WriteReply, WriteResult
from dfswire.client import Client
from dfswire.errors import DFSError, Unavailable
from dfswire.messages import Replica

CHAIN_MAX = 16  # servers after this one; more is nonsense and would only hold buffers


class Arriving:
    """The bytes of one chunk while they arrive."""

    def __init__(self, buffer: memoryview) -> None:
        self.buffer = buffer
        self._filled = 0
        self._grown = trio.Event()

    async def receive(self, body: BodySource) -> None:
        """Fill the buffer.  Raises Unavailable when the sender goes away before the end."""
        while self._filled < len(self.buffer):
            count = await body.receive_into(self.buffer[self._filled :])
            if not count:
                raise Unavailable(f"sender stopped after {self._filled} bytes")
            self._filled += count
            self._grown.set()
            self._grown = trio.Event()

    async def pieces(self) -> AsyncIterator[memoryview]:
        """The bytes in order, each as soon as it is there."""
        sent = 0
        while sent < len(self.buffer):
            while self._filled == sent:
                await self._grown.wait()
            piece = self.buffer[sent : self._filled]
            sent += len(piece)
            yield piece


async def forward(
    client: Client, request: WriteChunk, arriving: Arriving, deadline_s: float
) -> list[WriteResult]:
    """Send the chunk on to `request.chain`; one result for each of its disks, in order."""
    head, *rest = request.chain
    onward = WriteChunk(
        chunk=request.chunk,
        length=request.length,
        checksums=request.checksums,
        disk=head.disk,
        chain=rest,
        durable=request.durable,
        token=head.token,
        holder=request.holder,
    )
    try:
        reply: WriteReply = await client.call(
            "chunk.write",
            head.address,
            onward,
            deadline_s=deadline_s,
            body=arriving.pieces(),
            body_length=request.length,
        )
    except DFSError as problem:
        return failures(request.chain, problem)
    return _only_asked(request.chain, reply)


def failure(disk: str, problem: DFSError) -> WriteResult:
    """A replica that is not stored."""
    return WriteResult(disk=disk, error=f"{problem.code}: {problem}")


def failures(chain: Sequence[Replica], problem: DFSError) -> list[WriteResult]:
    """None of these is stored, or nobody knows."""
    return [failure(replica.disk, problem) for replica in chain]


def _only_asked(chain: Sequence[Replica], reply: WriteReply) -> list[WriteResult]:
    """The results for exactly the disks of the chain, whatever the next server answered."""
    answered = {result.disk: result for result in reply.results}
    unanswered = Unavailable("no result from the chain")
    return [answered.get(replica.disk) or failure(replica.disk, unanswered) for replica in chain]
