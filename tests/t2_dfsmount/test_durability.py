"""fsync's record of unsynced chunks: nothing is called durable that is not."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from dfsmount.files.datapath import DataPath
from dfswire.errors import InputOutput, Unavailable
from tests.t2_dfsmount.fakes_data import INODE, FakeCluster, data_path


async def write_in_background(path: DataPath, size: int = 300) -> None:
    """Three full chunks, committed but not synced."""
    writer = path.writer(INODE)
    await writer.write(0, b"d" * size, now_ns=1)
    await writer.flush(durable=False)


async def test_all_holders_are_synced(autojump_clock: MockClock) -> None:
    cluster = FakeCluster()
    async with data_path(cluster, chunk_size_bytes=100) as path:
        await write_in_background(path)
        assert path.durability.count() == 3 and not cluster.is_durable()
        await path.durability.settle(INODE)
        assert path.durability.count() == 0 and cluster.is_durable()
        calls = cluster.calls["chunk.sync"]
        await path.durability.settle(INODE)
        assert cluster.calls["chunk.sync"] == calls


async def test_two_of_three_are_enough(autojump_clock: MockClock) -> None:
    cluster = FakeCluster(replicas=3)
    async with data_path(cluster, chunk_size_bytes=100) as path:
        await write_in_background(path)
        cluster.servers["h2:9500"].is_down = True
        started = trio.current_time()
        await path.durability.settle(INODE)
        assert cluster.is_durable() and trio.current_time() - started < 1


async def test_a_lost_server_is_waited_for(autojump_clock: MockClock) -> None:
    cluster = FakeCluster(count=2)
    async with data_path(cluster, chunk_size_bytes=100) as path:
        await write_in_background(path)
        cluster.servers["h1:9500"].is_down = True
        async with trio.open_nursery() as nursery:
            nursery.start_soon(path.durability.settle, INODE)
            await trio.sleep(20)
            assert path.durability.count() == 3
            cluster.servers["h1:9500"].is_down = False
        assert cluster.is_durable()


async def test_repair_makes_it_durable(autojump_clock: MockClock) -> None:
    cluster = FakeCluster(count=3)
    async with data_path(cluster, chunk_size_bytes=100) as path:
        await write_in_background(path)
        cluster.servers["h1:9500"].is_down = True
        async with trio.open_nursery() as nursery:
            nursery.start_soon(path.durability.settle, INODE)
            await trio.sleep(40)
            cluster.repair()
        assert cluster.is_durable() and path.durability.count() == 0


async def test_a_failed_fsync_is_not_retried(autojump_clock: MockClock) -> None:
    cluster = FakeCluster(count=2)
    async with data_path(cluster, chunk_size_bytes=300) as path:
        await write_in_background(path)
        cluster.servers["h1:9500"].fails_sync = True
        with pytest.raises(InputOutput):
            await path.durability.settle(INODE)
    assert cluster.calls_to.count(("chunk.sync", "h1:9500")) == 1


async def test_chunks_that_the_file_no_longer_has_do_not_matter(
    autojump_clock: MockClock,
) -> None:
    cluster = FakeCluster(count=2)
    async with data_path(cluster, chunk_size_bytes=100) as path:
        await write_in_background(path)
        cluster.servers["h1:9500"].is_down = True
        cluster.extents.clear()
        await path.durability.settle(INODE)
        assert path.durability.count() == 0


async def test_a_file_that_is_gone_does_not_matter(autojump_clock: MockClock) -> None:
    cluster = FakeCluster(count=2)
    async with data_path(cluster, chunk_size_bytes=100) as path:
        await write_in_background(path)
        cluster.servers["h1:9500"].is_down = True
        cluster.is_gone = True
        await path.durability.settle(INODE)
        assert path.durability.count() == 0


async def test_the_background_pass_forgets_what_is_synced(autojump_clock: MockClock) -> None:
    cluster = FakeCluster()
    async with data_path(cluster, chunk_size_bytes=100) as path:
        await write_in_background(path)
        await trio.sleep(25)
        assert path.durability.count() == 0 and cluster.is_durable()


async def test_the_background_pass_survives_an_outage(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = FakeCluster(count=2)
    async with data_path(cluster, chunk_size_bytes=100) as path:
        await write_in_background(path)
        for server in cluster.servers.values():
            server.is_down = True

        async def away(inode: int, offset: int, length: int) -> None:
            raise Unavailable("metad is away")

        monkeypatch.setattr(cluster, "layout", away)
        await trio.sleep(200)
        assert path.durability.count() == 3
        for server in cluster.servers.values():
            server.is_down = False
        await trio.sleep(25)
        assert path.durability.count() == 0


# -- ranges that were copied from other files -----------------------------------------------------


async def written_elsewhere(cluster: FakeCluster) -> None:
    """The file's chunks come from another client, who did not sync them."""
    async with data_path(cluster, chunk_size_bytes=100) as other:
        await write_in_background(other)


async def test_copied_chunks_are_synced_whoever_wrote_them(autojump_clock: MockClock) -> None:
    cluster = FakeCluster()
    await written_elsewhere(cluster)
    async with data_path(cluster, chunk_size_bytes=100) as path:
        path.durability.note_copied(INODE, 0, 150)
        path.durability.note_copied(INODE, 150, 1 << 40)  # much of it is a hole
        assert path.durability.count() == 1 and not cluster.is_durable()
        asked = cluster.calls["layout"]
        await path.durability.settle(INODE)
        assert cluster.is_durable() and path.durability.count() == 0
        assert cluster.calls["layout"] == asked + 1


async def test_every_fsync_waits_for_what_was_copied_before_it(autojump_clock: MockClock) -> None:
    cluster = FakeCluster()
    await written_elsewhere(cluster)
    async with data_path(cluster, chunk_size_bytes=100) as path:
        path.durability.note_copied(INODE, 0, 100)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(path.durability.settle, INODE)
            await trio.sleep(0.0005)  # the first one has asked for the data, and has no answer
            path.durability.note_copied(INODE, 100, 300)
            await path.durability.settle(INODE)
            assert cluster.is_durable()
        assert path.durability.count() == 0


async def test_what_is_copied_during_an_fsync_is_left_for_the_next(
    autojump_clock: MockClock,
) -> None:
    cluster = FakeCluster()
    await written_elsewhere(cluster)
    async with data_path(cluster, chunk_size_bytes=100) as path:
        path.durability.note_copied(INODE, 0, 100)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(path.durability.settle, INODE)
            await trio.sleep(0.0005)
            path.durability.note_copied(INODE, 200, 300)
        assert path.durability.count() == 1 and not cluster.is_durable()
        await path.durability.settle(INODE)
        path.durability.note_copied(INODE, 100, 200)
        await path.durability.settle(INODE)
        assert cluster.is_durable()


async def test_a_chunk_that_is_copied_within_its_file_is_looked_for_in_both_places(
    autojump_clock: MockClock,
) -> None:
    cluster = FakeCluster(count=2)
    async with data_path(cluster, chunk_size_bytes=100) as path:
        await write_in_background(path, 100)
        (first,) = cluster.extents.covered(0, 100)
        cluster.extents.lay(500, 100, first.value, 0)
        path.durability.note_copied(INODE, 500, 600)
        cluster.extents.cut(0, 100)
        cluster.servers["h1:9500"].is_down = True
        async with trio.open_nursery() as nursery:
            nursery.start_soon(path.durability.settle, INODE)
            await trio.sleep(20)
            assert path.durability.count() == 1, "it is still needed at 500"
            cluster.servers["h1:9500"].is_down = False
        assert cluster.is_durable()


async def test_copied_ranges_wait_for_metad_and_may_be_gone(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = FakeCluster()
    await written_elsewhere(cluster)
    async with data_path(cluster, chunk_size_bytes=100) as path:

        async def away(inode: int, offset: int, whence: int) -> int:
            raise Unavailable("metad is away")

        path.durability.note_copied(INODE, 0, 300)
        with monkeypatch.context() as patch:
            patch.setattr(cluster, "seek", away)
            await trio.sleep(100)
            assert path.durability.count() == 1
            with pytest.raises(Unavailable):
                await path.durability.settle(INODE)
        cluster.is_gone = True
        await path.durability.settle(INODE)
        assert path.durability.count() == 0
