"""leases.py under every order of events that a small world allows.

Scratch: docstring to come.
"""

from __future__ import annotations

import os
import pickle
import time
from collections import deque
from typing import Any

import pytest

from tests.t2_metad.lease_model import Limits, Step, World, Wrong

DRAIN_STEPS_MAX = 100
DRAIN_EVERY = 64  # of the states


class Found(AssertionError):
    """What broke, and how it came to that."""


def explore(world: World, depth: int, states_max: int = 1 << 60) -> tuple[int, int, int]:
    """Every history up to a number of steps, equal worlds once.  Raises Found.

    Returns the number of different worlds, of steps, and the depth that was reached.
    """
    seen = {hash(world.key())}
    origins: list[tuple[int, Step]] = [(-1, ())]
    todo = deque([(0, 0, pickle.dumps(world, -1))])
    steps = 0
    at = 0
    while todo and len(seen) < states_max:
        index, at, frozen = todo.popleft()
        if at == depth:
            break
        here: World = pickle.loads(frozen)
        necessary = len(list(here.necessary()))
        goes_on = False
        own = hash(here.key())
        for number, step in enumerate(here.steps()):
            there: World = pickle.loads(frozen)
            steps += 1
            try:
                there.do(step)
                if len(seen) % DRAIN_EVERY == 0:
                    drain(pickle.loads(pickle.dumps(there, -1)))
            except (Wrong, KeyError) as problem:
                raise Found(f"{problem!r} after\n{history(origins, index, step)}") from problem
            key = hash(there.key())
            goes_on = goes_on or (number < necessary and key != own)
            if key not in seen:
                seen.add(key)
                origins.append((index, step))
                todo.append((len(origins) - 1, at + 1, pickle.dumps(there, -1)))
        if not goes_on and not here.is_settled():
            raise Found(f"nobody goes on after\n{history(origins, index, ())}")
    return len(seen), steps, at


def drain(world: World) -> None:
    """Nothing new is begun: in the end nobody waits.  Raises Wrong."""
    done: list[Step] = []
    for _ in range(DRAIN_STEPS_MAX):
        steps = list(world.necessary())
        if not steps:
            break
        # In turn, so that those who only try again in vain do not keep the others waiting.
        for step in steps:
            if step in list(world.necessary()):
                done.append(step)
                try:
                    world.do(step)
                except Wrong as problem:
                    raise Wrong(f"{problem} when all goes on: {done[-30:]}") from problem
    if not world.is_settled():
        raise Wrong(f"somebody waits for ever, after {done[-30:]}")


def history(origins: list[tuple[int, Step]], index: int, last: Step) -> str:
    steps = [last]
    while index > 0:
        index, step = origins[index]
        steps.append(step)
    return "\n".join(f"    {each}" for each in reversed(steps))


FILE = 3
SCENARIOS: dict[str, Any] = {
    "two": (2, 1, (FILE,), Limits(starts=4)),
    "three": (3, 1, (FILE,), Limits(starts=3)),
    "parts": (2, 1, (1, 2), Limits(starts=3)),
    "gives": (2, 1, (FILE,), Limits(starts=3, gives=2, copies=1)),
    "breaks": (2, 1, (FILE,), Limits(starts=3, breaks=1)),
    "deaths": (2, 1, (FILE,), Limits(starts=3, deaths=1)),
    "restarts": (2, 1, (FILE,), Limits(starts=3, restarts=1)),
    "inodes": (2, 2, (FILE,), Limits(starts=3)),
}


@pytest.mark.parametrize("name", SCENARIOS)
def test_explored(name: str) -> None:
    clients, inodes, masks, limits = SCENARIOS[name]
    began = time.time()
    result = explore(World(clients, inodes, masks, limits), int(os.environ.get("DEPTH", "100")), 30000)
    print(name, result, time.time() - began)
