"""Chunks with enough copies in the wrong places are counted and found, and only those."""

from __future__ import annotations

import pytest

from metad.copies import misplaced, policies
from metad.copies.misplaced import Found, Places, wanted_places
from metad.copies.placement import Candidate
from metad.copies.policies import Policy
from tests.t2_metad.conftest import World


def place(disk: str, *, server: str = "", rack: str = "", label: str = "") -> Candidate:
    server = server or f"s-{disk}"
    return Candidate(
        disk=disk,
        server_id=server,
        address="",
        rack=rack,
        host=server,
        labels=frozenset([label] if label else []),
    )


def found(world: World, policy: Policy, *places: Candidate, usable: int = 9) -> list[bytes]:
    wanted = {0: wanted_places(policy, places, places[:usable])}
    chunks = [each.chunk for each in misplaced.find(world.db, wanted, 99)]
    assert misplaced.count(world.db, wanted) == len(chunks)
    return chunks


def test_two_copies_in_one_rack(world: World) -> None:
    file = world.make(b"f")
    near = world.live_chunk(file, 0, 1, ("d1", "d2"))
    world.live_chunk(file, 1, 1, ("d1", "d3"))
    world.live_chunk(file, 2, 1, ("d1",))
    racks = [place("d1", rack="a"), place("d2", rack="a"), place("d3", rack="b")]
    assert found(world, Policy(2, 0, "rack"), *racks) == [near]
    assert found(world, Policy(2, 0, "host"), *racks) == []
    assert found(world, Policy(2, 0, "rack"), *racks, usable=2) == [], "there is one rack now"
    assert found(world, Policy(2, 0, "rack"), *racks, usable=0) == []


def test_two_copies_on_one_server(world: World) -> None:
    """A disk was put into another machine."""
    file = world.make(b"f")
    both = world.live_chunk(file, 0, 1, ("d1", "d2"))
    places = [place("d1", server="s"), place("d2", server="s"), place("d3")]
    assert found(world, Policy(2, 0, "host"), *places) == [both]
    one_machine = [
        Candidate(disk=each.disk, server_id=each.server_id, address="", host="h") for each in places
    ]
    assert found(world, Policy(2, 0, "host"), *one_machine) == [both], "of one host, two daemons"


def test_copies_that_are_not_where_the_label_is(world: World) -> None:
    file = world.make(b"f")
    outside = world.live_chunk(file, 0, 1, ("d1", "d2"))
    world.live_chunk(file, 1, 1, ("d2", "d3"))
    places = [place("d1"), place("d2", label="ssd"), place("d3", label="ssd")]
    policy = Policy(2, 0, "host", "ssd")
    assert found(world, policy, *places) == [outside]
    assert found(world, policy, places[0], places[1], place("d3")) == [], "only one can be there"
    assert found(world, policy, places[0], place("d2"), place("d3")) == []


@pytest.mark.parametrize("limit", [1, 2, 3])
def test_as_many_as_one_likes_of_each_policy(world: World, limit: int) -> None:
    with world.db.transaction():
        key = policies.key_of(world.db, Policy(2, 0, "rack"))
    file = world.make(b"f")
    chunks = [world.live_chunk(file, number, 1, ("d1", "d2")) for number in range(2)]
    with world.db.transaction():
        world.db.change("UPDATE chunk SET policy = ? WHERE id = ?", (key, chunks[1]))
    wanted = Places({"d1": ("a", "s1"), "d2": ("a", "s2"), "d3": ("b", "s3")}, 2, 2)
    expected = [Found(chunks[0], 1, 0), Found(chunks[1], 1, key)][:limit]
    assert misplaced.find(world.db, {0: wanted, key: wanted}, limit) == expected
