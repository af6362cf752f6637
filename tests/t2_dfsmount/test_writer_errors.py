"""Errors of writing: told once to each handle, of the bytes that are lost and no others."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import trio
from trio.testing import MockClock

from dfswire.errors import InputOutput, NoEntry, NoSpace, SessionLost, UnknownChunk
from tests.t2_dfsmount.fakes_data import INODE, FakeCluster, data_path, truncate


async def test_an_error_is_told_once_to_each_handle(
    autojump_clock: MockClock, expect_log: Callable[[str], None]
) -> None:
    expect_log("4 written bytes are lost")
    cluster = FakeCluster(count=2)
    async with data_path(cluster) as path:
        writer = path.writer(INODE)
        first = second = writer.error_count
        for server in cluster.servers.values():
            server.is_down = True
        await writer.write(0, b"lost", now_ns=1)
        started = trio.current_time()
        await writer.flush(durable=True)
        assert 25 <= trio.current_time() - started <= 35, "the deadline of an operation"
        assert not writer.has_dirty
        for _ in range(2):
            with pytest.raises(InputOutput):
                writer.check_error(first)
        first = writer.error_count
        assert writer.check_error(first) == first
        with pytest.raises(InputOutput):
            writer.check_error(second)
        for server in cluster.servers.values():
            server.is_down = False
        await writer.write(0, b"later", now_ns=1)
        await writer.flush(durable=True)
        assert writer.check_error(first) == first
    assert cluster.content() == b"later"


async def test_no_space_is_reported_as_such(
    autojump_clock: MockClock, expect_log: Callable[[str], None]
) -> None:
    expect_log("written bytes are lost: .*full")
    cluster = FakeCluster()
    cluster.grant_problem = NoSpace("full")
    async with data_path(cluster) as path:
        writer = path.writer(INODE)
        await writer.write(0, b"lost", now_ns=1)
        await writer.flush(durable=False)
        with pytest.raises(NoSpace):
            writer.check_error(0)


async def test_a_new_session_needs_new_grants(
    autojump_clock: MockClock, expect_log: Callable[[str], None]
) -> None:
    expect_log("4 written bytes are lost")
    cluster = FakeCluster()
    async with data_path(cluster) as path:
        writer = path.writer(INODE)
        cluster.grant_problem = SessionLost("fenced")
        started = trio.current_time()
        await writer.write(0, b"lost", now_ns=1)
        await writer.flush(durable=False)
        assert trio.current_time() - started < 1, "no use in trying again"
        cluster.grant_problem = None
        await writer.write(0, b"1234", now_ns=1)
        await writer.flush(durable=False)
        path.session_lost()
        assert path.layouts.known_slices(INODE, 0, 1) == []
        await writer.write(0, b"5678", now_ns=1)
        await writer.flush(durable=False)
    assert cluster.calls["grant"] == 3


async def test_a_lost_pack_does_not_take_the_next_one_along(
    autojump_clock: MockClock, expect_log: Callable[[str], None]
) -> None:
    expect_log("4 written bytes are lost: fenced")
    cluster = FakeCluster()
    async with data_path(cluster) as path:
        writer = path.writer(INODE)
        cluster.submit_problems = [SessionLost("fenced")]
        await writer.write(0, b"lost", now_ns=1)
        await writer.flush(durable=False)
        await writer.write(4, b"kept", now_ns=1)
        await writer.flush(durable=False)
        with pytest.raises(InputOutput, match="fenced"):
            writer.check_error(0)
    assert cluster.content() == b"\0\0\0\0kept"


async def test_expired_grants_are_replaced(autojump_clock: MockClock) -> None:
    cluster = FakeCluster()

    async def forget_once() -> None:
        cluster.forget_grants()
        cluster.before_submit = None

    cluster.before_submit = forget_once
    async with data_path(cluster) as path:
        writer = path.writer(INODE)
        await writer.write(0, b"data", now_ns=1)
        await writer.flush(durable=True)
        assert writer.error_count == 0
    assert cluster.content() == b"data" and cluster.is_durable()
    assert cluster.calls["grant"] == 2


@pytest.mark.parametrize("second", [UnknownChunk("again"), None])
async def test_a_second_refusal_of_a_grant_is_an_error(
    second: UnknownChunk | None, autojump_clock: MockClock, expect_log: Callable[[str], None]
) -> None:
    expect_log("4 written bytes are lost")
    cluster = FakeCluster()
    cluster.submit_problems = [UnknownChunk("expired"), *([second] if second else [])]

    async def lose_servers() -> None:
        if second is None:
            for server in cluster.servers.values():
                server.is_down = True

    cluster.before_submit = lose_servers
    async with data_path(cluster) as path:
        writer = path.writer(INODE)
        await writer.write(0, b"data", now_ns=1)
        await writer.flush(durable=True)
        assert writer.error_count == 1 and not writer.has_dirty
        assert path.writeback.budget.used_bytes == 0


async def test_a_failed_truncate_drops_nothing(autojump_clock: MockClock) -> None:
    cluster = FakeCluster()
    async with data_path(cluster) as path:
        writer = path.writer(INODE)
        await writer.write(10, b"kept", now_ns=1)
        cluster.submit_problems = [NoEntry("gone")]
        with pytest.raises(NoEntry):
            await truncate(cluster, writer, 5)
        await writer.flush(durable=False)
    assert cluster.content() == bytes(10) + b"kept"


async def test_discard_and_fail(
    autojump_clock: MockClock, expect_log: Callable[[str], None]
) -> None:
    expect_log("150 written bytes are lost")
    cluster = FakeCluster()
    async with data_path(cluster, chunk_size_bytes=100) as path:
        writer = path.writer(INODE)
        await writer.write(0, b"d" * 150, now_ns=1)
        writer.discard()
        assert not writer.has_dirty and writer.error_count == 0
        await writer.write(0, b"f" * 150, now_ns=1)
        writer.fail("the session is lost")
        await writer.flush(durable=True)
        with pytest.raises(InputOutput, match="the session is lost"):
            writer.check_error(0)
        assert path.writeback.budget.used_bytes == 0
    assert cluster.commits == []


async def test_fsync_that_can_not_be_is_an_error(
    autojump_clock: MockClock, expect_log: Callable[[str], None]
) -> None:
    expect_log("fsync failed")
    cluster = FakeCluster(count=2)
    async with data_path(cluster, chunk_size_bytes=100) as path:
        writer = path.writer(INODE)
        await writer.write(0, b"s" * 100, now_ns=1)  # a full pack: uploaded in the background
        await writer.flush(durable=False)
        cluster.servers["h1:9500"].fails_sync = True
        await writer.flush(durable=True)
        with pytest.raises(InputOutput):
            writer.check_error(0)
