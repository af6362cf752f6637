"""Inventories: pages over the whole id space, unknown chunks set aside, no false alarm."""

from __future__ import annotations

import itertools

import pytest
import trio
from trio.testing import MockClock

from chunkd.inventory import FIRST, LAST, InventorySender
from chunkd.storage import Stores, run_inline
from dfswire.errors import DiskFailed, Unavailable
from dfswire.inventories import Inventory
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
            changes_s=30.0,
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


async def test_between_inventories_only_changes_are_sent(autojump_clock: MockClock) -> None:
    bench = Bench(100)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.sender.run_forever)
        bench.sender.request()
        await trio.sleep(40)
        assert (len(bench.metad.pages), bench.metad.changes) == (1, []), "nothing has changed"
        del bench.store.files[IDS[3]]
        put(bench.store, LAST, b"x")
        await trio.sleep(30)
        put(bench.store, FIRST, b"x")
        await trio.sleep(30)
        first, second = bench.metad.changes
        assert (first.after, first.gone, first.new) == (1, IDS[3], LAST)
        assert (second.after, second.gone, second.new) == (2, b"", FIRST)
        await trio.sleep(510)
        assert len(bench.metad.pages) == 2 and bench.metad.pages[-1].number == 4
        assert len(bench.metad.changes) == 2
        nursery.cancel_scope.cancel()


async def test_changes_are_repeated_until_they_are_confirmed() -> None:
    bench = Bench(100)
    await bench.send()
    del bench.store.files[IDS[3]]
    bench.metad.down()
    with pytest.raises(Unavailable):
        await bench.sender.send_changes(bench.store)
    bench.metad.up()
    del bench.store.files[IDS[5]]
    assert await bench.sender.send_changes(bench.store)
    (changes,) = bench.metad.changes
    assert (changes.after, changes.gone) == (1, IDS[3] + IDS[5])
    assert await bench.sender.send_changes(bench.store)
    assert len(bench.metad.changes) == 1


async def test_unknown_chunks_among_changes_are_set_aside(expect_log: ExpectLog) -> None:
    expect_log("unknown to metad")
    bench = Bench(100)
    await bench.send()
    put(bench.store, LAST, b"x")
    bench.now += 2 * HOUR_S
    bench.metad.unknown = {LAST}
    assert await bench.sender.send_changes(bench.store)
    assert set(bench.store.aside) == {LAST}


async def test_a_metad_that_cannot_use_changes_gets_everything(autojump_clock: MockClock) -> None:
    bench = Bench(100)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.sender.run_forever)
        bench.sender.request()
        await trio.sleep(1)
        bench.metad.wants_whole = True
        del bench.store.files[IDS[3]]
        await trio.sleep(31)
        assert len(bench.metad.pages) == 2 and len(bench.metad.changes) == 1
        nursery.cancel_scope.cancel()


async def test_so_does_one_when_more_has_changed_than_a_page_has() -> None:
    bench = Bench(3)
    assert not await bench.sender.send_changes(bench.store), "it has heard nothing yet"
    await bench.send()
    for chunk in IDS[:4]:
        del bench.store.files[chunk]
    assert not await bench.sender.send_changes(bench.store)
    assert bench.metad.changes == []
