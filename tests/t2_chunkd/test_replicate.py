"""Copies: only verified bytes, from whichever source has them."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from chunkd.peers import AVOIDED_S, Peers
from chunkd.replicate import copy_chunk
from chunkd.storage import run_inline
from dfswire.chunks import block_checksums, chunk_digest
from dfswire.client import Client
from dfswire.errors import CorruptChunk, DiskFailed, Invalid, Unavailable, UnknownChunk
from dfswire.messages import BLOCK_SIZE_BYTES as BLOCK
from dfswire.orders import Order
from tests.fakes import DirectTransport
from tests.suites.chunkstore import A, ExpectLog, content, put
from tests.t2_chunkd.servers import ChunkServer

DATA = content(2 * BLOCK + 1)
DIGEST = chunk_digest(A, len(DATA), block_checksums(A, DATA))


class Copying:
    """Two sources that have the chunk, and a target."""

    def __init__(self) -> None:
        self.transport = DirectTransport({})
        self.client = Client(transport=self.transport)
        self.one, self.two, self.target = (
            ChunkServer(name, self.transport) for name in ("one", "two", "target")
        )
        self.peers = Peers()
        self.unreachable: list[str] = []
        for server in (self.one, self.two):
            put(server.store, A, DATA)

    async def copy(self, digest: bytes = DIGEST, length: int = len(DATA)) -> None:
        order = Order(
            order_id=1,
            kind="copy",
            chunk=A,
            disk="target",
            length=length,
            digest=digest,
            sources=[self.one.replica, self.two.replica],
        )
        await copy_chunk(
            self.client, self.target.store, order, run_inline, self.peers, self.unreachable
        )


@pytest.fixture
def copying() -> Copying:
    return Copying()


def is_copied(copying: Copying) -> bool:
    """Whether the target has the chunk, durable."""
    stored = dict(copying.target.store.content())
    return stored == {A: DATA} and copying.target.store.files[A].synced


async def test_a_copy_is_durable(copying: Copying) -> None:
    await copying.copy()
    assert is_copied(copying)


async def test_a_copy_that_is_there_is_not_fetched(copying: Copying) -> None:
    put(copying.target.store, A, DATA)
    for server in (copying.one, copying.two):
        copying.transport.down(server.address)
    await copying.copy()
    assert is_copied(copying)


async def test_a_bad_copy_that_is_there_is_replaced(
    copying: Copying, expect_log: ExpectLog
) -> None:
    expect_log("target is bad")
    put(copying.target.store, A, DATA)
    copying.target.store.corrupt(A)
    await copying.copy()
    assert is_copied(copying)


@pytest.mark.parametrize("damage", ["down", "lost", "payload", "footer"])
async def test_the_second_source_helps(
    copying: Copying, damage: str, expect_log: ExpectLog
) -> None:
    if damage == "down":
        copying.transport.down(copying.one.address)
    elif damage == "lost":
        copying.one.store.drop(A)
    else:
        expect_log("one is bad")
        copying.one.store.corrupt(A, 3 if damage == "payload" else -20)
    await copying.copy()
    assert is_copied(copying)
    if damage in ("payload", "footer"):
        assert A in copying.one.store.quarantined


async def test_rot_is_never_copied(copying: Copying, expect_log: ExpectLog) -> None:
    expect_log("is bad")
    for server in (copying.one, copying.two):
        server.store.corrupt(A, BLOCK)
    with pytest.raises(CorruptChunk):
        await copying.copy()
    assert copying.target.store.files == {}


async def test_other_content_than_metad_remembers_is_refused(
    copying: Copying, expect_log: ExpectLog
) -> None:
    expect_log("is bad")
    with pytest.raises(CorruptChunk, match="remembers"):
        await copying.copy(digest=bytes(16))
    with pytest.raises(Invalid):
        await copying.copy(length=len(DATA) + 1)  # what the sources say of the range
    with pytest.raises(CorruptChunk, match="bytes of"):
        await copying.copy(length=2 * BLOCK)
    assert copying.target.store.files == {}


async def test_orders_that_make_no_sense(copying: Copying) -> None:
    with pytest.raises(Invalid, match="digest"):
        await copying.copy(digest=b"")
    with pytest.raises(Invalid, match="length"):
        await copying.copy(length=0)


async def test_all_sources_gone(copying: Copying) -> None:
    copying.one.store.drop(A)
    copying.transport.down(copying.two.address)
    with pytest.raises(Unavailable):
        await copying.copy()
    copying.two.store.drop(A)
    copying.transport.up(copying.two.address, copying.two.dispatcher)
    with pytest.raises(UnknownChunk):
        await copying.copy()


async def test_a_source_that_cannot_verify_itself(
    copying: Copying, expect_log: ExpectLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    expect_log("one is bad")
    copying.one.store.corrupt(A)

    async def fail(*args: object) -> None:
        raise DiskFailed("no")

    handlers = copying.one.service.handlers | {"chunk.verify": fail}
    copying.transport.up(copying.one.address, type(copying.one.dispatcher)("chunkd", handlers))
    await copying.copy()
    assert is_copied(copying)


async def test_a_source_that_failed_a_moment_ago_is_asked_last(
    copying: Copying, autojump_clock: MockClock
) -> None:
    copying.transport.down(copying.one.address)
    await copying.copy()
    assert copying.unreachable == [copying.one.address]
    copying.target.store.delete(A)
    copying.unreachable.clear()
    await copying.copy()
    assert copying.unreachable == []
    assert {each.address: each.failed for each in copying.peers.take()} == {
        copying.one.address: 1,
        copying.two.address: 0,
    }
    assert copying.peers.take() == []
    await trio.sleep(AVOIDED_S)
    copying.target.store.delete(A)
    await copying.copy()
    assert copying.unreachable == [copying.one.address]
