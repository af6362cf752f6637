"""A server that takes bytes and says nothing: what is written goes elsewhere after 3 s, and nothing
is acknowledged by fewer servers than promised."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import trio
from trio.testing import MockClock

from dfsmount.files.uploader import SECOND_AFTER_S
from dfswire.errors import Full, InputOutput, NoSpace
from tests.t2_dfsmount.fakes_data import INODE, FakeCluster, data_path

SOON_S = SECOND_AFTER_S + 0.5


@pytest.mark.parametrize("count", [3, 4, 5])
@pytest.mark.parametrize("silent", [0, 1])
async def test_the_bytes_go_to_other_servers(
    autojump_clock: MockClock, count: int, silent: int
) -> None:
    cluster = FakeCluster(count=count)
    frozen = list(cluster.servers.values())[silent]
    frozen.delay_s = 1000.0
    async with data_path(cluster) as path:
        writer = path.writer(INODE)
        took = []
        for number in range(6):
            began = trio.current_time()
            await writer.write(number * 1000, bytes([number]) * 1000, now_ns=1)
            await writer.flush(durable=True)
            took.append(trio.current_time() - began)
        assert max(took) < SOON_S
        # Of two servers it is known which one was silent as soon as the other one has answered.
        assert 1 <= sum(each > 0.5 for each in took) <= 2, "who does not answer is avoided"
        assert writer.check_error(0) == 0
    assert cluster.content() == b"".join(bytes([number]) * 1000 for number in range(6))
    for commit in cluster.commits:
        assert all(len(chunk.disks) == 2 for chunk in commit.chunks)


async def test_many_at_once(autojump_clock: MockClock) -> None:
    cluster = FakeCluster(count=4)
    next(iter(cluster.servers.values())).delay_s = 1000.0
    async with data_path(cluster) as path:
        writer = path.writer(INODE)
        began = trio.current_time()
        await writer.write(0, bytes(20_000), now_ns=1)
        await writer.flush(durable=True)
        assert trio.current_time() - began < 2 * SOON_S
    assert cluster.content() == bytes(20_000)


async def test_too_few_servers_answer(
    autojump_clock: MockClock, expect_log: Callable[[str], None]
) -> None:
    expect_log("written bytes are lost")
    cluster = FakeCluster(count=3)
    for server in list(cluster.servers.values())[:2]:
        server.delay_s = 1000.0
    async with data_path(cluster) as path:
        writer = path.writer(INODE)
        began = trio.current_time()
        await writer.write(0, b"abc", now_ns=1)
        await writer.flush(durable=True)
        with pytest.raises(InputOutput):
            writer.check_error(0)
        assert trio.current_time() - began < 60
    assert cluster.commits == []


async def test_a_slow_server_that_answers_in_the_end_is_as_good(autojump_clock: MockClock) -> None:
    cluster = FakeCluster(count=2)
    for server in cluster.servers.values():
        server.delay_s = 2.0
    async with data_path(cluster) as path:
        writer = path.writer(INODE)
        await writer.write(0, b"abc", now_ns=1)
        await writer.flush(durable=True)
        assert writer.check_error(0) == 0
    assert cluster.content() == b"abc"


async def test_what_is_full_for_certain_is_told_at_once(
    autojump_clock: MockClock, expect_log: Callable[[str], None]
) -> None:
    expect_log("written bytes are lost: .*full")
    cluster = FakeCluster()
    cluster.grant_problem = Full("all are full")
    async with data_path(cluster) as path:
        writer = path.writer(INODE)
        began = trio.current_time()
        await writer.write(0, b"lost", now_ns=1)
        await writer.flush(durable=False)
        assert trio.current_time() - began < 1
        with pytest.raises(NoSpace):
            writer.check_error(0)
