"""The checker of attributes that all clients set tells what can be from what cannot."""

from __future__ import annotations

from typing import Any

import pytest

from tests.simulation.history import FOR_EVER, Violation
from tests.simulation.registers import Marking, Register
from tests.simulation.schedule import ABOUT_EVERY, draw

Moments = tuple[int, int, int]  # began, ended, value


def register(settings: list[Moments], *findings: tuple[Any, ...]) -> Register:
    """One that begins with 0.  A finding: when, what, and of whom."""
    return Register(
        "it",
        0,
        [Marking("one", value, began, ended) for began, ended, value in settings],
        [
            Marking(party[0] if party else "two", value, began, ended)
            for began, ended, value, *party in findings
        ],
    )


LOST = (1, FOR_EVER, 7)


@pytest.mark.parametrize(
    "history",
    [
        register([], (1, 2, 0), (3, 4, 0)),
        register([(1, 2, 7)], (3, 4, 7)),
        register([(1, 6, 7)], (2, 3, 0), (4, 5, 7)),
        register([(1, 6, 7), (2, 5, 8)], (7, 8, 7)),  # side by side: any order
        register([(1, 6, 7), (2, 5, 8)], (7, 8, 8)),
        register([(1, 10, 7), (2, 9, 8)], (3, 4, 8), (5, 6, 7)),
        register([LOST], (2, 3, 0), (4, 5, 0)),  # perhaps it never happened
        register([LOST], (2, 3, 0), (4, 5, 7)),
        register([LOST, (2, 3, 8)], (4, 5, 8), (6, 7, 7)),  # nor when
        register([(1, 2, 7)], (3, 4, 7), (1, 4, 0)),  # asked before
        register([(1, 8, 7)], (2, 3, 7), (4, 5, 0, "one"), (9, 10, 7)),  # waits for its answer
    ],
)
def test_what_can_be_is_accepted(history: Register) -> None:
    history.check()


@pytest.mark.parametrize(
    ("history", "why"),
    [
        (register([(1, 2, 7)], (3, 4, 0)), "no order"),  # forgotten
        (register([(1, 2, 7), (3, 4, 8)], (5, 6, 7)), "no order"),  # overwritten
        (register([(3, 4, 7)], (1, 2, 7)), "not set till then"),
        (register([], (1, 2, 9)), "not set till then"),
        (register([(1, 8, 7)], (2, 3, 7), (4, 5, 0)), "no order"),  # back again
        (register([LOST], (2, 3, 7), (4, 5, 0)), "no order"),
        (register([(1, 12, 7), (2, 11, 8)], (3, 4, 8), (5, 6, 7), (7, 8, 8)), "no order"),
        (register([(1, 2, 7), (4, 5, 8)], (3, 4, 7), (6, 7, 7)), "no order"),
        (register([(1, 8, 7)], (2, 3, 7), (9, 10, 0, "one")), "no order"),
    ],
)
def test_what_can_not_be_is_refused(history: Register, why: str) -> None:
    with pytest.raises(Violation, match=why):
        history.check()


def test_a_seventh_of_the_seeds_is_about_them() -> None:
    seeds = [seed for seed in range(3 * ABOUT_EVERY) if draw(seed).about == "marks"]
    assert seeds == [4, 11, 18]
    kinds = {step.kind for seed in seeds for steps in draw(seed).steps for step in steps}
    assert kinds == {"chmod", "resize", "tag", "dab", "glance"}
