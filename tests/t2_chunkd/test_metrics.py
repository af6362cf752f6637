"""What chunkd tells of its disks."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from chunkd.metrics import ChunkdMetrics, DiskWatch, look_in_thread
from chunkd.storage import Stores, run_inline
from chunkd.store import ChunkStore
from chunkd.timedfiles import TimedFileSystem
from dfswire.chunks import block_checksums
from dfswire.errors import DiskFailed
from dfswire.metrics import Metrics
from tests.fakes import DirectTransport
from tests.memorystore import MemoryChunkStore
from tests.t1_wire.test_metrics import samples
from tests.t2_chunkd.journals import CLUSTER, START, encoded, entries, keep_snapshot, opened
from tests.t2_chunkd.servers import ChunkServer

CHUNK = b"c" * 16


async def test_the_disks_of_a_server(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    server = ChunkServer("one", DirectTransport({}, nursery=nursery))
    server.store.write(CHUNK, b"data", block_checksums(CHUNK, b"data"), durable=False)
    found = samples(await server.service.metrics.page())
    labels = ("one", "memory:one")
    assert found["dfs_disk_chunks", labels] == 1
    assert found["dfs_disk_unsynced_chunks", labels] == 1
    assert found["dfs_disk_used_bytes", labels] == found["dfs_disk_written_bytes_total", labels]
    assert found["dfs_disk_failed", labels] == 0


async def test_what_is_kept_of_the_journal(tmp_path: Path, autojump_clock: MockClock) -> None:
    journal = opened(tmp_path)
    metrics = Metrics("chunkd")
    ChunkdMetrics(metrics, Stores([]), run_inline, journal=journal)
    found = samples(await metrics.page())
    assert found["dfs_kept_journal_entry", ()] == 0
    assert found["dfs_kept_journal_snapshot", ()] == -1
    history = entries(START, 5)
    journal.begin(CLUSTER, START)
    journal.append(CLUSTER, encoded(history))
    keep_snapshot(journal, history[2].position)
    found = samples(await metrics.page())
    assert found["dfs_kept_journal_entry", ()] == 5
    assert found["dfs_kept_journal_snapshot", ()] == 3
    kept = bytes_of(tmp_path / "journal")
    assert found["dfs_kept_journal_bytes", ()] == kept > 500
    (tmp_path / "journal").rename(tmp_path / "elsewhere")
    found = samples(await metrics.page())
    assert found["dfs_kept_journal_bytes", ()] == kept, "the last that was known"


def bytes_of(directory: Path) -> int:
    return sum(each.stat().st_size for each in directory.iterdir())


async def test_system_calls_are_watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    watch, metrics = DiskWatch(), Metrics("chunkd")
    where = str(tmp_path)
    store = ChunkStore(tmp_path, "d", files=TimedFileSystem(where, watch.durations, watch.errors))
    store.recover()
    ChunkdMetrics(metrics, Stores([store]), look_in_thread, watch)
    store.write(CHUNK, b"data", block_checksums(CHUNK, b"data"), durable=True)
    store.verify(CHUNK)

    def fail(*_: object) -> None:
        raise OSError(5, "told to")

    monkeypatch.setattr("os.writev", fail)
    with pytest.raises(DiskFailed):
        store.write(b"d" * 16, b"data", block_checksums(b"d" * 16, b"data"), durable=True)
    found = samples(await metrics.page())
    count = "dfs_disk_operation_duration_seconds_count"
    assert found[count, ("write", where)] == 2
    assert found[count, ("fsync", where)] == 1
    assert found[count, ("fsync_directory", where)] >= 1
    assert found[count, ("read", where)] >= 1
    assert found["dfs_disk_errors_total", ("write", where)] == 1
    store.close()


async def test_a_disk_that_hangs_does_not_hold_up_the_page(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("chunkd.metrics.FIGURES_S", 0.01)
    metrics, store = Metrics("chunkd"), MemoryChunkStore("d")
    ChunkdMetrics(metrics, Stores([store]), look_in_thread)
    assert samples(await metrics.page())["dfs_disk_chunks", ("d", "memory:d")] == 0
    go_on, figures, looks = threading.Event(), store.figures(), []

    def hang() -> object:
        looks.append(threading.current_thread())
        go_on.wait()
        return figures

    monkeypatch.setattr(store, "figures", hang)
    for _ in range(3):
        assert samples(await metrics.page())["dfs_disk_chunks", ("d", "memory:d")] == 0
    assert len(looks) == 1, "one thread hangs, not one for each scrape"
    go_on.set()
    with trio.fail_after(5):
        while not len(looks) > 1:  # the disk is looked at again
            await metrics.page()
            await trio.lowlevel.checkpoint()
