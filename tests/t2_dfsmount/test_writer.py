"""The writer against an in-memory cluster: nothing lost, nothing reordered, errors told once."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from dfsmount.writer import WHOLE_SHARE, Writer
from dfswire.errors import InputOutput, NoEntry, NoSpace, SessionLost, UnknownChunk
from dfswire.operations import SetAttr
from tests.t2_dfsmount.fakes_data import INODE, FakeCluster, data_path

FILE = 150
CHUNK = 64


def pattern(length: int, seed: int) -> bytes:
    """Bytes that are not zero and not alike."""
    return bytes(1 + (seed * 31 + index) % 255 for index in range(length))


steps = st.lists(
    st.one_of(
        st.tuples(
            st.just("write"),
            st.integers(0, FILE),
            st.builds(pattern, st.integers(1, 150), st.integers(0, 99)),
        ),
        st.tuples(
            st.just("write"),
            st.integers(0, 20),
            st.builds(pattern, st.integers(1, 8), st.integers(0, 99)),
        ),
        st.tuples(st.just("flush"), st.booleans()),
        st.tuples(st.just("truncate"), st.integers(0, FILE)),
        st.tuples(st.just("wait"), st.sampled_from([0.0, 0.002, 0.1, 6.0])),
    ),
    min_size=4,
    max_size=25,
)

delays = st.lists(st.sampled_from([0.0, 0.0, 0.1, 0.7]), min_size=5, max_size=11)


class History:
    """The file as the application made it, and every state that it went through."""

    def __init__(self) -> None:
        self.now = bytearray()
        self.states = {b""}

    def write(self, offset: int, data: bytes) -> None:
        # A pack border may split a long write anywhere.
        whole = len(data) * WHOLE_SHARE <= CHUNK
        for length in range(len(data) if whole else 1, len(data) + 1):
            state = bytearray(self.now)
            state.extend(bytes(max(0, offset + length - len(state))))
            state[offset : offset + length] = data[:length]
            self.states.add(bytes(state))
        self.now = state

    def truncate(self, size: int) -> None:
        self.now = self.now[:size] + bytes(max(0, size - len(self.now)))
        self.states.add(bytes(self.now))


def seen(cluster: FakeCluster, writer: Writer) -> bytes:
    """The file as this client sees it now: committed bytes with dirty ones laid over."""
    data = bytearray(cluster.content())
    data.extend(bytes(max(0, writer.dirty_end - len(data))))
    for offset, view in writer.overlay(0, len(data)):
        data[offset : offset + len(view)] = view
    return bytes(data)


async def truncate(cluster: FakeCluster, writer: Writer, size: int) -> None:
    await writer.truncate(size, lambda: cluster.submit(SetAttr(inode=INODE, size=size)))


@settings(max_examples=150, deadline=None)
@given(steps, st.sampled_from([0, 40]), delays)
def test_any_sequence_of_steps(
    steps: list[tuple], inline_max_bytes: int, upload_delays: list[float]
) -> None:
    async def main() -> None:
        cluster = FakeCluster()
        cluster.upload_delay = lambda data: upload_delays[sum(data) % len(upload_delays)]
        history = History()

        def check(content: bytes) -> None:
            assert content in history.states, "metad has a file that never was"

        cluster.on_commit = check
        async with data_path(
            cluster, chunk_size_bytes=CHUNK, inline_max_bytes=inline_max_bytes
        ) as path:
            writer = path.writer(INODE)
            for kind, *arguments in steps:
                if kind == "write":
                    history.write(*arguments)
                    await writer.write(*arguments, now_ns=1)
                elif kind == "flush":
                    await writer.flush(durable=arguments[0])
                    assert not writer.has_dirty and cluster.content() == history.now
                    assert cluster.is_durable() or not arguments[0]
                elif kind == "truncate":
                    history.truncate(arguments[0])
                    await truncate(cluster, writer, arguments[0])
                else:
                    await trio.sleep(arguments[0])
                assert seen(cluster, writer) == history.now
            await writer.flush(durable=True)
            assert cluster.content() == history.now
            assert cluster.is_durable()
            assert path.writeback.budget.used_bytes == 0
            assert path.durability.count() == 0
            assert writer.check_error(0) == 0

    trio.run(main, clock=MockClock(autojump_threshold=0))


@settings(max_examples=60, deadline=None)
@given(steps, st.lists(st.integers(0, 3), max_size=12))
def test_any_sequence_with_one_server_failing_at_a_time(
    steps: list[tuple], failing: list[int]
) -> None:
    async def main() -> None:
        cluster = FakeCluster(count=4, replicas=3)
        down = itertools.cycle([*failing, None])

        async def keep_repairing() -> None:
            while True:
                await trio.sleep(40)
                cluster.repair()

        async with (
            trio.open_nursery() as nursery,
            data_path(cluster, chunk_size_bytes=CHUNK) as path,
        ):
            nursery.start_soon(keep_repairing)
            writer = path.writer(INODE)
            history = History()
            for kind, *arguments in steps:
                for server in cluster.servers.values():
                    server.is_down = False
                if (victim := next(down)) is not None:
                    cluster.servers[f"h{victim}:9500"].is_down = True
                if kind == "write":
                    history.write(*arguments)
                    await writer.write(*arguments, now_ns=1)
                elif kind == "flush":
                    await writer.flush(durable=arguments[0])
                    assert cluster.content() == history.now
                elif kind == "truncate":
                    history.truncate(arguments[0])
                    await truncate(cluster, writer, arguments[0])
                else:
                    await trio.sleep(arguments[0])
            await writer.flush(durable=True)
            assert cluster.content() == history.now and cluster.is_durable()
            assert writer.error_count == 0
            nursery.cancel_scope.cancel()

    trio.run(main, clock=MockClock(autojump_threshold=0))


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
