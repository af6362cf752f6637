"""Layouts: ask once, generously, and keep no answer that an invalidation has overtaken."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from dfsmount.files.layouts import WINDOW_BYTES, Layouts
from dfswire.errors import NoEntry
from dfswire.messages import ChunkLocation, Extent
from tests.t2_dfsmount.fakes_data import INODE, FakeCluster


def cluster_with(data: bytes = b"x" * 300) -> FakeCluster:
    cluster = FakeCluster()
    cluster.put_file(data, 100)
    return cluster


async def test_one_question_for_a_window(autojump_clock: MockClock) -> None:
    cluster = cluster_with()
    layouts = Layouts(cluster)
    assert layouts.known_slices(INODE, 0, 10) == []
    slices = await layouts.slices(INODE, 50, 400)
    assert [(one.offset, one.length, one.value_offset) for one in slices] == [
        (50, 50, 50),
        (100, 100, 0),
        (200, 100, 0),
        (300, 150, 0),
    ]
    assert slices[3].value is None
    await layouts.slices(INODE, 0, WINDOW_BYTES)
    assert layouts.known_slices(INODE, 0, 10)
    assert cluster.layouts_asked == [(0, WINDOW_BYTES)]
    await layouts.slices(INODE, WINDOW_BYTES, 1)
    assert cluster.layouts_asked[1:] == [(WINDOW_BYTES, WINDOW_BYTES)]


async def test_concurrent_questions_are_one(autojump_clock: MockClock) -> None:
    cluster = cluster_with()
    layouts = Layouts(cluster)
    async with trio.open_nursery() as nursery:
        for offset in range(10):
            nursery.start_soon(layouts.slices, INODE, offset, 10)
    assert cluster.calls["layout"] == 1


async def test_without_a_lease_nothing_is_kept_or_believed(autojump_clock: MockClock) -> None:
    cluster, valid = cluster_with(), True
    layouts = Layouts(cluster, valid=lambda: valid)
    await layouts.slices(INODE, 0, 10)
    valid = False
    assert layouts.known_slices(INODE, 0, 10) == []
    for _ in range(2):
        (piece,) = await layouts.slices(INODE, 0, 10)
        assert piece.value is not None
    assert cluster.calls["layout"] == 3
    layouts.invalidate(INODE)
    async with trio.open_nursery() as nursery:  # those who asked together ask again, each alone
        for offset in range(3):
            nursery.start_soon(layouts.slices, INODE, offset, 10)
    valid = True
    assert layouts.known_slices(INODE, 0, 10) == []
    await layouts.slices(INODE, 0, 10)
    assert layouts.known_slices(INODE, 0, 10)


async def test_inline_extents(autojump_clock: MockClock) -> None:
    cluster = FakeCluster()
    cluster.extents.lay(10, 5, b"hello", 0)
    slices = await Layouts(cluster).slices(INODE, 0, 20)
    assert [one.value for one in slices] == [None, b"hello", None]


@pytest.mark.parametrize("event", ["invalidate", "clear", "truncate", "commit"])
async def test_an_answer_that_was_overtaken_is_not_kept(
    event: str, autojump_clock: MockClock
) -> None:
    cluster = cluster_with()
    layouts = Layouts(cluster)

    async def overtake() -> None:
        cluster.before_layout_reply = None
        if event == "truncate":
            layouts.truncate(INODE, 1000)
        elif event == "commit":
            layouts.apply_commit(INODE, layouts.ticket(INODE), [], {})
        elif event == "clear":
            layouts.clear()
        else:
            layouts.invalidate(INODE)

    cluster.before_layout_reply = overtake
    assert len(await layouts.slices(INODE, 0, 300)) == 3, "good for the one who asked"
    assert layouts.known_slices(INODE, 0, 300) == []
    await layouts.slices(INODE, 0, 300)
    assert layouts.known_slices(INODE, 0, 300) and cluster.calls["layout"] == 2


async def test_a_question_after_an_invalidation_does_not_join_one_before(
    autojump_clock: MockClock,
) -> None:
    cluster = cluster_with()
    layouts = Layouts(cluster)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(layouts.slices, INODE, 0, 10)
        await trio.sleep(0.0005)
        layouts.invalidate(INODE)
        nursery.start_soon(layouts.slices, INODE, 0, 10)
    assert cluster.calls["layout"] == 2


async def test_own_commits_are_known(autojump_clock: MockClock) -> None:
    cluster = FakeCluster()
    layouts = Layouts(cluster)
    where = ChunkLocation(chunk=b"n" * 16, length=50, replicas=[])
    extents = [
        Extent(offset=0, length=10, chunk=b"n" * 16, chunk_offset=40),
        Extent(offset=10, length=2, data=b"ab"),
    ]
    layouts.apply_commit(INODE, layouts.ticket(INODE), extents, {where.chunk: where})
    known = layouts.known_slices(INODE, 0, 12)
    assert [tuple(one) for one in known] == [(0, 10, where, 40), (10, 2, b"ab", 0)]
    assert layouts.known_slices(INODE, 0, 13) == [], "what lies behind is unknown"
    layouts.truncate(INODE, 5)
    assert layouts.known_slices(INODE, 0, 5) and layouts.known_slices(INODE, 0, 6) == []


async def test_a_commit_that_was_overtaken_by_an_invalidation(autojump_clock: MockClock) -> None:
    cluster = cluster_with()
    layouts = Layouts(cluster)
    ticket = layouts.ticket(INODE)
    layouts.invalidate(INODE)
    await layouts.slices(INODE, 0, 10)
    layouts.apply_commit(INODE, ticket, [Extent(offset=0, length=1, data=b"x")], {})
    assert layouts.known_slices(INODE, 0, 1) == []


async def test_errors_pass_and_leave_nothing_behind(autojump_clock: MockClock) -> None:
    cluster = cluster_with()
    layouts = Layouts(cluster)
    cluster.is_gone = True
    for _ in range(2):
        with pytest.raises(NoEntry):
            await layouts.slices(INODE, 0, 10)
    cluster.is_gone = False
    assert await layouts.slices(INODE, 0, 10)


async def test_the_number_of_inodes_is_bounded(autojump_clock: MockClock) -> None:
    cluster = cluster_with()
    layouts = Layouts(cluster, inodes_max=2)
    for inode in (1, 2, 1, 3):
        await layouts.slices(inode, 0, 10)
    assert layouts.known_slices(1, 0, 10) and layouts.known_slices(3, 0, 10)
    assert layouts.known_slices(2, 0, 10) == []
