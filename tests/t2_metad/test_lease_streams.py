"""Leases when streams are opened again, and after restarts of metad."""

from __future__ import annotations

import pytest

from dfswire.messages import Lease
from metad.leases.table import Blocked
from tests.t2_metad.lease_names import ATTR, FILE, Names, change


@pytest.fixture
def world() -> Names:
    return Names("a", "b", "c")


def test_on_a_new_stream_the_session_is_asked_again(world: Names) -> None:
    asked, used, unused = world.lease("a", 5), world.lease("a", 6), world.lease("a", 7)
    world.asked("b", 5, ATTR)
    unknown = Lease(inode=8, parts=FILE, number=1)
    again = world.leases.connect("a", [asked, used, unknown])
    assert again.recalls == {
        "a": [Lease(inode=5, parts=ATTR, number=asked.number), unused, unknown],
    }
    assert not world.may_tell("b", 6) and not world.may_tell("b", 7), "nothing was dropped"
    assert world.may_tell("b", 8)
    assert again.announcement is not None
    assert again.announcement.tell == {"a": [change(8, FILE)]}
    assert isinstance(world.take("b", 8), Blocked), "a may still believe that it has it"
    world.confirm("a")
    world.lease("b", 8)
    assert world.leases.connect("b", [world.lease("b", 8)]) == Blocked()


def test_an_unsynced_session_counts_as_having_everything() -> None:
    world = Names("old", synced=False)
    leases = world.leases
    assert not world.orphans.load(5)
    leases.open("new", 0.0)
    assert leases.unsynced() == ["old"]
    assert set(world.tell("new", change(9, ATTR))) == {"old"}
    assert not world.may_tell("new", 9), "it may have it exclusively"
    assert leases.obstacles("new", {}) is None, "there is nothing to contradict"
    assert world.may_tell("old", 9), "its own"
    assert isinstance(world.take("new", 9), Blocked)
    assert isinstance(world.take("old", 9), Blocked), "it can't be recalled without a stream"
    world.hold("new", 9)
    assert leases.take_if_free("new", 9, FILE) is None
    assert not world.orphans.add(6, "new", held=False)
    leases.connect("old")
    assert sorted(world.orphans.reopened("old", [])) == [5, 6]
    assert not world.tell("new", change(8, ATTR))
    assert world.may_tell("new", 9)
    assert world.orphans.load(8), "nobody is left who might have it"


def test_leases_of_an_earlier_metad_are_adopted() -> None:
    world = Names("a", "b", synced=False)
    lease = Lease(inode=5, parts=FILE, number=50)
    assert world.leases.connect("a", [lease]) == Blocked()
    world.leases.connect("b")
    assert world.asked("b", 5, FILE) == {"a": [lease]}
    assert world.leases.give_back("a", lease)
    world.confirm("a")


def test_of_two_who_claim_a_lease_the_later_grant_is_right() -> None:
    """The other gave it back, and did not hear that metad had heard."""
    for first, second in (("a", "b"), ("b", "a")):
        world = Names("a", "b", "c", synced=False)
        claims = {
            "a": Lease(inode=5, parts=FILE, number=150),
            "b": Lease(inode=5, parts=FILE, number=151),
        }
        blocked = [world.leases.connect(each, [claims[each]]) for each in (first, second)]
        world.leases.connect("c")
        recalled = {"a": [claims["a"]]} if second == "a" else {}
        assert [each.recalls for each in blocked] == [{}, recalled]
        assert world.asked("c", 5, FILE) == {"b": [claims["b"]]}
        assert not world.leases.give_back("a", claims["a"])
        assert world.leases.give_back("b", claims["b"])
        assert world.lease("c", 6).number > 151
