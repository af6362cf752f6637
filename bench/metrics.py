"""What it costs to count a call, in microseconds.

    python bench/metrics.py

CPU time, the best of five rounds.  Below 3 us a call, or it is not worth it.
"""

from __future__ import annotations

import logging
import time
import timeit
from collections.abc import Callable

import trio

from dfsmount.operationwatch import OperationWatch
from dfswire.bodies import BodySource
from dfswire.calls import by_path
from dfswire.dispatch import Dispatcher, Handler
from dfswire.hosts import Hello
from dfswire.messages import Empty
from dfswire.metrics import Durations, Metrics

ROUNDS = 5
CALLS = 20_000
HELLO = Hello(service="metad", protocol=1, software="bench", cluster_id="c")


class _Nothing:
    length = 0

    async def receive_into(self, buffer: memoryview) -> int:
        return 0


async def _hello(request: Empty, body: BodySource) -> Hello:
    return HELLO


def main() -> None:
    logging.basicConfig(level=logging.INFO)
    durations = Durations("d_seconds", "D.", ("call", "outcome"))
    alone_us = _best(lambda: _repeat(lambda: durations.add(("meta.batch", "ok"), 0.0012)))
    print(f"Durations.add                 {alone_us:6.2f} us")
    watch = OperationWatch(durations.add)
    operation_us = _best(lambda: _repeat(lambda: watch.end("write", "ok", watch.begin())))
    print(f"an operation of a mount       {operation_us:6.2f} us")
    handlers: dict[str, Handler] = {call.name: _hello for call in by_path("metad").values()}
    without_us = _best(lambda: trio.run(_calls, Dispatcher("metad", handlers)))
    with_us = _best(lambda: trio.run(_calls, Dispatcher("metad", handlers, Metrics("metad"))))
    print(f"a call, dispatched            {without_us:6.2f} us")
    print(f"the same, counted             {with_us:6.2f} us")


def _best(work: Callable[[], object]) -> float:
    rounds = timeit.repeat(work, number=1, repeat=ROUNDS, timer=time.process_time)
    return min(rounds) / CALLS * 1e6


def _repeat(work: Callable[[], object]) -> None:
    for _ in range(CALLS):
        work()


async def _calls(dispatcher: Dispatcher) -> None:
    for _ in range(CALLS):
        await dispatcher.dispatch("GET", "/v1/hello", {}, _Nothing())


if __name__ == "__main__":
    main()
