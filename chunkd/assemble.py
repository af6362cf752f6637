"""Making one chunk of parts of others, for compaction.

metad says which bytes of which chunks come one after the other.  Each chunk is fetched whole and
verified against metad's digest, so nothing rotten is copied into a chunk that looks new.  The
result is durable before its digest is reported; several servers make the same one, and metad uses
it only when all of them got the same digest.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio

from chunkd.peers import Peers
from chunkd.replicate import fetch_chunk
from chunkd.storage import Runner, Store
from dfswire.chunks import block_checksums, chunk_digest
from dfswire.client import Client
from dfswire.errors import DFSError, Invalid
from dfswire.messages import CHUNK_MAX_BYTES
from dfswire.orders import Order, Piece

FETCHES_AT_ONCE = 8


async def assemble_chunk(
    client: Client,
    store: Store,
    order: Order,
    run: Runner,
    peers: Peers,
    unreachable: list[str],
) -> bytes:
    """Carry out an `assemble` order; the digest.  Raises the error of a piece that is not had."""
    if not 1 <= order.length <= CHUNK_MAX_BYTES or order.length != _total(order.pieces):
        raise Invalid("pieces that do not make a chunk of this length")
    buffer = memoryview(bytearray(order.length))
    places: dict[bytes, list[tuple[int, Piece]]] = {}
    at = 0
    for piece in order.pieces:
        if piece.chunk:
            places.setdefault(piece.chunk, []).append((at, piece))
        else:
            buffer[at : at + piece.length] = piece.data
        at += piece.length

    async def fetch(piece: Piece) -> memoryview:
        source = Order(
            order_id=order.order_id,
            kind="copy",
            chunk=piece.chunk,
            disk=order.disk,
            length=piece.chunk_length,
            digest=piece.digest,
            sources=piece.sources,
        )
        return (await fetch_chunk(client, source, peers, unreachable))[0]

    await _fetch_all(fetch, places, buffer)
    checksums = block_checksums(order.chunk, buffer)
    await run(lambda: store.write(order.chunk, buffer, checksums, True))
    return chunk_digest(order.chunk, order.length, checksums)


async def _fetch_all(
    fetch_one: Callable[[Piece], Awaitable[memoryview]],
    places: dict[bytes, list[tuple[int, Piece]]],
    buffer: memoryview,
) -> None:
    limit = trio.CapacityLimiter(FETCHES_AT_ONCE)
    problems: list[DFSError] = []

    async def fetch(wanted: list[tuple[int, Piece]]) -> None:
        async with limit:
            if problems:
                return
            try:
                data = await fetch_one(wanted[0][1])
            except DFSError as problem:
                problems.append(problem)
                return
        for at, piece in wanted:
            part = data[piece.chunk_offset : piece.chunk_offset + piece.length]
            if len(part) != piece.length:
                problems.append(Invalid("a piece ends beyond its chunk"))
                return
            buffer[at : at + piece.length] = part

    async with trio.open_nursery() as nursery:
        for wanted in places.values():
            nursery.start_soon(fetch, wanted)
    if problems:
        raise problems[0]


def _total(pieces: list[Piece]) -> int:
    return sum(piece.length for piece in pieces)
