"""Runs a machine with hypothesis, short or long, and finds out what the file system can do.

DFS_STATEFUL_EXAMPLES and DFS_STATEFUL_STEPS make a run longer, DFS_SEED repeats it, and
DFS_STATEFUL_SHRINK=1 lets hypothesis cut a failure down, which takes a while.
"""

from __future__ import annotations

import errno
import fcntl
import os
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast

import hypothesis
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test

from tests.syscalls import fallocate

EXAMPLES = os.environ.get("DFS_STATEFUL_EXAMPLES")
STEPS = os.environ.get("DFS_STATEFUL_STEPS")
SHRINKS = bool(os.environ.get("DFS_STATEFUL_SHRINK"))


def run_machine(
    machine: Callable[[], RuleBasedStateMachine], rng: random.Random, *, examples: int, steps: int
) -> None:
    """Raises what the machine raises."""
    phases = [hypothesis.Phase.explicit, hypothesis.Phase.generate]
    settings = hypothesis.settings(
        max_examples=int(EXAMPLES or examples),
        stateful_step_count=int(STEPS or steps),
        suppress_health_check=list(hypothesis.HealthCheck),
        database=None,
        derandomize=False,
        phases=[*phases, hypothesis.Phase.shrink] if SHRINKS else phases,
    )
    seeded = hypothesis.seed(rng.getrandbits(32))(machine)
    factory = cast(type[RuleBasedStateMachine], seeded)  # it is only ever called
    run_state_machine_as_test(factory, settings=settings)


def missing_abilities(roots: Sequence[Path]) -> frozenset[str]:
    """What the machine must leave out: "tmpfile", "fallocate", "locks" (between the views)."""
    missing = set()
    path = roots[0] / "probe"
    with path.open("wb") as file, (roots[-1] / "probe").open("wb") as other:
        if not _can(lambda: fallocate(file.fileno(), 0, 0, 1), errno.EOPNOTSUPP, errno.ENOSYS):
            missing.add("fallocate")
        fcntl.flock(file, fcntl.LOCK_EX)
        if _can(lambda: fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB), errno.EAGAIN):
            missing.add("locks")
    path.unlink()
    if not _can(
        lambda: os.close(os.open(roots[0], os.O_RDWR | os.O_TMPFILE)),
        errno.EOPNOTSUPP,
        errno.EISDIR,
    ):
        missing.add("tmpfile")
    return frozenset(missing)


def _can(action: Callable[[], object], *refusals: int) -> bool:
    try:
        action()
    except OSError as problem:
        if problem.errno not in refusals:
            raise
        return False
    return True
