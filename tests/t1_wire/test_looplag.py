"""An event loop that stands still: what is measured, shown and logged."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import trio
from trio.testing import MockClock

from dfswire.looplag import INTERVAL_S, QUIET_S, REMEMBERED_S, LoopLag
from dfswire.metrics import Metrics
from tests.t1_wire.test_metrics import samples


class Clock:
    """trio's virtual clock, and what the loop has missed of it."""

    def __init__(self) -> None:
        self.missed_s = 0.0

    def __call__(self) -> float:
        return trio.current_time() + self.missed_s


@asynccontextmanager
async def watched(lag: LoopLag) -> AsyncIterator[None]:
    """It runs."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lag.run_forever)
        await trio.sleep(INTERVAL_S / 2)
        yield
        nursery.cancel_scope.cancel()


async def test_a_loop_that_runs_is_not_late(autojump_clock: MockClock) -> None:
    lag = LoopLag(Clock())
    assert lag.worst_s() == 0
    async with watched(lag):
        await trio.sleep(1000)
    assert lag.worst_s() < 1e-6


async def test_the_worst_of_the_last_minute(autojump_clock: MockClock) -> None:
    clock = Clock()
    lag = LoopLag(clock)
    async with watched(lag):
        for late_s in (0.2, 0.9, 0.4):
            clock.missed_s += late_s
            await trio.sleep(10)
        assert abs(lag.worst_s() - 0.9) < 1e-6
        await trio.sleep(REMEMBERED_S - 15)
        assert abs(lag.worst_s() - 0.4) < 1e-6
        await trio.sleep(15)
        assert lag.worst_s() < 1e-6


async def test_a_long_one_is_told_once_a_minute(
    autojump_clock: MockClock, expect_log: Callable[[str], None]
) -> None:
    expect_log("the event loop stood still for 2.0 s")
    expect_log("the event loop stood still for 5.0 s")
    clock = Clock()
    async with watched(LoopLag(clock)):
        for late_s, pause_s in ((2.0, 10.0), (3.0, QUIET_S), (5.0, 1.0)):  # 3.0 is not told
            clock.missed_s += late_s
            await trio.sleep(pause_s)


async def test_the_page_shows_it(expect_log: Callable[[str], None]) -> None:
    expect_log("stood still for 4.0 s")
    metrics = Metrics("test", LoopLag(lambda: 7.0))
    metrics.loop.note(4.0, 7.0)
    assert samples(await metrics.page())["dfs_loop_lag_seconds", ()] == 4.0
