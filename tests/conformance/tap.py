"""What programs that speak TAP (the Test Anything Protocol) said, counted and put into a table.

Used by pjdfstest.py.  A test that was planned and not reported counts as failed, and so does a
program that printed no plan or ended with an error: silence is never success.  TODO is TAP's own
word for a test that may fail.  Pure.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

_PLAN = re.compile(r"^1\.\.(\d+)")
_RESULT = re.compile(r"^(not )?ok\b")
_EXPECTED_TO_FAIL = re.compile(r"# *TODO\b", re.IGNORECASE)


@dataclass(frozen=True)
class Outcome:
    """One test program: how many tests it planned, which failed (in words), how long it took."""

    directory: str
    name: str
    tests: int
    failures: list[str] = field(default_factory=list)
    seconds: float = 0.0


def judge(directory: str, name: str, output: str, status: int, seconds: float) -> Outcome:
    """What a program's output means."""
    planned: int | None = None
    reported = 0
    failures = []
    for line in output.splitlines():
        if (plan := _PLAN.match(line)) is not None:
            planned = int(plan[1])
        elif (result := _RESULT.match(line)) is not None:
            reported += 1
            if result[1] and not _EXPECTED_TO_FAIL.search(line):
                failures.append(line)
    if planned is None:
        failures.append("no plan was printed")
    elif reported != planned:
        failures.append(f"{planned} tests were planned, {reported} reported")
    if status:
        failures.append(f"the program ended with {status}")
    return Outcome(directory, name, planned or 0, failures, seconds)


def table(outcomes: Iterable[Outcome]) -> str:
    """Files, tests, failures and seconds of each directory, and their sums; in Markdown."""
    groups: dict[str, list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        groups[outcome.directory].append(outcome)
    lines = ["| directory | files | tests | failed | seconds |", "|---|--:|--:|--:|--:|"]
    everything = [outcome for group in groups.values() for outcome in group]
    for directory, group in [*sorted(groups.items()), ("all", everything)]:
        tests = sum(outcome.tests for outcome in group)
        failed = sum(len(outcome.failures) for outcome in group)
        seconds = sum(outcome.seconds for outcome in group)
        lines.append(f"| {directory} | {len(group)} | {tests:,} | {failed} | {seconds:.0f} |")
    return "\n".join(lines)
