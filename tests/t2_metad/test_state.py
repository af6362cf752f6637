"""FileClock: ctimes that only grow."""

from __future__ import annotations

from dfswire.batches import BATCH_MAX_OPERATIONS
from metad.state import FileClock


def test_it_follows_the_clock_and_never_goes_back() -> None:
    times = iter([10_000, 20_000, 5_000, 20_001, 90_000])
    clock = FileClock(lambda: next(times))
    assert clock() == 10_000
    assert clock() == 20_000
    assert clock() == 20_000 + BATCH_MAX_OPERATIONS  # the clock was set back
    assert clock() == 20_000 + 2 * BATCH_MAX_OPERATIONS  # two batches in one nanosecond
    assert clock() == 90_000


def test_it_starts_after_what_an_earlier_metad_has_used() -> None:
    assert FileClock(lambda: 5, after_ns=100)() == 100 + BATCH_MAX_OPERATIONS
