"""The writer against an in-memory cluster: order, packs, memory, and when what is sent."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from dfswire.operations import SetAttr
from tests.t2_dfsmount.fakes_data import INODE, FakeCluster, data_path, pattern, truncate

CHUNK = 64


async def test_uploads_that_end_in_reverse_order_are_committed_in_order(
    autojump_clock: MockClock,
) -> None:
    cluster = FakeCluster()
    cluster.upload_delay = lambda data: 1.0 - data[0] / 4
    async with data_path(cluster, chunk_size_bytes=CHUNK) as path:
        writer = path.writer(INODE)
        for index in range(3):
            await writer.write(index * 32, bytes([index + 1]) * CHUNK, now_ns=index)
        await writer.flush(durable=False)
    assert cluster.content() == b"\1" * 32 + b"\2" * 32 + b"\3" * 64
    assert len(cluster.commits) == 1, "what is ready together travels together"
    assert cluster.mtime_ns == 2


async def test_an_overwrite_in_the_open_pack_takes_no_room(autojump_clock: MockClock) -> None:
    cluster = FakeCluster()
    async with data_path(cluster) as path:
        writer = path.writer(INODE)
        await writer.write(0, b"a" * 100, now_ns=1)
        for _ in range(1000):
            await writer.write(50, b"b" * 20, now_ns=1)
        assert path.writeback.budget.used_bytes == 100
        await writer.flush(durable=False)
    assert cluster.content() == b"a" * 50 + b"b" * 20 + b"a" * 30
    assert len(cluster.commits) == 1 and len(cluster.commits[0].extents) == 1


async def test_a_small_file_is_inline(autojump_clock: MockClock) -> None:
    cluster = FakeCluster()
    async with data_path(cluster, inline_max_bytes=100) as path:
        writer = path.writer(INODE)
        await writer.write(0, b"hello", now_ns=1)
        await writer.flush(durable=True)
        assert cluster.calls["chunk.write"] == cluster.calls["grant"] == 0
        assert cluster.commits[0].extents[0].data == b"hello"
        await writer.write(5, b"x" * 200, now_ns=2)
        await writer.flush(durable=True)
        assert cluster.calls["chunk.write"] == 1
        await writer.write(0, b"J", now_ns=3)  # small, but the file is not
        await writer.flush(durable=True)
        assert cluster.calls["chunk.write"] == 2
    assert cluster.content() == b"Jello" + b"x" * 200


async def test_dirty_data_does_not_grow_old(autojump_clock: MockClock) -> None:
    cluster = FakeCluster()
    async with data_path(cluster) as path:
        writers = [path.writer(INODE) for _ in range(2)]
        await writers[0].write(0, b"old", now_ns=1)
        await trio.sleep(3)
        await writers[1].write(3, b"young", now_ns=1)
        await trio.sleep(2.5)
        assert cluster.content() == b"old"
        await trio.sleep(3)
        assert cluster.content() == b"oldyoung"


async def test_back_pressure(autojump_clock: MockClock) -> None:
    cluster = FakeCluster()
    cluster.upload_delay = lambda data: 1.0
    async with data_path(cluster, chunk_size_bytes=100, dirty_max_bytes=400) as path:
        writer = path.writer(INODE)
        started = trio.current_time()
        async with trio.open_nursery() as nursery:
            for index in range(12):
                nursery.start_soon(writer.write, index * 100, bytes([index]) * 100, index)
            await wait_all_tasks_blocked()
            assert path.writeback.budget.used_bytes == 400
        assert trio.current_time() - started >= 2, "eight writes had to wait for two uploads"
        await writer.write(1200, b"z" * 1000, 1)  # more than the budget: alone, but not never
        await writer.flush(durable=False)
    assert cluster.content() == b"".join(bytes([n]) * 100 for n in range(12)) + b"z" * 1000


async def test_pressure_seals_the_oldest_open_packs(autojump_clock: MockClock) -> None:
    cluster = FakeCluster()
    async with data_path(cluster, dirty_max_bytes=300) as path:
        writers = [path.writer(INODE) for _ in range(4)]
        for index, writer in enumerate(writers):
            await writer.write(index * 100, b"w" * 100, now_ns=1)
        assert [writer.has_dirty for writer in writers] == [False, True, True, True]


async def test_truncate_drops_what_is_on_its_way(autojump_clock: MockClock) -> None:
    cluster = FakeCluster()
    cluster.upload_delay = lambda data: 1.0
    async with data_path(cluster, chunk_size_bytes=100) as path:
        writer = path.writer(INODE)
        await writer.write(1000, b"x" * 250, now_ns=1)
        await trio.sleep(0.1)
        started = trio.current_time()
        await truncate(cluster, writer, 500)
        assert trio.current_time() - started < 0.5, "nothing below the size was dirty"
        assert not writer.has_dirty
        await writer.flush(durable=False)
    assert cluster.commits == [] and cluster.size == 500


async def test_attributes_come_before_the_bytes_leave(autojump_clock: MockClock) -> None:
    cluster = FakeCluster()
    ends = []
    async with data_path(cluster) as path:
        writer = path.writer(INODE, on_attr=lambda attr: ends.append((attr.size, writer.dirty_end)))
        await writer.write(0, b"12345", now_ns=1)
        writer.change_attributes(SetAttr(inode=INODE, mtime_ns=99), now_ns=2)
        await writer.flush(durable=False)
    assert ends == [(5, 5)] and cluster.mtime_ns == 99


async def test_a_flush_that_is_cancelled_loses_nothing(autojump_clock: MockClock) -> None:
    cluster = FakeCluster()
    cluster.upload_delay = lambda data: 1.0
    async with data_path(cluster) as path:
        writer = path.writer(INODE)
        await writer.write(0, b"data", now_ns=1)
        with trio.move_on_after(0.1):
            await writer.flush(durable=True)
        assert writer.has_dirty
        await trio.sleep(5)
        assert cluster.content() == b"data" and not writer.has_dirty


async def test_many_small_ranges_are_several_packs(autojump_clock: MockClock) -> None:
    cluster = FakeCluster()
    async with data_path(cluster, chunk_size_bytes=1 << 20) as path:
        writer = path.writer(INODE)
        for index in range(10_000):
            await writer.write(index * 2, b"x", now_ns=1)
        await writer.flush(durable=False)
    assert cluster.content() == b"x\0" * 9_999 + b"x"
    assert sum(len(commit.chunks) for commit in cluster.commits) == 2


@pytest.mark.parametrize(("length", "whole"), [(4, True), (5, False)])
async def test_a_short_write_is_committed_as_a_whole(
    autojump_clock: MockClock, length: int, whole: bool
) -> None:
    """A client that dies leaves no half of a record (nor, of long writes, packs that are half
    empty)."""
    cluster, sizes = FakeCluster(), []
    cluster.on_commit = lambda content: sizes.append(len(content))
    async with data_path(cluster, chunk_size_bytes=CHUNK, inline_max_bytes=0) as path:
        writer = path.writer(INODE)
        await writer.write(0, pattern(CHUNK - 1, 1), now_ns=1)
        await writer.write(CHUNK - 1, pattern(length, 2), now_ns=1)
        await trio.sleep(1)
        assert sizes == [CHUNK - 1 if whole else CHUNK]
        await writer.flush(durable=False)
        assert cluster.content() == pattern(CHUNK - 1, 1) + pattern(length, 2)
