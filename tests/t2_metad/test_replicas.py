"""Redundancy as metad counts it, and the end of chunks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from dfswire import errors
from dfswire.status import ChunkTotals
from metad.copies import contents, redundancy, replicas
from metad.hosts import machines

if TYPE_CHECKING:
    from tests.t2_metad.conftest import World

ALL = ["d1", "d2", "d3"]


def mark(world: World, chunk: bytes, disk: str, state: str) -> None:
    with world.db.transaction():
        replicas.set_replica(world.db, chunk, disk, state)


def test_totals_of_an_empty_cluster(world: World) -> None:
    assert redundancy.totals(world.db, ALL, {0: 2}) == ChunkTotals(
        total=0, bytes=0, under_replicated=0, lost=0, by_replicas=[]
    )


def test_totals_and_endangered_follow_disks_and_replicas(world: World) -> None:
    file = world.make(b"f")
    both = world.live_chunk(file, 0, 10, ("d1", "d2"))
    one = world.live_chunk(file, 10, 10, ("d2", "d3"))
    three = world.live_chunk(file, 20, 5, ("d1", "d2", "d3"))
    world.live_chunk(file, 25, 5, ("d1", "d3"))
    world.live_chunk(file, 25, 5, ("d1", "d3"))  # the one before is dead now
    mark(world, one, "d3", "bad")
    assert redundancy.totals(world.db, ALL, {0: 2}) == ChunkTotals(
        total=4,
        bytes=30,
        under_replicated=1,
        lost=0,
        by_replicas=[0, 1, 2, 1],
        pending_delete=1,
    )
    assert redundancy.endangered(world.db, ALL, {0: 2}, 10) == ([one], 1, 10, 0)
    rows = [("d2", "good"), ("d3", "bad")]
    assert redundancy.load_endangered(world.db, one) == (one, 10, b"d" * 16, 0, rows)
    without_d2 = redundancy.totals(world.db, ["d1", "d3"], {0: 2})
    assert without_d2.by_replicas == [1, 1, 2]
    assert (without_d2.under_replicated, without_d2.lost) == (2, 1)
    found = redundancy.endangered(world.db, ["d1", "d3"], {0: 2}, 10)
    assert found.urgent == [both]
    found = redundancy.endangered(world.db, ["d1", "d3"], {0: 3}, 10)
    assert found.urgent[0] == both
    assert three in found.urgent
    assert len(redundancy.endangered(world.db, ["d1", "d3"], {0: 3}, 1).urgent) == 1
    assert redundancy.totals(world.db, [], {0: 2}).lost == 4


def test_replicas_on_a_failed_disk_do_not_count(world: World) -> None:
    chunk = world.live_chunk(world.make(b"f"))
    with world.db.transaction():
        machines.set_disk_failed(world.db, "d1", True)
    assert redundancy.totals(world.db, ALL, {0: 2}).by_replicas == [0, 1]
    assert redundancy.endangered(world.db, ALL, {0: 2}, 9).urgent == [chunk]
    with world.db.transaction():
        machines.set_disk_failed(world.db, "d1", False)
    assert redundancy.endangered(world.db, ALL, {0: 2}, 9) == ([], 0, 0, 0)


def test_a_copy_restores_redundancy_and_a_removal_takes_it(world: World) -> None:
    chunk = world.live_chunk(world.make(b"f"))
    with world.db.transaction():
        replicas.remove_replica(world.db, chunk, "d1")
        replicas.remove_replica(world.db, chunk, "d1")
    assert redundancy.totals(world.db, ALL, {0: 2}).under_replicated == 1
    with world.db.transaction():
        replicas.add_replica(world.db, chunk, "d3")
    assert redundancy.totals(world.db, ALL, {0: 2}).under_replicated == 0
    assert replicas.replicas_of(world.db, chunk) == [("d2", "good"), ("d3", "good")]


def test_replicas_of_unknown_things(world: World) -> None:
    chunk = world.live_chunk(world.make(b"f"))
    with pytest.raises(errors.UnknownChunk):
        mark(world, b"x" * 16, "d1", "good")
    with pytest.raises(errors.DiskFailed):
        mark(world, chunk, "none", "good")
    assert replicas.replicas_of(world.db, b"x" * 16) == []


def test_expired_grants_die(world: World) -> None:
    early, late = world.granted("d1", expires_in_ns=10), world.granted("d1", expires_in_ns=20)
    with world.db.transaction():
        assert replicas.expire_grants(world.db, world.now_ns + 9, 10) == 0
        assert replicas.expire_grants(world.db, world.now_ns + 10, 10) == 1
    assert (world.chunk(early).state, world.chunk(late).state) == ("dead", "granted")
    more = [world.granted("d1", expires_in_ns=1) for _ in range(3)]
    with world.db.transaction():
        assert replicas.expire_grants(world.db, 1 << 62, 2) == 2
        assert replicas.expire_grants(world.db, 1 << 62, 10) == len(more) + 1 - 2


def test_only_dead_chunks_are_forgotten(world: World) -> None:
    file = world.make(b"f")
    dead, live, granted = world.live_chunk(file), world.live_chunk(file), world.granted("d1")
    with world.db.transaction():
        assert replicas.forget_chunk(world.db, dead)
        assert not replicas.forget_chunk(world.db, live)
        assert not replicas.forget_chunk(world.db, granted)
    assert replicas.chunk_info(world.db, dead) is None
    assert replicas.replicas_of(world.db, dead) == []
    assert world.chunk(live).state == "live"


def test_inventory(world: World) -> None:
    file = world.make(b"f")
    there = world.live_chunk(file, 0, 1)
    missing = world.live_chunk(file, 1, 1)
    was_bad = world.live_chunk(file, 2, 1)
    elsewhere = world.live_chunk(file, 3, 1, ("d2", "d3"))
    dead = world.live_chunk(file, 4, 1)
    world.live_chunk(file, 4, 1)
    granted = world.granted("d1")
    beyond = world.live_chunk(file, 6, 1)
    mark(world, was_bad, "d1", "bad")
    unknown = b"\0" * 8 + b"\0" * 7 + b"\0"
    on_disk = {there, was_bad, elsewhere, dead, granted, unknown}
    last = granted
    assert beyond > last
    found = contents.page_diff(world.db, "d1", bytes(16), last, on_disk)
    last_live = (6).to_bytes(16, "big")
    assert found.missing == [missing, last_live]
    assert found.unknown == [unknown]
    assert found.returned == [was_bad, elsewhere]
    with pytest.raises(errors.DiskFailed):
        contents.page_diff(world.db, "none", bytes(16), last, set())


def test_copies_on_drained_disks_count_for_readers_only(world: World) -> None:
    file = world.make(b"f")
    chunk = world.live_chunk(file)
    only_there = world.live_chunk(file, 100, disks=("d1",))
    with world.db.transaction():
        machines.set_disk_admin(world.db, "d1", "draining")
    found = redundancy.endangered(world.db, ALL, {0: 2}, 9)
    assert found == ([only_there, chunk], 2, 300, 0)
    assert redundancy.totals(world.db, ALL, {0: 2}).by_replicas == [0, 1, 1]
    with world.db.transaction():
        machines.set_disk_admin(world.db, "d1", "enabled")
        machines.set_server_admin(world.db, "server2", "drained")
    assert redundancy.endangered(world.db, ALL, {0: 2}, 9).chunks == 2
    assert redundancy.endangered(world.db, ["d3"], {0: 2}, 9) == ([], 0, 0, 2)


def test_each_policy_wants_its_own_number(world: World) -> None:
    file = world.make(b"f")
    chunk, _other = world.live_chunk(file), world.live_chunk(file, 100)
    assert not redundancy.any_short(world.db, {0: 2})
    with world.db.transaction():
        world.db.change("INSERT INTO policy VALUES (5, 3, 0, 'host', '')")
        world.db.change("UPDATE chunk SET policy = 5 WHERE id = ?", (chunk,))
    wanted = {0: 2, 5: 3}
    assert redundancy.any_short(world.db, wanted)
    assert redundancy.totals(world.db, ALL, wanted).under_replicated == 1
    assert redundancy.endangered(world.db, ALL, wanted, 9).urgent == [chunk]
    found = redundancy.load_endangered(world.db, chunk)
    assert found is not None
    assert found.policy == 5
