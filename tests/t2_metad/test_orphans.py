"""Inodes without a name: they live as long as anybody may have them open."""

from __future__ import annotations

import pytest

from tests.t2_metad.lease_names import ATTR, DATA, GONE, Names, change


@pytest.fixture
def world() -> Names:
    return Names("a", "b", "c")


def test_an_orphan_lives_until_the_last_release(world: Names) -> None:
    world.hold("a", 5)
    assert not world.orphans.add(5, "b", held=True)
    assert not world.orphans.release("a", 5)
    assert not world.orphans.release("a", 5)
    assert world.orphans.release("b", 5)
    assert not world.orphans.release("b", 5), "only once"


def test_an_adopted_inode_is_no_orphan_any_more(world: Names) -> None:
    world.hold("a", 7)
    assert not world.orphans.add(7, "a", held=True)
    world.orphans.adopt(7)
    assert not world.orphans.release("a", 7), "late"
    assert world.tell("b", change(7, ATTR)), "what a has cached was not forgotten by it"
    assert world.orphans.end("a") == []


def test_an_orphan_that_nobody_may_have_open_goes_at_once(world: Names) -> None:
    world.hold("b", 5)
    assert world.orphans.add(5, "b", held=False)


def test_who_was_told_to_forget_the_data_may_still_have_the_file_open(world: Names) -> None:
    world.hold("a", 5)
    world.tell("b", change(5, DATA))
    world.confirm("a")
    assert not world.orphans.add(5, "b", held=False)
    assert world.tell("b", change(5, GONE)) == {"a": [change(5, GONE)]}
    assert world.orphans.release("a", 5)


def test_the_end_of_a_session_releases_its_orphans(world: Names) -> None:
    world.orphans.add(5, "a", held=True)
    world.orphans.add(6, "a", held=True)
    world.orphans.add(7, "b", held=True)
    assert world.orphans.end("a") == [5, 6]
    assert world.orphans.end("a") == []


def test_reopening_the_stream_says_what_is_open(world: Names) -> None:
    world.hold("a", 5, 6)
    world.orphans.add(5, "b", held=False)
    world.orphans.add(6, "b", held=False)
    world.leases.connect("a")
    assert world.orphans.reopened("a", [6]) == [5]
    assert world.orphans.release("a", 6)
