"""Making a copy of a chunk: fetch it from another server, verify it, keep it.

Repair and rebalancing order copies.  Every byte is checked against the block checksums, and these
against the digest that metad remembers, so that rot is never copied; a source that gives other
bytes is asked to check itself, which sets its copy aside.  A copy is durable before it is reported.
"""

from __future__ import annotations

import logging

import trio

from chunkd.chunkfile import check_blocks
from chunkd.peers import Peers
from chunkd.storage import Runner, Store
from dfswire.chunks import ReadChunk, ReadReply, VerifyChunk, chunk_digest
from dfswire.client import Client
from dfswire.errors import CorruptChunk, DFSError, Invalid, Unavailable, UnknownChunk
from dfswire.messages import CHUNK_MAX_BYTES, Replica
from dfswire.orders import Order

log = logging.getLogger(__name__)

FETCH_DEADLINE_S = 10.0  # a whole chunk from a busy server over a slow link; then the next source


async def copy_chunk(
    client: Client,
    store: Store,
    order: Order,
    run: Runner,
    peers: Peers,
    unreachable: list[str],
) -> None:
    """Carry out a `copy` order.  Raises the last source's error when none has the bytes.

    Adds to `unreachable` the addresses of sources that gave no answer.
    """
    if not order.digest or not 1 <= order.length <= CHUNK_MAX_BYTES:
        raise Invalid("a copy needs the digest and the length of the chunk")
    if await _have_it(store, order, run):
        return
    data, checksums = await fetch_chunk(client, order, peers, unreachable)
    await run(lambda: store.write(order.chunk, data, checksums, True))


async def fetch_chunk(
    client: Client, order: Order, peers: Peers, unreachable: list[str]
) -> tuple[memoryview, bytes]:
    """The bytes and checksums of order.chunk from a source that has what the digest says.

    Raises the last source's error when none has; see copy_chunk.
    """
    problem: DFSError = Unavailable("no source for this copy")
    now = trio.current_time()
    for source in sorted(order.sources, key=lambda each: peers.is_doubtful(each.address, now)):
        try:
            data, checksums = await _fetch(client, source, order)
        except Unavailable as silent:
            problem = silent
            unreachable.append(source.address)
            peers.failed(source.address, trio.current_time())
        except CorruptChunk as bad:
            problem = bad
            await _ask_to_verify(client, source, order.chunk)
        except DFSError as refusal:
            problem = refusal
        else:
            peers.answered(source.address)
            return data, checksums
    raise problem


async def _have_it(store: Store, order: Order, run: Runner) -> bool:
    """Whether a good copy is here already; it is durable then."""
    try:
        if await run(lambda: store.digest(order.chunk)) != order.digest:
            return False
        await run(lambda: store.verify(order.chunk))
    except (UnknownChunk, CorruptChunk):
        return False
    outcome = await run(lambda: store.sync([order.chunk]))
    return not outcome.failed and not outcome.missing


async def _fetch(client: Client, source: Replica, order: Order) -> tuple[memoryview, bytes]:
    """The chunk's bytes and checksums from one source, verified."""
    buffer = memoryview(bytearray(order.length))
    request = ReadChunk(
        chunk=order.chunk, disk=source.disk, offset=0, length=order.length, token=source.token
    )
    reply: ReadReply
    reply, body = await client.call(
        "chunk.read", source.address, request, deadline_s=FETCH_DEADLINE_S, into=buffer
    )
    data = memoryview(body)
    if len(data) != order.length or reply.chunk_length != order.length:
        raise CorruptChunk(f"{source.address} has {reply.chunk_length} bytes of {order.length}")
    if chunk_digest(order.chunk, order.length, reply.checksums) != order.digest:
        raise CorruptChunk(f"{source.address} has other content than metad remembers")
    check_blocks(order.chunk, data, reply.checksums)
    return data, reply.checksums


async def _ask_to_verify(client: Client, source: Replica, chunk: bytes) -> None:
    """Let the owner of a bad copy find out for itself; repair goes on without waiting for more."""
    log.warning("copy of chunk %s on disk %s is bad", chunk.hex(), source.disk)
    request = VerifyChunk(chunk=chunk, disk=source.disk, token=source.token)
    try:
        await client.call("chunk.verify", source.address, request)
    except DFSError as problem:
        log.info("%s could not verify its copy: %s", source.address, problem)
