"""Whole chunks out of damaged copies."""

from __future__ import annotations

import pytest

from chunkd.rebuild import BlocksLost, rebuild_chunk
from chunkd.storage import run_inline
from dfswire.chunks import block_checksums, chunk_digest
from dfswire.client import Client
from dfswire.errors import CorruptChunk, Invalid
from dfswire.messages import BLOCK_SIZE_BYTES as BLOCK
from dfswire.orders import Order
from tests.fakes import DirectTransport
from tests.suites.chunkstore import A, ExpectLog, content, put
from tests.t2_chunkd.servers import ChunkServer

DATA = content(5 * BLOCK + 17)
DIGEST = chunk_digest(A, len(DATA), block_checksums(A, DATA))


class Ruins:
    """Two servers that have a chunk, for damaging, and a third for the whole one."""

    def __init__(self) -> None:
        self.transport = DirectTransport({})
        self.client = Client(transport=self.transport)
        self.one, self.two, self.target = (
            ChunkServer(name, self.transport) for name in ("one", "two", "target")
        )
        for server in (self.one, self.two):
            put(server.store, A, DATA)

    def damage(self, server: ChunkServer, *offsets: int) -> None:
        for offset in offsets:
            server.store.corrupt(A, offset)
        with pytest.raises(CorruptChunk):
            server.store.verify(A)

    async def rebuild(self, digest: bytes = DIGEST) -> None:
        order = Order(
            order_id=1,
            kind="rebuild",
            chunk=A,
            disk="target",
            length=len(DATA),
            digest=digest,
            sources=[server.replica for server in (self.one, self.two, self.target)],
        )
        await rebuild_chunk(self.client, self.target.store, order, run_inline)


@pytest.fixture
def ruins() -> Ruins:
    return Ruins()


async def test_each_block_from_who_has_it(ruins: Ruins, expect_log: ExpectLog) -> None:
    expect_log("is bad")
    ruins.damage(ruins.one, 0, BLOCK, len(DATA) - 1)
    ruins.damage(ruins.two, 2 * BLOCK, 3 * BLOCK, 4 * BLOCK)
    await ruins.rebuild()
    assert dict(ruins.target.store.content()) == {A: DATA}
    assert ruins.target.store.files[A].synced


async def test_checksums_from_one_and_blocks_from_another(
    ruins: Ruins, expect_log: ExpectLog
) -> None:
    """The first has no index any more, the second a rotten block."""
    expect_log("is bad")
    ruins.one.store.truncate(A, 4 * BLOCK + 5)
    ruins.damage(ruins.one)
    ruins.damage(ruins.two, BLOCK)
    await ruins.rebuild()
    assert dict(ruins.target.store.content()) == {A: DATA}


async def test_what_nobody_has_is_named(ruins: Ruins, expect_log: ExpectLog) -> None:
    expect_log("is bad")
    for server in (ruins.one, ruins.two):
        ruins.damage(server, BLOCK, len(DATA) - 1)
    with pytest.raises(BlocksLost) as caught:
        await ruins.rebuild()
    assert (caught.value.blocks, caught.value.sure) == ([1, 5], True)
    assert not ruins.target.store.files


async def test_without_any_checksums_nothing_is_believed(
    ruins: Ruins, expect_log: ExpectLog
) -> None:
    expect_log("is bad")
    for server in (ruins.one, ruins.two):
        server.store.truncate(A, 5 * BLOCK)
        ruins.damage(server)
    with pytest.raises(BlocksLost) as caught:
        await ruins.rebuild()
    assert caught.value.blocks == [0, 1, 2, 3, 4, 5]


async def test_who_is_not_reached_may_have_it(ruins: Ruins, expect_log: ExpectLog) -> None:
    expect_log("is bad")
    ruins.damage(ruins.one, BLOCK)
    ruins.transport.down(ruins.two.address)
    with pytest.raises(BlocksLost) as caught:
        await ruins.rebuild()
    assert (caught.value.blocks, caught.value.sure) == ([1], False)


async def test_a_rebuild_needs_to_know_what_it_makes(ruins: Ruins) -> None:
    with pytest.raises(Invalid):
        await ruins.rebuild(digest=b"")
