"""The reader against an in-memory cluster: right bytes, few fetches, read-ahead, fail-over."""

from __future__ import annotations

import random

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from dfsmount.files.datapath import DataPath
from dfsmount.files.readahead import FIRST_BYTES, MOST_BYTES, ReadAhead
from dfswire.errors import InputOutput, NoEntry, Unavailable
from tests.t2_dfsmount.fakes_data import INODE, FakeCluster, data_path

KIB = 1 << 10
BLOCK = 64 * KIB
CHUNK = 4 * BLOCK


def some_bytes(length: int) -> bytes:
    return random.Random(length).randbytes(length)


FILE = some_bytes(6 * CHUNK + 1000)


async def read(path: DataPath, offset: int, length: int, size: int) -> bytes:
    return bytes(await path.reader(INODE).read(offset, length, size))


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, len(FILE) + 10), st.integers(0, 3 * CHUNK)), max_size=8),
    st.integers(0, 4 * BLOCK),
)
def test_random_reads(reads: list[tuple[int, int]], cache_bytes: int) -> None:
    async def main() -> None:
        cluster = FakeCluster()
        cluster.put_file(FILE, CHUNK)
        async with data_path(cluster, cache_bytes=cache_bytes) as path:
            reader = path.reader(INODE)
            for offset, length in reads:
                found = await reader.read(offset, length, len(FILE))
                assert bytes(found) == FILE[offset : offset + length]

    trio.run(main, clock=MockClock(autojump_threshold=0))


async def test_holes_inline_bytes_and_chunks(autojump_clock: MockClock) -> None:
    cluster = FakeCluster()
    cluster.put_file(b"c" * 100, 100)
    cluster.extents.lay(50, 5, b"-abc-", 0)
    async with data_path(cluster) as path:
        assert await read(path, 40, 20, 300) == b"c" * 10 + b"-abc-" + b"c" * 5
        assert await read(path, 90, 20, 300) == b"c" * 10 + bytes(10)
        assert await read(path, 51, 3, 300) == b"abc"
        assert await read(path, 1000, 3 << 20, 1000 + (3 << 20)) == bytes(3 << 20)
        assert await read(path, 290, 20, 300) == bytes(10)
        assert await read(path, 300, 20, 300) == b""


async def test_one_piece_is_a_view(autojump_clock: MockClock) -> None:
    cluster = FakeCluster()
    cluster.put_file(FILE, CHUNK)
    async with data_path(cluster) as path:
        reader = path.reader(INODE)
        first = await reader.read(0, BLOCK, len(FILE))
        again = await reader.read(0, BLOCK, len(FILE))
        assert isinstance(first, memoryview) and isinstance(again, memoryview)
        assert first.obj is again.obj


async def test_random_access_fetches_only_what_it_needs(autojump_clock: MockClock) -> None:
    cluster = FakeCluster()
    cluster.put_file(FILE, CHUNK)
    async with data_path(cluster) as path:
        reader = path.reader(INODE)
        for offset in (5 * CHUNK + 70_000, CHUNK, 3 * CHUNK + 10):
            await reader.read(offset, 4 * KIB, len(FILE))
        await trio.sleep(1)
    assert [(offset, length) for _, offset, length in cluster.reads] == [
        (BLOCK, BLOCK),
        (0, BLOCK),
        (0, BLOCK),
    ]


async def test_pieces_of_a_read_are_fetched_at_the_same_time(autojump_clock: MockClock) -> None:
    cluster = FakeCluster()
    cluster.put_file(FILE, CHUNK)
    for server in cluster.servers.values():
        server.delay_s = 0.2
    async with data_path(cluster) as path:
        started = trio.current_time()
        assert await read(path, 0, len(FILE), len(FILE)) == FILE
        assert trio.current_time() - started < 0.3


async def test_sequential_reads_find_their_bytes_there(autojump_clock: MockClock) -> None:
    data = some_bytes(32 * CHUNK)
    cluster = FakeCluster()
    cluster.put_file(data, CHUNK)
    for server in cluster.servers.values():
        server.delay_s = 0.01
    async with data_path(cluster) as path:
        reader = path.reader(INODE)
        waits = 0
        for offset in range(0, len(data), 128 * KIB):
            started = trio.current_time()
            found = await reader.read(offset, 128 * KIB, len(data))
            assert bytes(found) == data[offset : offset + 128 * KIB]
            waits += trio.current_time() > started
            await trio.sleep(0.005)
        assert waits <= 5, "only while the window is small"
    assert sum(length for _, _, length in cluster.reads) == len(data), "nothing came twice"
    assert len(cluster.reads) <= 32 + 8, "whole chunks, once the window is large"


async def test_the_window_grows_only_for_streams() -> None:
    ahead = ReadAhead()
    size = 1 << 30
    assert ahead.advance(0, 4 * KIB, size) == (4 * KIB, 4 * KIB + FIRST_BYTES)
    at, windows = 4 * KIB, []
    for _ in range(10):
        ahead.advance(at, 128 * KIB, size)
        windows.append(ahead.window_bytes)
        at += 128 * KIB
    assert windows == sorted(windows) and windows[-1] == MOST_BYTES
    assert ahead.advance(at + 128 * KIB, 128 * KIB, size) is not None or ahead.window_bytes > 0
    assert ahead.advance(at, 128 * KIB, size) is None and ahead.window_bytes == MOST_BYTES
    assert ahead.advance(500 << 20, 128 * KIB, size) is None and ahead.window_bytes == 0
    assert ahead.advance(size - 128 * KIB, 128 * KIB, size) is None


@pytest.mark.parametrize("harm", ["is_down", "corrupts"])
async def test_one_bad_server_is_not_noticed(harm: str, autojump_clock: MockClock) -> None:
    cluster = FakeCluster()
    cluster.put_file(FILE, CHUNK)
    setattr(cluster.servers["h0:9500"], harm, True)
    async with data_path(cluster) as path:
        assert await read(path, 0, len(FILE), len(FILE)) == FILE
    assert cluster.calls["layout"] == 1


async def test_replicas_that_moved_are_found(autojump_clock: MockClock) -> None:
    cluster = FakeCluster(count=4)
    cluster.put_file(FILE, CHUNK)
    async with data_path(cluster) as path:
        await path.layouts.slices(INODE, 0, len(FILE))
        cluster.move_replicas()
        assert await read(path, 0, len(FILE), len(FILE)) == FILE
    assert cluster.calls["layout"] > 1


async def test_bytes_that_are_gone_are_an_error_at_once(autojump_clock: MockClock) -> None:
    cluster = FakeCluster()
    cluster.put_file(FILE, CHUNK)
    for server in cluster.servers.values():
        server.chunks.clear()
    async with data_path(cluster) as path:
        started = trio.current_time()
        with pytest.raises(InputOutput):
            await read(path, 0, 3 * CHUNK, len(FILE))
        assert trio.current_time() - started < 1
        assert cluster.calls["layout"] >= 2, "the layout was asked again before giving up"


async def test_servers_that_are_away_are_waited_for(autojump_clock: MockClock) -> None:
    cluster = FakeCluster()
    cluster.put_file(FILE, CHUNK)
    for server in cluster.servers.values():
        server.is_down = True
    async with data_path(cluster) as path:
        async with trio.open_nursery() as nursery:

            async def come_back() -> None:
                await trio.sleep(10)
                for server in cluster.servers.values():
                    server.is_down = False

            nursery.start_soon(come_back)
            assert await read(path, 0, 10, len(FILE)) == FILE[:10]
        for server in cluster.servers.values():
            server.is_down = True
        started = trio.current_time()
        with pytest.raises(InputOutput):
            await read(path, CHUNK * 3, 10, len(FILE))
        assert 29 < trio.current_time() - started < 40


async def test_a_file_that_changed_while_its_replicas_were_away(autojump_clock: MockClock) -> None:
    cluster = FakeCluster()
    cluster.put_file(b"o" * BLOCK, BLOCK)
    async with data_path(cluster) as path:
        await path.layouts.slices(INODE, 0, BLOCK)
        for server in cluster.servers.values():
            server.chunks.clear()
        cluster.extents.clear()
        cluster.extents.lay(0, 3, b"new", 0)
        assert await read(path, 0, 10, 10) == b"new" + bytes(7)


async def test_errors_of_read_ahead_are_met_by_the_read_itself(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = FakeCluster()
    cluster.put_file(FILE, CHUNK)
    async with data_path(cluster) as path:
        reader = path.reader(INODE)
        assert bytes(await reader.read(0, BLOCK, len(FILE))) == FILE[:BLOCK]
        await trio.sleep(1)
        for server in cluster.servers.values():
            server.chunks.clear()
        at = BLOCK
        with pytest.raises(InputOutput):
            while at < len(FILE):
                await reader.read(at, BLOCK, len(FILE))
                await trio.sleep(0.1)
                at += BLOCK

        async def no_layout(inode: int, offset: int, length: int) -> None:
            raise Unavailable("metad is away")

        path.layouts.clear()
        monkeypatch.setattr(cluster, "layout", no_layout)
        path.reader(INODE)._context.nursery.start_soon(reader._prefetch, 0, BLOCK)
        await trio.sleep(1)


async def test_a_file_that_is_gone(autojump_clock: MockClock) -> None:
    cluster = FakeCluster()
    cluster.is_gone = True
    async with data_path(cluster) as path:
        with pytest.raises(NoEntry):
            await read(path, 0, 10, 10)
