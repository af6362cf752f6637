"""ChunkStore on a real directory: the suite, and what only files can do."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

import pytest

from chunkd import newchunks
from chunkd import store as store_module
from chunkd.scrubnote import ScrubNote
from chunkd.storage import SyncOutcome
from chunkd.store import ChunkStore
from dfswire.bodies import FileRange
from dfswire.errors import CorruptChunk, DiskFailed, InputOutput, UnknownChunk, WrongVersion
from tests.suites.chunkstore import A, B, C, ChunkStoreSuite, ExpectLog, content, get, put
from tests.t2_chunkd.lossyfiles import LossyFiles

START = 1_700_000_000.0


class FileBench:
    """A store on a directory, with clocks and a file system that can fail."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root = root
        self.monkeypatch = monkeypatch
        self.elapsed_s = 0.0
        self.files = LossyFiles(root)
        self.store = self.open()

    def open(self) -> ChunkStore:
        store = ChunkStore(
            self.root,
            "disk",
            files=self.files,
            monotonic=lambda: self.elapsed_s,
            wall=lambda: START + self.elapsed_s,
        )
        store.recover()
        return store

    def path(self, chunk: bytes) -> Path:
        name = chunk.hex()
        return self.root / "chunks" / name[:2] / name[2:4] / name

    def age(self, chunk: bytes) -> None:
        """Give the file the time of the test's clock."""
        os.utime(self.path(chunk), (START + self.elapsed_s, START + self.elapsed_s))

    def corrupt(self, chunk: bytes, offset: int) -> None:
        data = bytearray(self.path(chunk).read_bytes())
        data[offset] ^= 1
        self.path(chunk).write_bytes(data)

    def truncate(self, chunk: bytes, size_bytes: int) -> None:
        os.truncate(self.path(chunk), size_bytes)

    def drop(self, chunk: bytes) -> None:
        self.store.sync([chunk])
        self.path(chunk).unlink()

    def swap(self, one: bytes, other: bytes) -> None:
        aside = self.root / "aside"
        self.path(one).rename(aside)
        self.path(other).rename(self.path(one))
        aside.rename(self.path(other))

    def fail_step(self, name: str, times: int, number: int = errno.EIO) -> None:
        remaining = [times]

        def fail(step: str) -> None:
            if step == name and remaining[0]:
                remaining[0] -= 1
                raise OSError(number, f"injected into {name}")

        self.files.fail = fail

    def fail_fsync(self, times: int) -> None:
        self.fail_step("fsync", times)

    def fill(self) -> None:
        self.fail_step("write", 1, errno.ENOSPC)

    def pass_time(self, seconds: float) -> None:
        for path in (self.root / "chunks").rglob("?" * 32):
            age = START + self.elapsed_s
            if path.stat().st_mtime > age:
                os.utime(path, (age, age))  # it was written just now, by the test's clock
        self.elapsed_s += seconds


def open_descriptors() -> int:
    """How many this process has."""
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FileBench:
    return FileBench(tmp_path, monkeypatch)


class TestChunkStore(ChunkStoreSuite):
    """The suite."""


def test_names_and_temporaries(bench: FileBench) -> None:
    put(bench.store, A, content(10))
    assert [path.name for path in bench.root.rglob("*") if path.is_file()] == [A.hex()]
    assert bench.path(A).stat().st_mode & 0o007 == 0


def test_recovery_removes_half_written_files_and_counts(bench: FileBench) -> None:
    put(bench.store, A, content(10))
    (bench.path(A).parent / f"{A.hex()}.7.tmp").write_bytes(b"half")
    (bench.root / "quarantine" / f"{B.hex()}.17").write_bytes(b"bad")
    again = bench.open()
    assert [path.name for path in bench.path(A).parent.iterdir()] == [A.hex()]
    figures = again.figures()
    assert (figures.chunks, figures.quarantined) == (1, 1)
    assert get(again, A, 0, 10) == content(10)


def test_a_failed_write_leaves_no_file(bench: FileBench) -> None:
    for step, number in [("write", errno.ENOSPC), ("fsync", errno.EIO), ("rename", errno.EIO)]:
        bench.fail_step(step, 1, number)
        with pytest.raises(Exception, match="injected"):
            put(bench.store, A, content(10), durable=True)
        assert [path for path in bench.root.rglob("*") if path.is_file()] == []


def test_a_temporary_that_cannot_be_removed_is_left_to_the_next_start(
    bench: FileBench, expect_log: ExpectLog
) -> None:
    expect_log("could not remove")

    def fail(step: str) -> None:
        if step in ("write", "unlink"):
            raise OSError(errno.EIO, "injected")

    bench.files.fail = fail
    with pytest.raises(DiskFailed):
        put(bench.store, A, content(10))
    bench.files.fail = lambda step: None
    bench.open()
    assert [path for path in bench.root.rglob("*") if path.is_file()] == []


def test_a_name_that_cannot_be_made_durable_is_taken_back(
    bench: FileBench, expect_log: ExpectLog
) -> None:
    expect_log("is bad")
    bench.fail_step("fsync_directory", 1)
    with pytest.raises(DiskFailed):
        put(bench.store, A, content(10), durable=True)
    assert not bench.path(A).exists()
    put(bench.store, B, content(10))
    bench.fail_step("fsync_directory", 1)
    assert bench.store.sync([B]).failed == [B]
    assert not bench.path(B).exists()


def test_a_disk_below_its_reserve_is_full(
    bench: FileBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(newchunks, "RESERVE_FRACTION", 1.0)
    monkeypatch.setattr(newchunks, "RESERVE_MAX_BYTES", 1 << 60)
    with pytest.raises(Exception, match="is full"):
        put(bench.store, A, content(10))


def test_a_bad_chunk_that_cannot_be_moved_away_is_not_served(
    bench: FileBench, expect_log: ExpectLog
) -> None:
    expect_log("cannot be moved away")
    put(bench.store, A, content(10))
    bench.corrupt(A, 3)
    bench.fail_step("rename", 1)
    with pytest.raises(CorruptChunk):
        bench.store.verify(A)
    with pytest.raises(UnknownChunk):
        bench.store.open_range(A, 0, 10)
    with pytest.raises(DiskFailed):
        put(bench.store, A, content(10))
    assert bench.store.list_chunks(b"", 9) == []
    assert len(bench.store.take_reports()) == 1


def test_an_unreadable_chunk_is_set_aside(
    bench: FileBench, monkeypatch: pytest.MonkeyPatch, expect_log: ExpectLog
) -> None:
    expect_log("cannot be read")
    put(bench.store, A, content(10))

    def pread(fd: int, size_bytes: int, offset: int) -> bytes:
        raise OSError(errno.EIO, "injected")

    monkeypatch.setattr(bench.files, "pread", pread)
    with pytest.raises(CorruptChunk, match="cannot be read"):
        bench.store.verify(A)
    assert bench.store.take_reports()[0].state == "bad"
    assert not bench.store.failed


def test_trouble_of_this_process_condemns_no_chunk(
    bench: FileBench, monkeypatch: pytest.MonkeyPatch, expect_log: ExpectLog
) -> None:
    expect_log("could not be synced")
    put(bench.store, A, content(10), durable=True)

    def fail(*args: object) -> bytes:
        raise OSError(errno.EMFILE, "too many open files")

    with monkeypatch.context() as patch:
        patch.setattr(bench.files, "pread", fail)
        with pytest.raises(InputOutput):
            bench.store.verify(A)
    with monkeypatch.context() as patch:
        patch.setattr(bench.files, "open", fail)
        with pytest.raises(InputOutput):
            bench.store.open_range(A, 0, 10)
        assert bench.store.sync([A]).failed == [A]
    assert get(bench.store, A, 0, 10) == content(10)
    assert bench.store.sync([A]) == SyncOutcome()


def test_a_chunk_of_a_newer_format_is_left_alone(bench: FileBench) -> None:
    put(bench.store, A, content(10))
    data = bytearray(bench.path(A).read_bytes())
    data[-9] = 2  # the version, and a checksum that only the new format could check
    data[-20] ^= 1
    bench.path(A).write_bytes(data)
    with pytest.raises(WrongVersion, match="format 2"):
        bench.store.verify(A)
    assert bench.path(A).exists()


def test_a_lost_data_directory_is_not_made_again(bench: FileBench) -> None:
    (bench.root / "chunks").rmdir()
    with pytest.raises(DiskFailed, match="is gone"):
        put(bench.store, A, content(10))
    assert bench.store.list_chunks(b"", 9) == []


def test_files_that_others_have_made_larger_or_brought_are_counted_without_going_below_nothing(
    bench: FileBench, expect_log: ExpectLog
) -> None:
    """metad refuses a heartbeat with a negative size, and so would lose the server."""
    expect_log("is bad: no magic at the end")
    put(bench.store, A, content(10))
    with bench.path(A).open("ab") as file:
        file.write(bytes(1000))
    with pytest.raises(CorruptChunk):
        get(bench.store, A, 0, 10)
    bench.path(A).write_bytes(b"brought")
    bench.store.delete(A)
    figures = bench.store.figures()
    assert (figures.chunks, figures.used_bytes) == (0, 0)


def test_a_disk_that_does_not_answer_counts_as_failed(
    bench: FileBench, monkeypatch: pytest.MonkeyPatch, expect_log: ExpectLog
) -> None:
    expect_log("does not answer")

    def statvfs(path: Path) -> os.statvfs_result:
        raise OSError(errno.EIO, "injected")

    monkeypatch.setattr(os, "statvfs", statvfs)
    figures = bench.store.figures()
    assert (figures.failed, figures.total_bytes) == (True, 0)


def test_a_removed_prefix_directory_is_made_again_durably(bench: FileBench) -> None:
    put(bench.store, A, content(10), durable=True)
    bench.path(A).unlink()
    bench.path(A).parent.rmdir()
    bench.files.steps.clear()
    put(bench.store, A, content(10), durable=True)
    assert bench.files.steps.count("fsync_directory") == 3


def test_the_backlog_of_descriptors_is_bounded(
    bench: FileBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "UNSYNCED_MAX", 2)
    for chunk in (A, B, C):
        put(bench.store, chunk, content(10))
    assert bench.store.unsynced() == [B, C]
    before = open_descriptors()
    bench.store.close()
    assert open_descriptors() == before - 2


def test_no_descriptor_leaks(bench: FileBench, expect_log: ExpectLog) -> None:
    expect_log("is bad")
    put(bench.store, A, content(10), durable=True)
    put(bench.store, B, content(10), durable=True)
    before = open_descriptors()
    for _ in range(3):
        get(bench.store, A, 0, 10)
        with pytest.raises(Exception, match="does not fit"):
            bench.store.open_range(A, 3, 1)
    bench.truncate(B, 80)
    with pytest.raises(CorruptChunk):
        bench.store.open_range(B, 0, 10)
    assert open_descriptors() == before


def test_a_range_stays_readable_when_the_chunk_is_deleted(bench: FileBench) -> None:
    put(bench.store, A, content(10))
    found = bench.store.open_range(A, 0, 10)
    bench.store.delete(A)
    assert isinstance(found.body, FileRange)
    assert os.pread(found.body.fd, 10, 0) == content(10)
    found.body.close()


def test_many_threads_writing_the_same_chunk(bench: FileBench) -> None:
    problems: list[BaseException] = []

    def write(seed: int) -> None:
        try:
            put(bench.store, bytes([seed % 3]) * 16, content(5000), durable=seed % 2 == 0)
        except BaseException as problem:
            problems.append(problem)
            raise

    threads = [threading.Thread(target=write, args=(seed,)) for seed in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    assert bench.store.figures().chunks == 3
    assert sum(path.is_file() for path in bench.root.rglob("*")) == 3


def test_a_scrub_cursor_that_makes_no_sense_starts_the_pass_again(bench: FileBench) -> None:
    for text in ("nonsense", "", "- 5", f"{A.hex()} now 7"):
        (bench.root / "scrub").write_text(text)
        assert bench.store.load_scrub() == ScrubNote()
    (bench.root / "scrub").write_text(f"{A.hex()}\n")  # of an earlier version
    assert bench.store.load_scrub() == ScrubNote(A)
