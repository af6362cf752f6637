"""Inventories: pages over the whole id space, unknown chunks set aside, no false alarm."""

from __future__ import annotations

import itertools

import pytest
import trio
from trio.testing import MockClock

from chunkd.inventory import FIRST, LAST, InventorySender
from chunkd.storage import Stores, run_inline
from dfswire.cluster import Inventory
from dfswire.errors import DiskFailed
from tests.fakes import DirectTransport
from tests.memorystore import MemoryChunkStore
from tests.suites.chunkstore import DAY_S, HOUR_S, ExpectLog, put
from tests.t2_chunkd.servers import METAD, ChunkServer, FakeMetad

IDS = [bytes([number]) + bytes(range(15)) for number in range(0, 250, 25)]


class Bench:
    """A server with ten chunks that are two hours old."""

    def __init__(self, page_chunks: int = 3) -> None:
        self.transport = DirectTransport({})
        self.metad = FakeMetad(self.transport)
        self.server = ChunkServer("one", self.transport)
        self.store = self.server.store
        self.now = 0.0
        self.store._now = lambda: self.now
        for chunk in IDS:
            put(self.store, chunk, b"x")
        self.now = 2 * HOUR_S
        self.sender = InventorySender(
            Stores([self.store]),
            self.server.client,
            run_inline,
            METAD,
            self.server.identity,
            interval_s=600.0,
            unknown_min_age_s=HOUR_S,
            unknown_kept_s=7 * DAY_S,
            page_chunks=page_chunks,
        )

    async def send(self) -> None:
        await self.sender.run_once(self.store)


@pytest.mark.parametrize("page_chunks", [1, 3, 5, 10, 11])
async def test_pages_cover_all_ids_without_gap_or_overlap(page_chunks: int) -> None:
    bench = Bench(page_chunks)
    put(bench.store, FIRST, b"x")
    put(bench.store, LAST, b"x")
    await bench.send()
    pages = bench.metad.pages
    assert b"".join(page.chunks for page in pages) == b"".join([FIRST, *IDS, LAST])
    assert (pages[0].first, pages[-1].last) == (FIRST, LAST)
    for page, following in itertools.pairwise(pages):
        assert int.from_bytes(following.first, "big") == int.from_bytes(page.last, "big") + 1
        assert len(page.chunks) == 16 * page_chunks


async def test_an_empty_disk_says_so() -> None:
    bench = Bench()
    bench.store.files.clear()
    await bench.send()
    (page,) = bench.metad.pages
    assert (page.first, page.last, page.chunks) == (FIRST, LAST, b"")


async def test_unknown_chunks_are_set_aside_and_deleted_after_a_week(
    expect_log: ExpectLog,
) -> None:
    expect_log("unknown to metad")
    bench = Bench()
    put(bench.store, LAST, b"just being written")
    bench.metad.unknown = {IDS[0], IDS[4], LAST}
    await bench.send()
    assert set(bench.store.aside) == {IDS[0], IDS[4]}
    assert LAST in bench.store.files
    bench.now += 7 * DAY_S + 1
    bench.metad.unknown = set()
    await bench.send()
    assert bench.store.aside == {}


async def test_a_chunk_stored_while_its_page_is_under_way_is_not_reported_missing() -> None:
    bench = Bench()
    before, behind = bytes([1]) + bytes(15), bytes([251]) + bytes(15)

    def store_meanwhile(page: Inventory) -> None:
        if len(bench.metad.pages) == 1:
            put(bench.store, before, b"x")
            put(bench.store, behind, b"x")

    bench.metad.on_page = store_meanwhile
    await bench.send()
    assert [(report.chunk, report.state) for report in bench.sender.take_reports()] == [
        (before, "good")
    ]
    assert bench.sender.take_reports() == []
    assert behind in bench.metad.pages[-1].chunks


async def test_it_is_sent_after_registration_and_every_ten_minutes(
    autojump_clock: MockClock,
) -> None:
    bench = Bench(100)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.sender.run_forever)
        await trio.sleep(10_000)
        assert bench.metad.pages == []
        bench.sender.request()
        await trio.sleep(601)
        assert len(bench.metad.pages) == 2
        bench.sender.request()
        await trio.sleep(1)
        assert len(bench.metad.pages) == 3
        bench.metad.down()
        await trio.sleep(600)
        bench.metad.up()
        await trio.sleep(10)
        assert len(bench.metad.pages) == 4
        nursery.cancel_scope.cancel()


async def test_a_disk_that_fails_does_not_hide_the_others(autojump_clock: MockClock) -> None:
    bench = Bench(100)

    class Broken(MemoryChunkStore):
        def list_chunks(self, after: bytes, limit: int) -> list[bytes]:
            raise DiskFailed("no")

    bench.sender._stores = Stores([Broken("broken"), bench.store])
    bench.sender.request()
    with trio.move_on_after(4):
        await bench.sender.run_forever()
    assert [page.disk for page in bench.metad.pages] == ["one"]
