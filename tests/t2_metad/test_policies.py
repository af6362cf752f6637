"""Policies: the default as the settings state it, those of directories, and which is followed."""

from __future__ import annotations

import pytest

from dfswire.errors import InputOutput
from dfswire.messages import ROOT_INODE
from dfswire.operations import Link, Unlink
from metad.copies import policies
from metad.copies.placement import Candidate
from metad.copies.policies import DEFAULT_KEY, Policy, settle
from metad.operators.policycalls import shortcomings
from metad.storage.database import Database
from tests.t2_metad.conftest import World

TWO = Policy(2, 4 << 20)
THREE = Policy(3, 0)
RACKS = Policy(2, 0, "rack")
FAST = Policy(2, 0, "host", "ssd")


def rows(db: Database) -> list[tuple[object, ...]]:
    return [(*row,) for row in db.read("SELECT * FROM policy")]


def give(world: World, directory: int, policy: Policy) -> int:
    """The key of what the directory has from now on."""
    with world.db.transaction():
        key = policies.key_of(world.db, policy)
        policies.assign(world.db, directory, key)
    return key


def test_the_default_is_what_the_settings_state(db: Database) -> None:
    assert settle(db, TWO).default == TWO
    assert rows(db) == [(0, *TWO)]
    assert settle(db, Policy(3, 1 << 20)).of(DEFAULT_KEY) == Policy(3, 1 << 20)
    assert rows(db) == [(0, 3, 1 << 20, "apart", "")]


def test_the_same_again_writes_nothing(db: Database) -> None:
    settle(db, TWO)
    before = db.read_one("SELECT total_changes()")
    settle(db, TWO)
    assert db.read_one("SELECT total_changes()") == before


def test_equal_policies_have_one_key_but_never_that_of_the_default(world: World) -> None:
    known = settle(world.db, TWO)
    with world.db.transaction():
        keys = [policies.key_of(world.db, each) for each in (TWO, THREE, TWO, RACKS)]
    assert keys[0] == keys[2] != DEFAULT_KEY
    assert len(set(keys)) == 3
    assert [known.of(key) for key in keys] == [TWO, THREE, TWO, RACKS]
    assert len(known.all()) == 1
    known.refresh()
    assert set(known.all()) == {DEFAULT_KEY, *keys}
    with pytest.raises(InputOutput):
        known.of(99)


def test_the_nearest_directory_decides(world: World) -> None:
    a = world.mkdir(b"a")
    b = world.mkdir(b"b", a)
    c = world.mkdir(b"c", b)
    file = world.make(b"f", c)
    assert policies.of_directory(world.db, c) == (DEFAULT_KEY, 0)
    assert policies.of_file(world.db, file) == DEFAULT_KEY
    root = give(world, ROOT_INODE, RACKS)
    assert policies.of_directory(world.db, c) == (root, ROOT_INODE)
    near = give(world, b, THREE)
    assert policies.of_directory(world.db, c) == (near, b)
    assert policies.of_directory(world.db, a) == (root, ROOT_INODE)
    assert policies.of_file(world.db, file) == near
    with world.db.transaction():
        assert policies.unassign(world.db, b)
        assert not policies.unassign(world.db, b)
    assert policies.of_file(world.db, file) == root


@pytest.mark.parametrize(
    ("one", "other"), [(THREE, RACKS), (THREE, FAST), (RACKS, FAST), (FAST, TWO), (RACKS, TWO)]
)
def test_a_file_with_names_in_two_places_follows_the_strictest(
    world: World, one: Policy, other: Policy
) -> None:
    places = [world.mkdir(name) for name in (b"one", b"other")]
    keys = [give(world, *each) for each in zip(places, (one, other), strict=True)]
    file = world.make(b"f", places[0])
    world.do(Link(inode=file, parent=places[1], name=b"g"))
    assert policies.of_file(world.db, file) == keys[0]
    world.do(Unlink(parent=places[0], name=b"f"))
    assert policies.of_file(world.db, file) == keys[1]
    assert policies.strictest(world.db, []) == DEFAULT_KEY
    world.do(Unlink(parent=places[1], name=b"g"))
    assert policies.of_file(world.db, file) == DEFAULT_KEY


def test_what_is_written_follows_its_directory_at_once(world: World) -> None:
    directory = world.mkdir(b"d")
    file = world.make(b"f", directory)
    before = world.live_chunk(file)
    key = give(world, directory, THREE)
    after = world.live_chunk(file, offset=100)
    assert [world.chunk(each).policy for each in (before, after)] == [DEFAULT_KEY, key]


def test_servers_on_one_host_can_do_what_names_no_domain() -> None:
    """As after `dfs up`; who names a domain is told."""
    there = [Candidate(f"d{n}", f"s{n}", f"a:{n}", host="h") for n in range(3)]
    assert shortcomings(there, Policy(3, 0)) == []
    assert shortcomings(there, Policy(4, 0)) == ["4 copies need as many servers, there are 3"]
    (reason,) = shortcomings(there, Policy(2, 0, "host"))
    assert reason == "2 copies need as many hosts, there are 1"
