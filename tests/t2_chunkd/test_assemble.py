"""One chunk of parts of others: right and durable, or not there at all."""

from __future__ import annotations

import pytest
from trio.testing import MockClock

from chunkd.assemble import assemble_chunk
from chunkd.peers import Peers
from chunkd.storage import run_inline
from dfswire.chunks import block_checksums, chunk_digest
from dfswire.client import Client
from dfswire.errors import DFSError, Invalid
from dfswire.messages import BLOCK_SIZE_BYTES as BLOCK
from dfswire.orders import Order, Piece
from tests.fakes import DirectTransport
from tests.suites.chunkstore import A, B, C, ExpectLog, content, put
from tests.t2_chunkd.servers import ChunkServer

DATA = content(2 * BLOCK + 5)


class Bench:
    """A source with chunk A, and a server that makes chunk B."""

    def __init__(self) -> None:
        transport = DirectTransport({})
        self.client = Client(transport=transport)
        self.source, self.target = (ChunkServer(name, transport) for name in ("one", "two"))
        put(self.source.store, A, DATA)

    def piece(self, offset: int, length: int, chunk: bytes = A) -> Piece:
        return Piece(
            length=length,
            chunk=chunk,
            chunk_offset=offset,
            chunk_length=len(DATA),
            digest=chunk_digest(chunk, len(DATA), block_checksums(chunk, DATA)),
            sources=[self.source.replica],
        )

    async def assemble(self, *pieces: Piece, length: int = 0) -> bytes:
        order = Order(
            order_id=1,
            kind="assemble",
            chunk=B,
            disk="two",
            length=length or sum(piece.length for piece in pieces),
            pieces=list(pieces),
        )
        store, peers = self.target.store, Peers()
        return await assemble_chunk(self.client, store, order, run_inline, peers, [])


@pytest.fixture
def bench() -> Bench:
    return Bench()


async def test_parts_and_bytes_in_their_order(bench: Bench, autojump_clock: MockClock) -> None:
    digest = await bench.assemble(
        bench.piece(BLOCK, 9), Piece(length=3, data=b"abc"), bench.piece(0, 7)
    )
    made = DATA[BLOCK : BLOCK + 9] + b"abc" + DATA[:7]
    assert dict(bench.target.store.content()) == {B: made}
    assert bench.target.store.files[B].synced
    assert digest == chunk_digest(B, len(made), block_checksums(B, made))


async def test_nothing_is_made_when_a_part_is_not_had(
    bench: Bench, autojump_clock: MockClock
) -> None:
    with pytest.raises(DFSError, match=C.hex()):
        await bench.assemble(bench.piece(0, 9), bench.piece(0, 9, C))
    assert not bench.target.store.files


async def test_nothing_is_made_of_what_is_rotten(
    bench: Bench, autojump_clock: MockClock, expect_log: ExpectLog
) -> None:
    expect_log("is bad")
    bench.source.store.corrupt(A, 2 * BLOCK)
    with pytest.raises(DFSError):
        await bench.assemble(bench.piece(0, 9))  # which is right; but the chunk is not
    assert not bench.target.store.files


@pytest.mark.parametrize(("offset", "length"), [(len(DATA) - 3, 4), (len(DATA), 1)])
async def test_a_part_ends_within_its_chunk(
    bench: Bench, autojump_clock: MockClock, offset: int, length: int
) -> None:
    with pytest.raises(Invalid, match="beyond its chunk"):
        await bench.assemble(bench.piece(offset, length))
    assert not bench.target.store.files


async def test_lengths_must_agree(bench: Bench) -> None:
    with pytest.raises(Invalid, match="do not make a chunk"):
        await bench.assemble(bench.piece(0, 9), length=10)
