"""The checker of the file that all write tells what can be from what cannot."""

from __future__ import annotations

from typing import Any

import pytest

from tests.simulation.board import NAME, NOBODYS, Board, Look
from tests.simulation.history import FOR_EVER, Change, Value, Violation, pattern
from tests.simulation.schedule import ABOUT_EVERY, CELL_BYTES, CELLS, draw


def change(began: int, ended: int, value: Value, *, done: bool = True) -> Change:
    return Change({0: value}, began, ended, done=done)


def board(changes: list[Change], *looks: tuple[Any, ...]) -> Board:
    """Of cell 0; nothing is in the others.  A look: when, what, and of whom."""
    found = dict.fromkeys(CELLS)
    return Board(
        changes=changes,
        looks=[
            Look(began, ended, found | {0: value}, *(party or ["one"]))
            for began, ended, value, *party in looks
        ],
    )


LOST = change(1, FOR_EVER, 7, done=False)


@pytest.mark.parametrize(
    "history",
    [
        board([change(1, 2, 7)], (3, 4, 7)),
        board([change(1, 4, 7)], (2, 3, None), (5, 6, 7)),
        board([change(1, 4, 7)], (2, 3, 7)),
        board([change(1, 6, 7), change(2, 5, 8)], (7, 8, 7)),  # side by side: any order
        board([change(1, 6, 7), change(2, 5, 8)], (7, 8, 8)),
        board([LOST], (2, 3, 7), (4, 5, None)),  # was buffered, and its client died
        board([LOST, change(4, 5, 8)], (6, 7, 7)),  # nobody knows when it happened
        board([change(1, 2, 7), change(3, 4, None)], (5, 6, None)),  # a truncation
        board([change(1, 2, 7), change(3, 9, 8)], (4, 7, 8), (5, 8, 7)),
        board([change(1, 2, 7), change(3, 9, 8)], (4, 5, 8), (6, 7, 7, "another")),
    ],
)
def test_what_can_be_is_accepted(history: Board) -> None:
    history.check()


@pytest.mark.parametrize(
    ("history", "why"),
    [
        (board([change(1, 2, 7)], (3, 4, None)), "overwritten"),
        (board([change(1, 2, 7), change(3, 4, 8)], (5, 6, 7)), "overwritten"),
        (board([change(1, 2, 7), change(3, 4, None)], (5, 6, 7)), "overwritten"),
        (board([change(3, 4, 7)], (1, 2, 7)), "finds write 7"),  # not written yet
        (board([], (1, 2, NOBODYS)), "finds write -1"),
        (board([change(1, 2, 7), change(3, 9, 8)], (4, 5, 8), (6, 7, 7)), "something newer"),
        (board([change(1, 9, 7)], (2, 3, 7), (4, 5, None)), "something newer"),
        (board([change(1, 2, 7), change(3, 9, 8)], (4, 5, 8), (4, 6, 7), (7, 8, 7)), "newer"),
    ],
)
def test_what_can_not_be_is_refused(history: Board, why: str) -> None:
    with pytest.raises(Violation, match=why):
        history.check()


def test_what_is_read_is_told_apart() -> None:
    empty = Board(changes=[Change({0: 7, 1: 7, 2: 7}, 1)])
    data = pattern(NAME, 7, 0) + bytes(CELL_BYTES) + pattern(NAME, 8, 2)
    empty.note(data, 2, 3, "one")
    (look,) = empty.looks
    assert [look.found[cell] for cell in (0, 1, 2, 3)] == [7, None, NOBODYS, None]


def test_a_seventh_of_the_seeds_is_about_it() -> None:
    seeds = [seed for seed in range(3 * ABOUT_EVERY) if draw(seed).about == "board"]
    assert seeds == [1, 8, 15]
    kinds = {step.kind for seed in seeds for steps in draw(seed).steps for step in steps}
    assert kinds == {"scribble", "shorten", "punch", "peek"}
