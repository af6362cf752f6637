"""Any sequence of steps of a writer against the file as it ought to be."""

from __future__ import annotations

import itertools
from typing import Any

import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from dfsmount.files.writer import WHOLE_SHARE, Writer
from tests.t2_dfsmount.fakes_data import INODE, FakeCluster, data_path, pattern, truncate

FILE = 150
CHUNK = 64

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


@settings(max_examples=150, deadline=None)
@given(steps, st.sampled_from([0, 40]), delays)
def test_any_sequence_of_steps(
    steps: list[tuple[Any, ...]], inline_max_bytes: int, upload_delays: list[float]
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
    steps: list[tuple[Any, ...]], failing: list[int]
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
