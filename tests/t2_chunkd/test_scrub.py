"""The scrubber: finds rot, keeps to its rate, goes on where it stopped."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from chunkd import scrub
from chunkd.scrub import Scrubber, ScrubReport
from chunkd.scrubnote import ScrubNote
from chunkd.storage import run_inline
from dfswire.errors import DiskFailed, WrongVersion
from tests.memorystore import MemoryChunkStore
from tests.suites.chunkstore import ExpectLog, content, put

IDS = [bytes([number]) + bytes(range(15)) for number in range(10)]
PERIOD_S = 1000.0


@pytest.fixture
def store() -> MemoryChunkStore:
    store = MemoryChunkStore("disk")
    for chunk in IDS:
        put(store, chunk, content(1000), durable=True)
    return store


def wall() -> float:
    return 1_700_000_000 + trio.current_time()


def scrubber(store: MemoryChunkStore, min_bytes_per_s: float = 100.0) -> Scrubber:
    return Scrubber(
        store, run_inline, period_s=PERIOD_S, min_bytes_per_s=min_bytes_per_s, wall=wall
    )


async def test_a_pass_verifies_everything_at_its_rate(
    store: MemoryChunkStore, autojump_clock: MockClock
) -> None:
    started = trio.current_time()
    report = await scrubber(store).run_once()
    assert report == ScrubReport(chunks=10, bytes=10_000, bad=0)
    assert trio.current_time() - started == pytest.approx(100.0)


async def test_a_full_disk_is_through_within_the_period(
    store: MemoryChunkStore, autojump_clock: MockClock
) -> None:
    started = trio.current_time()
    await scrubber(store, min_bytes_per_s=0.001).run_once()
    assert PERIOD_S * 0.8 < trio.current_time() - started <= PERIOD_S


async def test_rot_is_set_aside_and_reported(
    store: MemoryChunkStore, autojump_clock: MockClock, expect_log: ExpectLog
) -> None:
    expect_log("is bad")
    store.corrupt(IDS[3], 999)
    store.truncate(IDS[7])
    report = await scrubber(store).run_once()
    assert (report.chunks, report.bad) == (10, 2)
    assert {each.chunk for each in store.take_reports()} == {IDS[3], IDS[7]}


async def test_it_goes_on_where_it_stopped(
    store: MemoryChunkStore, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scrub, "_CURSOR_EVERY", 2)
    with trio.move_on_after(45.0):
        await scrubber(store).run_once()
    assert store.figures().scrub_fraction == pytest.approx(3 / 256, abs=1e-4)
    report = await scrubber(store).run_once()
    assert report.chunks == 6
    assert store.figures().scrub_fraction == 0
    assert (await scrubber(store).run_once()).chunks == 10


async def test_chunks_may_vanish_meanwhile(
    store: MemoryChunkStore, autojump_clock: MockClock
) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(scrubber(store).run_once)
        await trio.sleep(1)
        store.delete(IDS[5])
    assert store.take_reports() == []


async def test_a_newer_format_is_left_alone(
    store: MemoryChunkStore,
    autojump_clock: MockClock,
    monkeypatch: pytest.MonkeyPatch,
    expect_log: ExpectLog,
) -> None:
    expect_log("format 2")

    def verify(chunk: bytes) -> int:
        raise WrongVersion("format 2")

    monkeypatch.setattr(store, "verify", verify)
    report = await scrubber(store).run_once()
    assert (report.chunks, report.bad) == (10, 0)


async def test_passes_follow_each_other_and_survive_errors(
    store: MemoryChunkStore,
    autojump_clock: MockClock,
    monkeypatch: pytest.MonkeyPatch,
    expect_log: ExpectLog,
) -> None:
    expect_log("stopped: disk gone")
    verified: list[float] = []
    verify = store.verify

    def fail_once(chunk: bytes) -> int:
        verified.append(trio.current_time() - started)
        if len(verified) == 1:
            raise DiskFailed("disk gone")
        return verify(chunk)

    monkeypatch.setattr(store, "verify", fail_once)
    started = trio.current_time()
    with trio.move_on_after(PERIOD_S + 1 + PERIOD_S / 168):
        await scrubber(store).run_forever()
    assert [round(at) for at in verified[:2]] == [0, round(PERIOD_S / 168)]  # soon again
    assert len(verified) == 1 + 10 + 1


async def test_a_pass_whose_place_cannot_be_read_is_tried_from_the_beginning(
    store: MemoryChunkStore, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    await scrubber(store).run_once()
    load, failures = store.load_scrub, [DiskFailed("not now")]

    def fail_once() -> ScrubNote:
        if failures:
            raise failures.pop()
        return load()

    monkeypatch.setattr(store, "load_scrub", fail_once)
    before = store.figures().read_bytes
    with trio.move_on_after(110):
        await scrubber(store).run_forever()
    assert store.figures().read_bytes == before + 10_000


async def test_a_restart_does_not_begin_a_new_pass(
    store: MemoryChunkStore, autojump_clock: MockClock
) -> None:
    await scrubber(store).run_once()
    before = store.figures().read_bytes
    with trio.move_on_after(PERIOD_S - 110):
        await scrubber(store).run_forever()
    assert store.figures().read_bytes == before
    with trio.move_on_after(120):
        await scrubber(store).run_forever()
    assert store.figures().read_bytes > before


async def test_a_pass_that_was_interrupted_for_long_hurries(
    store: MemoryChunkStore, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scrub, "_CURSOR_EVERY", 1)
    with trio.move_on_after(PERIOD_S * 0.3):
        await scrubber(store, min_bytes_per_s=0.001).run_once()
    await trio.sleep(PERIOD_S * 5)
    started = trio.current_time()
    report = await scrubber(store, min_bytes_per_s=0.001).run_once()
    assert 5 <= report.chunks <= 8
    assert trio.current_time() - started <= PERIOD_S * 0.15


async def test_requests_go_first(
    store: MemoryChunkStore, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reading waits while there are requests, but not for ever."""
    verified: list[float] = []
    verify = store.verify

    def note(chunk: bytes) -> int:
        verified.append(trio.current_time())
        return verify(chunk)

    monkeypatch.setattr(store, "verify", note)
    started = trio.current_time()
    await Scrubber(
        store,
        run_inline,
        period_s=PERIOD_S,
        min_bytes_per_s=100.0,
        busy=lambda: started + 11.0 < trio.current_time() < started + 35.0,
        wall=wall,
    ).run_once()
    assert not [at for at in verified if started + 11.5 < at < started + 19]
    assert len(verified) == 10
