"""Many seeds on all cores: progress, seeds per second, and what failed.

Each core has one process, which takes seeds in small blocks, so that a slow one holds nobody up.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from tests.simulation import beyond, beyondplan, schedule, simulate
from tests.simulation.running import Result

BLOCK = 5  # seeds, for each of several processes

RunSeed = Callable[[int], Result]


@dataclass
class Totals:
    """Of a campaign."""

    seeds: int = 0
    virtual_s: float = 0.0
    errors: int = 0
    faults: int = 0


def run_usual(seed: int) -> Result:
    """A seed with damage to replicas - 1 machines."""
    return simulate.simulate(schedule.draw(seed))


def run_beyond(seed: int) -> Result:
    """A seed with damage to any copy."""
    return beyond.simulate(beyondplan.draw(seed))


def run_block(run_seed: RunSeed, seeds: Sequence[int]) -> list[Result]:
    """These seeds, in this process."""
    return [run_seed(seed) for seed in seeds]


def results(
    start: int, count: int, jobs: int = 0, run_seed: RunSeed = run_usual
) -> Iterator[Result]:
    """The results of `count` seeds from `start`, as they come.  Left early, the rest is not run."""
    blocks = (
        range(first, min(first + BLOCK, start + count))
        for first in range(start, start + count, BLOCK)
    )
    jobs = jobs or os.cpu_count() or 1
    if jobs == 1:  # here, without starting anything
        yield from (run_seed(seed) for block in blocks for seed in block)
        return
    # Processes that begin afresh: what this one has open or half done is not theirs.
    context = multiprocessing.get_context("forkserver")
    with ProcessPoolExecutor(jobs, mp_context=context) as pool:
        running: set[Future[list[Result]]] = set()
        try:
            while True:
                while len(running) < 2 * jobs and (block := next(blocks, None)) is not None:
                    running.add(pool.submit(run_block, run_seed, block))
                if not running:
                    return
                finished, running = wait(running, return_when=FIRST_COMPLETED)
                for future in finished:
                    yield from future.result()
        finally:
            pool.shutdown(cancel_futures=True)


def campaign(
    run_seed: RunSeed,
    start: int,
    count: int,
    jobs: int,
    failed: Callable[[Result], None],
    failures_max: int,
) -> Totals:
    """Run seeds with a progress bar; `failed` is told of each violation.  Ends after so many."""
    totals, failures, began = Totals(), 0, time.monotonic()
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]:.1f} seeds/s"),
        TimeRemainingColumn(),
    )
    with Progress(*columns) as progress:
        bar = progress.add_task("simulating", total=count, rate=0.0)
        for result in results(start, count, jobs, run_seed):
            totals.seeds += 1
            totals.virtual_s += result.virtual_s
            totals.errors += result.errors
            totals.faults += result.faults
            rate = totals.seeds / (time.monotonic() - began)
            progress.update(bar, advance=1, rate=rate)
            if result.violation:
                failed(result)
                failures += 1
                if failures >= failures_max:
                    break
    return totals
