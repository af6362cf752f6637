"""Bytes whose commit is executed, unanswered, and older than what metad tells of the file."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import trio
from trio.testing import MockClock

from dfswire.errors import InputOutput, UnknownChunk
from dfswire.operations import SetAttr
from tests.t2_dfsmount.fakes_data import INODE, FakeCluster, data_path


async def test_what_is_being_committed_is_not_laid_over(autojump_clock: MockClock) -> None:
    cluster, seen = FakeCluster(), []
    async with data_path(cluster) as path:
        writer = path.writer(INODE)

        def executed(content: bytes) -> None:
            assert [bytes(data) for _, data in writer.overlay(0, 90)] == [content]
            writer.superseded()
            seen.append((writer.overlay(0, 90), writer.dirty_end))
            attr = cluster.attr()
            assert writer.overlaid(attr) == attr and not writer.has_attributes
            assert writer.has_dirty  # whoever syncs or closes it waits for the answer

        cluster.on_commit = executed
        await writer.write(0, b"x" * 90, now_ns=1)
        writer.change_attributes(SetAttr(inode=INODE, mode=0o600), now_ns=1)
        await writer.flush(durable=True)
        assert seen == [([], 0)] and not writer.has_dirty
        assert path.writeback.budget.used_bytes == 0


async def test_what_was_written_since_still_is(autojump_clock: MockClock) -> None:
    cluster = FakeCluster()
    async with data_path(cluster) as path:
        writer = path.writer(INODE)

        async def meanwhile() -> None:
            cluster.before_submit = None
            await writer.write(50, b"y" * 10, now_ns=2)
            writer.change_attributes(SetAttr(inode=INODE, mode=0o640), now_ns=2)
            writer.superseded()
            assert [(at, bytes(data)) for at, data in writer.overlay(0, 90)] == [(50, b"y" * 10)]
            assert writer.overlaid(cluster.attr()).mode & 0o777 == 0o640

        cluster.before_submit = meanwhile
        await writer.write(0, b"x" * 90, now_ns=1)
        await writer.flush(durable=False)
        await writer.flush(durable=False)
    assert cluster.content() == b"x" * 50 + b"y" * 10 + b"x" * 30


async def test_what_was_not_executed_is_not_lost(autojump_clock: MockClock) -> None:
    """Without a lease others may change the file before the commit is refused."""
    cluster = FakeCluster()
    async with data_path(cluster) as path:
        writer = path.writer(INODE)

        async def meanwhile() -> None:
            cluster.before_submit = None
            writer.superseded()

        cluster.before_submit = meanwhile
        cluster.submit_problems = [UnknownChunk("expired")]
        await writer.write(0, b"x" * 90, now_ns=1)
        writer.change_attributes(SetAttr(inode=INODE, mode=0o600), now_ns=1)
        await writer.flush(durable=False)
        assert writer.check_error(0) == 0
    assert cluster.content() == b"x" * 90
    assert cluster.changes == [SetAttr(inode=INODE, mode=0o600)]


async def test_with_the_session_it_is_lost_like_all_that_is_unanswered(
    autojump_clock: MockClock, expect_log: Callable[[str], None]
) -> None:
    expect_log("90 written bytes are lost")
    cluster = FakeCluster()
    async with data_path(cluster) as path:
        writer = path.writer(INODE)
        cluster.before_submit = trio.Event().wait  # for ever
        await writer.write(0, b"x" * 90, now_ns=1)
        with trio.move_on_after(1):
            await writer.flush(durable=False)
        writer.superseded()
        assert writer.has_dirty
        writer.fail("the session is lost")
        with pytest.raises(InputOutput):
            writer.check_error(0)
