"""The table of locks against the model of lock_model.py: random histories, and all short ones."""

from __future__ import annotations

from collections import deque
from itertools import permutations
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from dfswire.locks import LockKind, LockType
from metad.locks.space import Owner
from tests.t2_metad.lock_model import BYTES, FLOCK, POSIX, READ, A, B, C, Model, Place

Move = tuple[str, int, Place, LockType]  # what, the number of the owner, where, how


def moves(owners: list[Owner], places: list[Place]) -> list[Move]:
    return [
        *(
            ("ask", who, place, kind)
            for who in range(len(owners))
            for place in places
            for kind in LockType
        ),
        *(("cancel", who, places[0], READ) for who in range(len(owners))),
        *(("end", who, places[0], READ) for who in range(len(owners))),
    ]


def play(owners: list[Owner], history: tuple[Move, ...]) -> Model | None:
    """The model after a history; None when its last move can't be made."""
    model = Model()
    for what, who, place, kind in history:
        owner = owners[who]
        mine = [each for each in model.waiting if each.owner == owner]
        if what == "cancel":
            if not mine:
                return None
            model.cancel(mine[0])
        elif what == "end":
            model.end_session(owner.session)
        elif mine:  # it waits, so it can't do anything else
            return None
        else:
            model.ask(place, owner, kind)
    return model


def state_of(model: Model, owners: list[Owner], inodes: int) -> Any:
    """The same for states that differ only in the names of owners and files."""
    return min(
        _named(model, dict(zip(owners, others, strict=True)), files)
        for others in permutations(range(len(owners)))
        for files in permutations(range(inodes))
    )


def _named(model: Model, names: dict[Owner, int], files: tuple[int, ...]) -> Any:
    held = sorted(
        (files[place[0] - 1], names[owner], sorted(each.items()))
        for (place, owner), each in model.held.items()
        if each
    )
    waiting = [
        (files[each.inode - 1], names[each.owner], each.wanted.type) for each in model.waiting
    ]
    return held, waiting


@pytest.mark.parametrize("kind", LockKind)
@pytest.mark.parametrize(("owners", "inodes"), [([A, B], 2), ([A, B, C], 1), ([A, B, C], 2)])
def test_all_histories_of_few_owners(kind: LockKind, owners: list[Owner], inodes: int) -> None:
    """Every state that can be reached is entered once, and from each of them all can finish."""
    places = [(inode + 1, kind) for inode in range(inodes)]
    seen = {repr(state_of(Model(), owners, inodes))}
    todo: deque[tuple[Move, ...]] = deque([()])
    while todo:
        history = todo.popleft()
        for move in moves(owners, places):
            if (model := play(owners, (*history, move))) is None:
                continue
            state = repr(state_of(model, owners, inodes))
            if state in seen:
                continue
            seen.add(state)
            model_finishes(model, kind)
            todo.append((*history, move))
    assert len(seen) > 10 * inodes


def model_finishes(model: Model, kind: LockKind) -> None:
    """Whoever does not wait unlocks everything; flocks may be in a deadlock that is their own."""
    if kind == POSIX or not any(
        request.owner in model.waited_for(request) for request in model.waiting
    ):
        model.finish()


# Random histories


class Histories(RuleBasedStateMachine):
    """Ranges of a few bytes, two files, both kinds of locks, and owners that may wait."""

    owners = st.sampled_from([A, B, C, Owner("a", 4), Owner("b", 5)])
    places = st.sampled_from([(1, POSIX), (1, POSIX), (2, POSIX), (1, FLOCK)])

    def __init__(self) -> None:
        super().__init__()
        self.model = Model()

    @rule(
        place=places,
        owner=owners,
        kind=st.sampled_from(LockType),
        first=st.integers(0, BYTES - 1),
        second=st.integers(0, BYTES - 1),
        wait=st.booleans(),
    )
    def ask(
        self, place: Place, owner: Owner, kind: LockType, first: int, second: int, wait: bool
    ) -> None:
        if any(each.owner == owner for each in self.model.waiting):
            return
        start, end = sorted((first, second)) if place[1] == POSIX else (0, BYTES - 1)
        self.model.ask(place, owner, kind, start, end, wait=wait)

    @precondition(lambda self: self.model.waiting)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        self.model.cancel(data.draw(st.sampled_from(self.model.waiting)))

    @rule(session=st.sampled_from("abc"))
    def end(self, session: str) -> None:
        self.model.end_session(session)

    def teardown(self) -> None:
        model_finishes(self.model, FLOCK)


TestHistories = Histories.TestCase
TestHistories.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
