"""Whose turn it is, of those who wait for one inode."""

from __future__ import annotations

import pytest

from dfswire.messages import Lease
from metad.leases.table import Blocked
from tests.t2_metad.lease_names import ATTR, FILE, Names


@pytest.fixture
def world() -> Names:
    return Names("a", "b", "c")


def test_those_who_wait_go_on_in_their_order(world: Names) -> None:
    lease = world.lease("a", 5)
    assert world.asked("b", 5)
    taker = world.leases.enter("b", {5: FILE}, exclusive=True)
    reader = world.leases.enter("c", {5: ATTR})
    late = world.leases.enter("a", {5: FILE}, exclusive=True)
    world.leases.give_back("a", lease)
    assert world.leases.obstacles("c", {5: ATTR}, reader), "b came first"
    assert isinstance(world.leases.take("a", 5, FILE, late), Blocked)
    assert world.leases.take_if_free("a", 5, FILE) is None
    blocked = world.leases.take("b", 5, FILE, taker)
    assert isinstance(blocked, Blocked) and blocked.announcement is not None
    world.confirm("a")
    assert isinstance(world.leases.take("b", 5, FILE, taker), Lease)
    world.leases.leave(taker)
    world.leases.leave(taker)
    assert world.leases.obstacles("c", {5: ATTR}, reader)
    world.leases.end("b")
    assert world.leases.obstacles("c", {5: ATTR}, reader) is None
    assert isinstance(world.leases.take("a", 5, FILE, late), Blocked), "c is before it"


def test_a_holder_waits_behind_nobody(world: Names) -> None:
    """What it does to give back must not wait for those who wait for that."""
    world.lease("a", 5)
    world.leases.enter("b", {5: FILE}, exclusive=True)
    assert world.leases.obstacles("a", {5: FILE}) is None
    assert world.leases.obstacles("c", {5: FILE})
    assert world.leases.obstacles("b", {6: FILE}) is None


def test_those_who_only_look_do_not_wait_for_each_other(world: Names) -> None:
    world.leases.enter("b", {5: ATTR})
    assert world.leases.obstacles("c", {5: ATTR}) is None


def test_a_turn_keeps_its_place_when_a_name_means_another_inode(world: Names) -> None:
    early = world.leases.enter("a", {5: FILE}, exclusive=True)
    late = world.leases.enter("b", {6: FILE}, exclusive=True)
    world.leases.want(early, {6: FILE})
    assert isinstance(world.leases.take("b", 6, FILE, late), Blocked)
    world.leases.want(early, {7: FILE})
    assert isinstance(world.leases.take("b", 6, FILE, late), Lease)


def test_only_who_wants_something_alone_makes_others_look(world: Names) -> None:
    """Changes wait all the time, and a page of a directory has a thousand entries to look at."""
    leases = world.leases
    leases.enter("b", {5: ATTR})
    assert leases.is_alone("a")
    turn = leases.enter("b", {5: FILE}, exclusive=True)
    assert not leases.is_alone("a")
    leases.want(turn, {6: FILE})
    leases.leave(turn)
    leases.leave(turn)
    assert leases.is_alone("a")
