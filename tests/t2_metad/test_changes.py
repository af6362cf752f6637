"""Changes of which everybody is told before they are executed: who is told what, and what may be
kept meanwhile.

test_leases_explored.py tries every order of this; test_foretold.py a metad that does it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import pytest

from dfswire.messages import Invalidation
from metad.leases.changes import Change
from metad.leases.table import NAMES, Blocked
from tests.t2_metad.lease_names import (
    ALL_NAMES,
    ATTR,
    DATA,
    FILE,
    GONE,
    NAME,
    Names,
    change,
)

Told = dict[str, list[Invalidation]] | None
Places = Mapping[int, Collection[bytes]]
ALL: Places = {}


@pytest.fixture
def world() -> Names:
    return Names("a", "b", "c")


def foretell(world: Names, own: Change, *changes: Invalidation) -> Told:
    announcement = world.leases.foretell(own, changes)
    return None if announcement is None else announcement.tell


def executed(world: Names, own: Change, *changes: Invalidation) -> dict[str, list[Invalidation]]:
    world.leases.changes.end(own)
    return world.leases.invalidate(changes, own.session, own).tell


def fleeting(
    world: Names, session: str, *inodes: int, parts: int = FILE, names: Places = ALL
) -> tuple[list[int], list[int]]:
    found = world.leases.changes.fleeting(session, dict.fromkeys(inodes, parts), names)
    return found.attributes, found.names


def hold(world: Names, session: str, inode: int, *, parts: int = FILE, names: Places = ALL) -> None:
    told = {inode: parts}
    world.leases.hold(session, told, world.leases.changes.fleeting(session, told, names))


def test_nobody_is_told_when_nobody_has_anything(world: Names) -> None:
    world.hold("a", 5)
    own = Change("a")
    assert foretell(world, own, change(5, FILE)) is None
    assert world.leases.changes.by_others("b", 5), "it may ask before the commit"
    assert executed(world, own, change(5, FILE)) == {}
    assert not world.leases.changes


def test_holders_are_told_once(world: Names) -> None:
    world.hold("b", 5)
    world.hold("b", 1, parts=NAMES)
    own, changes = Change("a"), (change(5, FILE), change(1, NAME, b"x"))
    assert foretell(world, own, *changes) == {"b": [*changes]}
    world.confirm("b")
    assert foretell(world, own, *changes) is None, "though it still has other names"
    assert executed(world, own, *changes) == {}


def test_what_turns_out_to_change_too_is_told_then(world: Names) -> None:
    world.hold("b", 5, 6)
    own = Change("a")
    assert foretell(world, own, change(5, ATTR))
    world.confirm("b")
    assert foretell(world, own, change(5, ATTR), change(6, ATTR)) == {"b": [change(6, ATTR)]}
    assert executed(world, own, change(6, ATTR)) == {}, "what was told is told, confirmed or not"


def test_until_it_is_executed_nobody_else_may_keep_an_answer(world: Names) -> None:
    leases = world.leases
    world.hold("b", 5)
    own = Change("a")
    foretell(world, own, change(5, ATTR))
    assert fleeting(world, "a", 5, 6) == ([], [])
    assert fleeting(world, "c", 5, 6) == ([5], [])
    for session in "bc":
        hold(world, session, 5, parts=ATTR)
    world.confirm("b")
    assert foretell(world, own, change(5, ATTR)) is None, "they asked, and have nothing of it"
    assert executed(world, own, change(5, ATTR)) == {}
    leases.changes.end(own)
    assert fleeting(world, "c", 5) == ([], []) and not leases.changes


def test_who_asks_meanwhile_may_open_it(world: Names) -> None:
    world.hold("b", 5)
    own = Change("a")
    foretell(world, own, change(5, ATTR | GONE))
    hold(world, "c", 5)
    assert executed(world, own, change(5, ATTR | GONE)) == {
        "b": [change(5, GONE)],
        "c": [change(5, ATTR | GONE)],
    }


def test_data_may_be_kept_and_is_told_of_afterwards(world: Names) -> None:
    world.hold("b", 5)
    own = Change("a")
    assert foretell(world, own, change(5, FILE)) == {"b": [change(5, FILE)]}
    world.hold("c", 5)
    world.confirm("b")
    assert foretell(world, own, change(5, FILE)) == {"c": [change(5, FILE)]}
    world.confirm("c")
    world.hold("b", 5)
    assert foretell(world, own, change(5, FILE)) is None, "or readers could go on for ever"
    assert executed(world, own, change(5, FILE)) == {"b": [change(5, DATA)]}


def test_two_changes_do_not_wait_for_each_other(world: Names) -> None:
    world.hold("c", 5)
    first, second = Change("a"), Change("b")
    assert foretell(world, first, change(5, ATTR))
    assert foretell(world, second, change(5, ATTR)), "c has not confirmed the first"
    assert foretell(world, first, change(5, ATTR)) is None
    assert executed(world, first, change(5, ATTR)) == {}
    assert fleeting(world, "a", 5) == ([5], []), "the other is still to come"
    assert foretell(world, second, change(5, ATTR)) is None


def test_nothing_that_is_about_to_change_is_leased(world: Names) -> None:
    leases = world.leases
    world.hold("b", 5)
    own = Change("a")
    foretell(world, own, change(5, ATTR))
    world.confirm("b")
    assert isinstance(world.take("b", 5), Blocked)
    leases.changes.end(own)
    world.hold("b", 5)
    other = Change("a")
    leases.changes.add(other, [change(5, ATTR)])
    assert leases.take_if_free("b", 5, FILE) is None
    leases.changes.end(other)
    assert leases.take_if_free("b", 5, FILE)


def test_of_a_directory_only_the_names_that_change_are_fleeting(world: Names) -> None:
    own = Change("a")
    foretell(world, own, change(1, ATTR), change(1, NAME, b"x"), change(1, NAME, b"y"))
    assert fleeting(world, "b", 1, parts=NAMES, names={1: [b"z"]}) == ([], [])
    assert fleeting(world, "b", 1, parts=NAMES, names={1: [b"z", b"y"]}) == ([], [1])
    assert fleeting(world, "b", 1, parts=ATTR | NAMES) == ([1], [1]), "a listing"
    world.leases.changes.end(own)
    foretell(world, own, change(1, ALL_NAMES))
    assert fleeting(world, "b", 1, parts=NAMES, names={1: [b"z"]}) == ([], [1])
    assert fleeting(world, "b", 1, parts=ATTR) == ([], [])


def test_who_asks_for_other_names_meanwhile_is_told_but_once(world: Names) -> None:
    own = Change("a")
    assert foretell(world, own, change(1, NAME, b"x")) is None
    hold(world, "b", 1, parts=NAMES, names={1: [b"z"]})
    assert foretell(world, own, change(1, NAME, b"x")) == {"b": [change(1, NAME, b"x")]}
    hold(world, "b", 1, parts=NAMES, names={1: [b"z"]})
    assert foretell(world, own, change(1, NAME, b"x")) is None
    assert executed(world, own, change(1, NAME, b"x")) == {}
