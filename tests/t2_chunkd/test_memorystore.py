"""The twin in memory does what the real store does, and forgets what was not synced."""

from __future__ import annotations

import pytest

from dfswire.errors import UnknownChunk
from tests.memorystore import MemoryChunkStore
from tests.suites.chunkstore import A, B, ChunkStoreSuite, content, put


class MemoryBench:
    """A store in memory with a clock of its own."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.store = MemoryChunkStore("disk", now=lambda: self.now)
        self.corrupt = self.store.corrupt
        self.truncate = self.store.truncate
        self.drop = self.store.drop
        self.fail_fsync = self.store.fail_fsync
        self.fill = self.store.fill

    def swap(self, one: bytes, other: bytes) -> None:
        files = self.store.files
        files[one], files[other] = files[other], files[one]

    def pass_time(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def bench() -> MemoryBench:
    return MemoryBench()


class TestMemoryChunkStore(ChunkStoreSuite):
    """The suite."""


def test_a_crash_leaves_what_was_synced(bench: MemoryBench) -> None:
    put(bench.store, A, content(10), durable=True)
    put(bench.store, B, content(10))
    bench.store.crash()
    assert [chunk for chunk, _ in bench.store.content()] == [A]
    with pytest.raises(UnknownChunk):
        bench.store.verify(B)
    assert bench.store.figures().chunks == 1
