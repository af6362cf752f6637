"""Makes the schedule of a failing seed small: as few faults and steps as still fail.

Leaves out halves, then quarters, down to single ones, as long as a violation of the same invariant
remains (delta debugging).  Which ones are out is all that a replay needs besides the seed.
"""

from __future__ import annotations

from collections.abc import Callable

from tests.simulation.schedule import Schedule
from tests.simulation.simulate import simulate

Parts = list[tuple[str, int]]  # ("fault" or "step", its number)


def kind_of(violation: str) -> str:
    """The invariant, or whatever else the text begins with."""
    return violation.partition(":")[0]


def without(schedule: Schedule, parts: Parts) -> Schedule:
    """The schedule with these left out."""
    return schedule.without(
        {number for kind, number in parts if kind == "fault"},
        {number for kind, number in parts if kind == "step"},
    )


def still_fails(schedule: Schedule, kind: str) -> bool:
    """The check of a shrinking: the same invariant is violated."""
    return kind_of(simulate(schedule).violation) == kind


def shrink(schedule: Schedule, fails: Callable[[Schedule], bool]) -> Parts:
    """What can be left out of a schedule that fails."""
    kept: Parts = [("fault", fault.number) for fault in schedule.faults]
    kept += [("step", step.number) for work in schedule.steps for step in work]
    out: Parts = []
    size = max(1, len(kept) // 2)
    while kept:
        progressed = False
        for start in range(0, len(kept), size):
            part = kept[start : start + size]
            if part and fails(without(schedule, out + part)):
                out += part
                kept = [each for each in kept if each not in part]
                progressed = True
                break
        if not progressed:
            if size == 1:
                break
            size = max(1, size // 2)
    return out
