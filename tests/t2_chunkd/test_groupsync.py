"""Group sync: what is written without fsync is durable soon."""

from __future__ import annotations

import trio
from trio.testing import MockClock

from chunkd.groupsync import Syncer
from chunkd.storage import Stores, run_inline
from tests.memorystore import MemoryChunkStore
from tests.suites.chunkstore import A, B, ExpectLog, content, put


async def test_everything_is_synced_within_the_interval(autojump_clock: MockClock) -> None:
    stores = [MemoryChunkStore("one"), MemoryChunkStore("two")]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Syncer(Stores(stores), run_inline, 5.0).run_forever)
        await trio.sleep(1)
        for store in stores:
            put(store, A, content(10))
        await trio.sleep(3.9)
        assert [store.backlog for store in stores] == [1, 1]
        await trio.sleep(0.2)
        assert [store.backlog for store in stores] == [0, 0]
        nursery.cancel_scope.cancel()


async def test_it_can_be_woken(autojump_clock: MockClock) -> None:
    store = MemoryChunkStore("one")
    syncer = Syncer(Stores([store]), run_inline, 5.0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(syncer.run_forever)
        await trio.sleep(1)
        put(store, A, content(10))
        syncer.wake()
        await trio.sleep(0.1)
        assert store.backlog == 0
        nursery.cancel_scope.cancel()


async def test_it_counts_what_was_lost(expect_log: ExpectLog) -> None:
    expect_log("failed fsync")
    store = MemoryChunkStore("one")
    put(store, A, content(10))
    put(store, B, content(10))
    store.fail_fsync()
    syncer = Syncer(Stores([store]), run_inline, 5.0)
    assert await syncer.run_once() == 1
    assert await syncer.run_once() == 0
    assert [report.chunk for report in store.take_reports()] == [A]
