"""metad/leases under every order of events that a small world allows; see lease_model.py.

Each scenario is a world with few clients, few operations and one kind of fault.  All histories are
tried, the short ones first; two that lead to equal worlds go on as one.  By default up to
STATES_MAX different worlds of each are seen (about 15 s together), with DFS_EXPLORE_STATES=100000
as many, and most of the scenarios to their end.

That this finds faults is tested too, with some put in by hand.  It has found real ones: a holder
was told to forget what it has exclusively; a session that reopened its stream was thought to have
forgotten a lease whose commit, which gives it back, it had not heard of; such a commit repeated
after a restart did not give anything back; and two clients that take a lease again when a recall
has overtaken the answer could do so for ever (the rule for clients is now: write through instead).
"""

from __future__ import annotations

import os
import pickle
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

from dfswire.messages import Invalidation, Lease
from metad.leases.changes import Change, Changes
from metad.leases.table import Announcement, Blocked, Leases
from metad.leases.turns import Turn
from tests.t2_metad.lease_key import key
from tests.t2_metad.lease_model import World
from tests.t2_metad.lease_world import Limits, Step, Wrong

STATES_MAX = int(os.environ.get("DFS_EXPLORE_STATES", "4000"))
DRAIN_STEPS_MAX = 100
DRAINED_EVERY = 16  # of the worlds

Scenario = dict[str, Any]
SCENARIOS: dict[str, Scenario] = {
    "two clients": {"limits": Limits(starts=4)},
    "three clients": {"limits": Limits(starts=3, flushes=0), "clients": 3},
    "two inodes": {"limits": Limits(starts=3, flushes=0), "inodes": 2},
    "parts": {"limits": Limits(starts=3), "masks": (1, 2)},
    "slow commits": {"limits": Limits(starts=3, slow=2)},
    "late messages": {"limits": Limits(starts=3, gives=1, copies=1)},
    "streams break": {"limits": Limits(starts=2, breaks=1)},
    "a stream breaks while a lease is given back": {
        "limits": Limits(starts=2, breaks=1),
        "before": [
            ("write", "b", 1, 3),
            ("change", "a", 1, 3, False),
            ("serve", 1),
            ("reply", 1),
            ("flush", "b", 1, True),
            ("serve", 3),
        ],
    },
    "a client dies": {"limits": Limits(starts=3, deaths=1), "clients": 2},
    "metad restarts": {"limits": Limits(starts=2, restarts=1, slow=1)},
}


class Found(AssertionError):
    """What broke, and how it came to that."""


def explore(scenario: Scenario, states_max: int, kind: type[Leases] = Leases) -> int:
    """Every history, until so many different worlds were seen; how many.  Raises Found."""
    options = scenario | {"limits": replace(scenario["limits"]), "kind": kind}
    before = options.pop("before", ())
    world = World(**options)
    for step in before:
        world.do(step)
    seen = {hash(key(world))}
    origins: list[tuple[int, Step]] = [(-1, ())]
    todo = deque([(0, pickle.dumps(world, -1))])
    while todo and len(seen) < states_max:
        index, frozen = todo.popleft()
        here: World = pickle.loads(frozen)
        necessary = len(list(here.necessary()))
        goes_on = False
        for number, step in enumerate(here.steps()):
            there: World = pickle.loads(frozen)
            with explained(origins, index, step):
                there.do(step)
            place = hash(key(there))
            if place in seen:
                goes_on = goes_on or (number < necessary and place != hash(key(here)))
                continue
            goes_on = goes_on or number < necessary
            seen.add(place)
            origins.append((index, step))
            twin = pickle.dumps(there, -1)
            todo.append((len(origins) - 1, twin))
            if len(seen) % DRAINED_EVERY == 0:
                with explained(origins, index, step):
                    drain(pickle.loads(twin))
        if not goes_on and not here.is_settled():
            raise Found(f"nobody goes on after\n{history(origins, index)}")
    return len(seen)


@contextmanager
def explained(origins: list[tuple[int, Step]], index: int, step: Step) -> Iterator[None]:
    """Turns Wrong into Found, with the history."""
    try:
        yield
    except Wrong as problem:
        raise Found(f"{problem} after\n{history(origins, index, step)}") from problem


def drain(world: World) -> None:
    """Nothing new is begun: in the end nobody waits.  Raises Wrong."""
    done: list[Step] = []
    for _ in range(DRAIN_STEPS_MAX):
        steps = list(world.necessary())
        # In turn, so that those who only try again in vain do not keep the others waiting.
        for step in steps:
            if step in list(world.necessary()):
                done.append(step)
                try:
                    world.do(step)
                except Wrong as problem:
                    raise Wrong(f"{problem} if all goes on with {done[-30:]}") from problem
        if world.is_settled():
            return
    raise Wrong(f"somebody waits for ever, after {done[-30:]}")


def history(origins: list[tuple[int, Step]], index: int, last: Step = ()) -> str:
    steps = [last] if last else []
    while index > 0:
        index, step = origins[index]
        steps.append(step)
    return "\n".join(f"    {each}" for each in reversed(steps))


@pytest.mark.parametrize("name", SCENARIOS)
def test_no_order_of_events_breaks_a_promise(name: str) -> None:
    print(f"{name}: {explore(SCENARIOS[name], STATES_MAX)} worlds")


# Faults put in by hand, each with the scenario that finds it.


class GrantsBeforeOthersHaveForgotten(Leases):
    """A sharer is told to forget, but not waited for."""

    def _is_free(self, session: str, inode: int, parts: int) -> bool:
        return not self._exclusives.contradicts(session, {inode: parts})


class GrantsWithoutLookingAgain(Leases):
    """When the sharers have forgotten, that somebody has a lease by now is overlooked."""

    def take(
        self,
        session: str,
        inode: int,
        parts: int,
        turn: Turn | None,
    ) -> Lease | Blocked:
        outcome = super().take(session, inode, parts, turn)
        if isinstance(outcome, Blocked) and turn is not None and not outcome.recalls:
            return self._exclusives.grant(session, inode, parts)
        return outcome


class GrantsDuringAChange(Leases):
    """A change that was executed but not announced is overlooked."""

    def _is_free(self, session: str, inode: int, parts: int) -> bool:
        changes, self.changes = self.changes, Changes()
        try:
            return super()._is_free(session, inode, parts)
        finally:
            self.changes = changes


class ChangesBeforeOthersHaveForgotten(Leases):
    """Others are told when it has happened, as it was once: one sees it, another does not yet."""

    def foretell(self, change: Change, invalidations: Iterable[Invalidation]) -> None:
        return None


class LetsAnswersBeKept(Leases):
    """Who asks about what is going to change is not told that it must not keep the answer."""

    def foretell(
        self, change: Change, invalidations: Iterable[Invalidation]
    ) -> Announcement | None:
        announcement = super().foretell(change, invalidations)
        self.changes.end(change)
        return announcement


class GrantsWhatOthersShare(Leases):
    """A lease comes with an answer although somebody else has the inode in his cache."""

    def take_if_free(self, session: str, inode: int, parts: int) -> Lease | None:
        if self._unsynced or self._exclusives.contradicts(session, {inode: parts}):
            return None
        return self._exclusives.grant(session, inode, parts)


class TakesBackByAnyNumber(Leases):
    """A late message about an earlier lease ends the present one."""

    def give_back(self, session: str, lease: Lease) -> bool:
        held = self._exclusives._of_inode.get(lease.inode, {}).get(session)
        if held is None:
            return False
        return super().give_back(
            session, Lease(inode=lease.inode, parts=lease.parts, number=held.number)
        )


class ForgetsLeasesOfAReopenedStream(Leases):
    """What the client says that it uses counts only after a restart."""

    def connect(self, session: str, used: Sequence[Lease] = ()) -> Blocked:
        self._exclusives.end(session)
        return super().connect(session, [])


class DoesNotRecallAgain(Leases):
    """A recall that was lost with its stream is not repeated."""

    def connect(self, session: str, used: Sequence[Lease] = ()) -> Blocked:
        return replace(super().connect(session, used), recalls={})


class BelievesThatAllIsForgotten(Leases):
    """What is claimed without right on a new stream is taken for forgotten."""

    def connect(self, session: str, used: Sequence[Lease] = ()) -> Blocked:
        return replace(super().connect(session, used), announcement=None)


class MixesUpParts(Leases):
    """Attributes are guarded by the lease on data, and the other way round."""

    def obstacles(
        self, session: str, wanted: Mapping[int, int], turn: Turn | None = None
    ) -> Blocked | None:
        swapped = {inode: (parts & 1) << 1 | parts >> 1 for inode, parts in wanted.items()}
        return super().obstacles(session, swapped, turn)


class TellsOnce(Leases):
    """Who was told to forget and has not confirmed is not waited for by the next change.

    So it was before there were exclusive leases.
    """

    def _tell(
        self, changes: list[Invalidation], by_session: str, untold: Callable[..., Any]
    ) -> Announcement:
        announcement = super()._tell(changes, by_session, untold)
        for session in self:
            session.telling.clear()
        return announcement


class DoesNotWaitAfterARestart(Leases):
    """Sessions that have not come back yet are thought to have nothing exclusively."""

    def obstacles(
        self, session: str, wanted: Mapping[int, int], turn: Turn | None = None
    ) -> Blocked | None:
        unsynced, self._unsynced = self._unsynced, set()
        try:
            return super().obstacles(session, wanted, turn)
        finally:
            self._unsynced = unsynced


class DoesNotAdopt(Leases):
    """The leases of an earlier metad are forgotten."""

    def connect(self, session: str, used: Sequence[Lease] = ()) -> Blocked:
        if session in self._unsynced:
            return super().connect(session, [])
        return super().connect(session, used)


class KeepsLeasesOfTheDead(Leases):
    """A session that ends takes its leases with it into the grave."""

    def end(self, session: str) -> list[int]:
        self._sessions.pop(session, None)
        return []


FAULTS: dict[type[Leases], str] = {
    GrantsBeforeOthersHaveForgotten: "two clients",
    GrantsWithoutLookingAgain: "three clients",
    GrantsDuringAChange: "slow commits",
    ChangesBeforeOthersHaveForgotten: "three clients",
    LetsAnswersBeKept: "two clients",
    GrantsWhatOthersShare: "two clients",
    TakesBackByAnyNumber: "late messages",
    ForgetsLeasesOfAReopenedStream: "streams break",
    DoesNotRecallAgain: "streams break",
    BelievesThatAllIsForgotten: "a stream breaks while a lease is given back",
    MixesUpParts: "parts",
    TellsOnce: "three clients",
    DoesNotWaitAfterARestart: "metad restarts",
    DoesNotAdopt: "metad restarts",
    KeepsLeasesOfTheDead: "a client dies",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_put_in_by_hand_is_found(fault: type[Leases]) -> None:
    with pytest.raises(Found):
        explore(SCENARIOS[FAULTS[fault]], 200_000, fault)
