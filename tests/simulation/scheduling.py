"""Running trio so that the same seed gives the same run, in any process.

All that is private of trio is here: its scheduler shuffles the tasks that can run with a random
source of its own, which a seed can be given to, and sorts them by creation before that when a flag
is set.  Time is virtual and jumps when nobody can run.  The garbage collector is off during a run,
because it ends abandoned generators at moments that depend on everything that ran before.
"""

from __future__ import annotations

import gc
import random
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import trio
from trio._core import _io_epoll, _run
from trio.testing import MockClock

T = TypeVar("T")

ROUND_S = 1e-9
LOOKS_EVERY = 512  # rounds of the scheduler, of which a run has some thousands


class _SeldomEpoll(_io_epoll.EpollIOManager):
    """Asks the kernel for events now and then only: none can come but a signal (11% of a run).

    Each round of the scheduler takes a moment of virtual time.  Else who sleeps until some other
    clock shows a time could find a rest that is too short to be slept, for ever.
    """

    def __init__(self) -> None:
        super().__init__()
        self._rounds = 0

    def get_events(self, timeout: float) -> Any:
        self._rounds += 1
        clock = _run.GLOBAL_RUN_CONTEXT.runner.clock
        assert isinstance(clock, MockClock)
        clock.jump(ROUND_S)
        if timeout <= 0 and self._rounds % LOOKS_EVERY:
            return []
        return super().get_events(timeout)


def run(seed: object, main: Callable[[], Awaitable[T]]) -> T:
    """`main()` to its end, with every choice of the scheduler drawn from `seed`."""
    private: Any = _run
    before = private._ALLOW_DETERMINISTIC_SCHEDULING, private._r, private.TheIOManager
    process = random.getstate()
    private._ALLOW_DETERMINISTIC_SCHEDULING = True
    private._r = random.Random(f"trio {seed}")
    private.TheIOManager = _SeldomEpoll
    random.seed(f"process {seed}")  # jitter of pauses
    collects = gc.isenabled()
    gc.disable()
    try:
        return trio.run(main, clock=MockClock(autojump_threshold=0))
    finally:
        if collects:
            gc.enable()
        private._ALLOW_DETERMINISTIC_SCHEDULING, private._r, private.TheIOManager = before
        random.setstate(process)
