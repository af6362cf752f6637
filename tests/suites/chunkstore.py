"""What every chunk store must do: run on ChunkStore and on MemoryChunkStore.

A subclass gives a `Bench`: a store, and how to damage it from outside.  See
tests/t2_chunkd/test_store.py and test_memorystore.py.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Protocol

import pytest

from chunkd import chunkfile
from chunkd.remains import good_blocks, vouched_checksums
from chunkd.scrubnote import ScrubNote
from chunkd.storage import Store, StoredRange, SyncOutcome
from dfswire.bodies import FileRange
from dfswire.chunks import CHECKSUM_BYTES, block_checksums
from dfswire.errors import CorruptChunk, DiskFailed, Exists, Invalid, NoSpace, UnknownChunk
from dfswire.messages import BLOCK_SIZE_BYTES as BLOCK

A, B, C = (bytes([first]) + bytes(range(15)) for first in b"abc")
HOUR_S, DAY_S = 3600.0, 86_400.0

ExpectLog = Callable[[str], None]


class Bench(Protocol):
    """A store under test, and its disk."""

    store: Store

    def corrupt(self, chunk: bytes, offset: int) -> None:
        """Flip a bit."""

    def truncate(self, chunk: bytes, size_bytes: int) -> None: ...

    def drop(self, chunk: bytes) -> None: ...

    def swap(self, one: bytes, other: bytes) -> None:
        """Exchange two files under their names."""

    def fail_fsync(self, times: int) -> None: ...

    def fill(self) -> None: ...

    def pass_time(self, seconds: float) -> None: ...


def content(length: int, seed: int = 1) -> bytes:
    """Bytes without a pattern that a wrong offset could hide in."""
    unit = bytes((index * 7 + seed) % 251 for index in range(251 * 5))
    return (unit * (length // len(unit) + 1))[:length]


def put(store: Store, chunk: bytes, data: bytes, durable: bool = False) -> bytes:
    """Write, and return the checksums."""
    checksums = block_checksums(chunk, data)
    store.write(chunk, memoryview(data), checksums, durable)
    return checksums


def octets(found: StoredRange) -> bytes:
    """The bytes of a range, its descriptor closed."""
    if not isinstance(found.body, FileRange):
        return bytes(found.body)
    try:
        return os.pread(found.body.fd, found.body.length, found.body.offset)
    finally:
        found.body.close()


def get(store: Store, chunk: bytes, offset: int, length: int) -> bytes:
    """Read and check, as a client does."""
    found = store.open_range(chunk, offset, length)
    data = octets(found)
    chunkfile.check_blocks(chunk, data, found.checksums, offset // BLOCK)
    return data


class ChunkStoreSuite:
    """The tests."""

    @pytest.mark.parametrize("durable", [False, True])
    @pytest.mark.parametrize("length", [1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 17])
    def test_what_is_written_is_read(self, bench: Bench, length: int, durable: bool) -> None:
        data = content(length)
        checksums = put(bench.store, A, data, durable)
        assert get(bench.store, A, 0, length) == data
        assert bench.store.open_range(A, 0, length).checksums == checksums
        assert bench.store.verify(A) == length
        assert bench.store.digest(A) == chunkfile.Index(A, length, checksums).digest

    def test_ranges_start_and_end_at_blocks(self, bench: Bench) -> None:
        data = content(2 * BLOCK + 5)
        checksums = put(bench.store, A, data)
        found = bench.store.open_range(A, BLOCK, BLOCK + 5)
        assert octets(found) == data[BLOCK:]
        assert found.chunk_length == len(data)
        assert found.checksums == checksums[CHECKSUM_BYTES:]
        for offset, length in [(1, BLOCK), (0, BLOCK + 1), (BLOCK, BLOCK + 6), (3 * BLOCK, 1)]:
            with pytest.raises(Invalid):
                bench.store.open_range(A, offset, length)

    def test_what_was_never_written_is_unknown(self, bench: Bench) -> None:
        for ask in (bench.store.verify, bench.store.digest, bench.store.delete):
            with pytest.raises(UnknownChunk):
                ask(A)
        with pytest.raises(UnknownChunk):
            bench.store.open_range(A, 0, 1)

    def test_data_that_does_not_match_its_checksums_is_not_stored(self, bench: Bench) -> None:
        data = content(2 * BLOCK)
        wrong = block_checksums(B, data)
        short = block_checksums(A, data)[:CHECKSUM_BYTES]
        for checksums in (wrong, short):
            with pytest.raises(CorruptChunk):
                bench.store.write(A, data, checksums, True)
        assert bench.store.list_chunks(b"", 10) == []

    def test_the_same_again_is_a_success(self, bench: Bench) -> None:
        put(bench.store, A, content(100))
        put(bench.store, A, content(100))
        put(bench.store, A, content(100), durable=True)
        assert bench.store.unsynced() == []
        assert bench.store.figures().chunks == 1

    def test_other_content_under_the_same_id_is_refused(self, bench: Bench) -> None:
        put(bench.store, A, content(100))
        for other in (content(100, seed=2), content(99)):
            with pytest.raises(Exists):
                put(bench.store, A, other)
        assert get(bench.store, A, 0, 100) == content(100)

    def test_writing_again_replaces_a_bad_copy(self, bench: Bench, expect_log: ExpectLog) -> None:
        expect_log("is bad")
        put(bench.store, A, content(100))
        bench.corrupt(A, 50)
        put(bench.store, A, content(100))
        assert get(bench.store, A, 0, 100) == content(100)
        assert bench.store.figures().quarantined == 1

    def test_delete(self, bench: Bench) -> None:
        put(bench.store, A, content(100))
        bench.store.delete(A)
        with pytest.raises(UnknownChunk):
            bench.store.verify(A)
        assert bench.store.unsynced() == []
        figures = bench.store.figures()
        assert (figures.chunks, figures.used_bytes) == (0, 0)

    def test_list_is_sorted_and_continues(self, bench: Bench) -> None:
        ids = [bytes([high, low]) + bytes(14) for high in (3, 1, 255) for low in (9, 0)]
        for chunk in ids:
            put(bench.store, chunk, b"x")
        assert bench.store.list_chunks(b"", 100) == sorted(ids)
        assert bench.store.list_chunks(b"", 2) == sorted(ids)[:2]
        assert bench.store.list_chunks(sorted(ids)[1], 3) == sorted(ids)[2:5]
        assert bench.store.list_chunks(b"\xff" * 16, 3) == []

    def test_damage_is_found_set_aside_and_reported(
        self, bench: Bench, expect_log: ExpectLog
    ) -> None:
        expect_log("is bad")
        put(bench.store, A, content(BLOCK + 9))
        bench.corrupt(A, BLOCK + 1)
        with pytest.raises(CorruptChunk, match="block 1"):
            bench.store.verify(A)
        (report,) = bench.store.take_reports()
        assert (report.chunk, report.disk, report.state) == (A, bench.store.disk, "bad")
        assert bench.store.take_reports() == []
        assert bench.store.figures().quarantined == 1
        assert bench.store.list_chunks(b"", 9) == []

    def test_what_is_right_of_a_bad_chunk_is_still_served(
        self, bench: Bench, expect_log: ExpectLog
    ) -> None:
        expect_log("is bad")
        data = content(3 * BLOCK + 9)
        put(bench.store, A, data)
        bench.corrupt(A, BLOCK + 1)
        for _ in range(2):
            with pytest.raises(CorruptChunk):
                bench.store.verify(A)
            assert get(bench.store, A, 0, BLOCK) == data[:BLOCK]
            assert get(bench.store, A, 2 * BLOCK, BLOCK + 9) == data[2 * BLOCK :]
            for offset, length in [(0, 2 * BLOCK), (BLOCK, BLOCK), (0, len(data))]:
                with pytest.raises(CorruptChunk):
                    bench.store.open_range(A, offset, length)
        with pytest.raises(Invalid):
            bench.store.open_range(A, 1, 9)
        assert len(bench.store.take_reports()) == 1
        put(bench.store, A, data)  # repaired: the whole one counts
        assert get(bench.store, A, 0, len(data)) == data

    def test_remains(self, bench: Bench, expect_log: ExpectLog) -> None:
        expect_log("is bad")
        data = content(2 * BLOCK)
        checksums = put(bench.store, A, data)
        digest = chunkfile.Index(A, len(data), checksums).digest
        for damage in (BLOCK, len(data) + 8, len(data) + 17):  # payload, index, footer
            (before,) = bench.store.remains(A)
            assert vouched_checksums(A, len(data), digest, before) == checksums
            bench.corrupt(A, damage)
            (after,) = bench.store.remains(A)
            assert list(good_blocks(A, len(data), checksums, after)) == (
                [0] if damage == BLOCK else [0, 1]
            )
            with pytest.raises(CorruptChunk):
                bench.store.verify(A)
            assert bench.store.remains(A) == [after]
            assert bench.store.empty_quarantine([A, B]) == 1
            assert bench.store.remains(A) == []
            put(bench.store, A, data)

    def test_the_quarantine_is_emptied_by_age_and_size(
        self, bench: Bench, expect_log: ExpectLog
    ) -> None:
        expect_log("a test says so")
        for chunk in (A, B, C):
            put(bench.store, chunk, content(1000))
            bench.store.quarantine(chunk, "a test says so")
            bench.pass_time(DAY_S)
        plenty = 1 << 20
        assert bench.store.quarantine_due(7 * DAY_S, plenty, 9) == []
        assert bench.store.quarantine_due(1.5 * DAY_S, plenty, 9) == [A, B]
        assert bench.store.quarantine_due(1.5 * DAY_S, plenty, 1) == [A]
        assert bench.store.quarantine_due(7 * DAY_S, 3000, 9) == [A]
        assert bench.store.empty_quarantine([A]) == 1
        assert bench.store.figures().quarantined == 2
        assert bench.store.quarantine_due(7 * DAY_S, 3000, 9) == []

    def test_what_is_set_aside_twice_is_reported_once(
        self, bench: Bench, expect_log: ExpectLog
    ) -> None:
        expect_log("a test says so")
        put(bench.store, A, content(9))
        for _ in range(2):
            bench.store.quarantine(A, "a test says so")
        assert len(bench.store.take_reports()) == 1

    @pytest.mark.parametrize("size_bytes", [0, 1, 71, 72, 100, 179])
    def test_truncation_is_found_on_opening(
        self, bench: Bench, expect_log: ExpectLog, size_bytes: int
    ) -> None:
        expect_log("is bad")
        put(bench.store, A, content(100))
        bench.truncate(A, size_bytes)
        with pytest.raises(CorruptChunk):
            bench.store.open_range(A, 0, 100)

    def test_a_swapped_file_is_found_on_opening(self, bench: Bench, expect_log: ExpectLog) -> None:
        expect_log("under another name")
        put(bench.store, A, content(100))
        put(bench.store, B, content(100))
        bench.swap(A, B)
        for chunk in (A, B):
            with pytest.raises(CorruptChunk):
                bench.store.open_range(chunk, 0, 100)

    def test_a_vanished_file_is_unknown(self, bench: Bench) -> None:
        put(bench.store, A, content(100))
        bench.drop(A)
        with pytest.raises(UnknownChunk):
            bench.store.open_range(A, 0, 100)
        assert bench.store.sync([A]).failed == []

    def test_sync_says_what_is_missing(self, bench: Bench) -> None:
        put(bench.store, A, content(100))
        assert bench.store.unsynced() == [A]
        assert bench.store.sync([A, B]) == SyncOutcome(missing=[B])
        assert bench.store.unsynced() == []
        assert bench.store.backlog == 0
        assert bench.store.sync([A]) == SyncOutcome()

    def test_a_failed_fsync_discards_the_chunk(self, bench: Bench, expect_log: ExpectLog) -> None:
        expect_log("is bad")
        put(bench.store, A, content(100))
        bench.fail_fsync(1)
        assert bench.store.sync([A]).failed == [A]
        assert bench.store.sync([A]) == SyncOutcome(missing=[A])
        assert not bench.store.failed
        put(bench.store, A, content(100), durable=True)  # fresh bytes may try again

    def test_a_failed_fsync_fails_a_durable_write(self, bench: Bench) -> None:
        bench.fail_fsync(1)
        with pytest.raises(DiskFailed):
            put(bench.store, A, content(100), durable=True)
        with pytest.raises(UnknownChunk):
            bench.store.verify(A)
        assert bench.store.list_chunks(b"", 9) == []

    def test_two_failures_within_ten_minutes_fail_the_disk(self, bench: Bench) -> None:
        for _ in range(2):
            bench.fail_fsync(1)
            with pytest.raises(DiskFailed):
                put(bench.store, A, content(100), durable=True)
        assert bench.store.failed
        assert bench.store.figures().failed
        with pytest.raises(DiskFailed):
            put(bench.store, B, content(100))

    def test_two_failures_far_apart_do_not(self, bench: Bench) -> None:
        for _ in range(2):
            bench.fail_fsync(1)
            with pytest.raises(DiskFailed):
                put(bench.store, A, content(100), durable=True)
            bench.pass_time(601)
        assert not bench.store.failed

    def test_a_full_disk_says_so_and_keeps_what_it_has(self, bench: Bench) -> None:
        put(bench.store, A, content(100))
        bench.fill()
        with pytest.raises(NoSpace):
            put(bench.store, B, content(100))
        assert bench.store.list_chunks(b"", 9) == [A]
        assert get(bench.store, A, 0, 100) == content(100)
        assert not bench.store.failed

    def test_unknown_chunks_are_set_aside_when_old_and_deleted_later(self, bench: Bench) -> None:
        put(bench.store, A, content(100))
        assert not bench.store.set_aside(A, HOUR_S)
        bench.pass_time(HOUR_S + 1)
        put(bench.store, B, content(100))
        assert bench.store.set_aside(A, HOUR_S)
        assert not bench.store.set_aside(B, HOUR_S)
        assert not bench.store.set_aside(C, HOUR_S)
        assert bench.store.list_chunks(b"", 9) == [B]
        bench.pass_time(6 * DAY_S)
        assert bench.store.expire_set_aside(7 * DAY_S) == 0
        bench.pass_time(2 * DAY_S)
        assert bench.store.expire_set_aside(7 * DAY_S) == 1
        assert bench.store.expire_set_aside(7 * DAY_S) == 0

    def test_recording(self, bench: Bench) -> None:
        put(bench.store, A, content(1))
        with bench.store.recording() as stored:
            put(bench.store, A, content(1))
            put(bench.store, B, content(1))
        put(bench.store, C, content(1))
        assert stored == {B}

    def test_figures(self, bench: Bench) -> None:
        put(bench.store, A, content(1000))
        put(bench.store, B, content(2000))
        get(bench.store, A, 0, 1000)
        figures = bench.store.figures()
        size = 3000 + chunkfile.tail_bytes(1000) + chunkfile.tail_bytes(2000)
        assert (figures.chunks, figures.used_bytes) == (2, size)
        assert (figures.read_bytes, figures.written_bytes) == (1000, size)
        assert 0 < figures.free_bytes < figures.total_bytes

    def test_the_scrub_cursor_is_remembered(self, bench: Bench) -> None:
        assert bench.store.load_scrub() == ScrubNote()
        for note in (ScrubNote(A, 1_700_000_000, 0), ScrubNote(b"", 1_700_000_000, 1_700_000_009)):
            bench.store.save_scrub(note)
            assert bench.store.load_scrub() == note
            figures = bench.store.figures()
            told = (figures.scrub_fraction, figures.scrub_finished_s)
            assert told == (note.fraction, note.finished_s)
