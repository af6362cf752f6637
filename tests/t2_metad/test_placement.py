"""Placement: distinct servers always, distinct domains if possible, never without room."""

from __future__ import annotations

import dataclasses
import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dfswire.errors import NoSpace
from metad.copies.placement import (
    Candidate,
    capacity_bytes,
    choose,
    choose_for_grant,
    spare_bytes,
)

CHUNK = 4 << 20
GIB = 1 << 30


def candidate(
    server: str,
    disk: str = "d",
    *,
    zone: str = "",
    rack: str = "",
    host: str = "",
    free: int = 50 * GIB,
    load: float = 0.0,
) -> Candidate:
    return Candidate(
        disk=f"{server}-{disk}",
        server_id=server,
        address=f"{server}:9500",
        zone=zone,
        rack=rack,
        host=host or server,
        total_bytes=100 * GIB,
        free_bytes=free,
        load=load,
    )


def at_one_place(disks: list[Candidate]) -> list[Candidate]:
    """All disks of a server are where the first one is."""
    places: dict[str, Candidate] = {}
    return [
        dataclasses.replace(disk, zone=first.zone, rack=first.rack)
        for disk in disks
        for first in [places.setdefault(disk.server_id, disk)]
    ]


CLUSTERS = st.lists(
    st.builds(
        candidate,
        st.sampled_from(["s1", "s2", "s3", "s4", "s5"]),
        st.sampled_from(["d1", "d2"]),
        zone=st.sampled_from(["", "z1", "z2"]),
        rack=st.sampled_from(["", "r1"]),
        free=st.integers(0, 100 * GIB),
    ),
    max_size=10,
    unique_by=lambda each: each.disk,
).map(at_one_place)


@given(CLUSTERS, st.integers(1, 4), st.integers(0, 9))
def test_promises(cluster: list[Candidate], count: int, seed: int) -> None:
    chosen = choose(cluster, count, CHUNK, random.Random(seed))
    usable = [each for each in cluster if spare_bytes(each.total_bytes, each.free_bytes) >= CHUNK]
    servers = [each.server_id for each in chosen]
    assert len(set(servers)) == len(servers), "two replicas on one server never"
    assert all(each in usable for each in chosen), "never on a full disk"
    assert len(chosen) == min(count, len({each.server_id for each in usable}))
    zones = len({each.zone for each in usable})
    if chosen:
        assert len({each.zone for each in chosen}) >= min(zones, len(chosen))


@given(CLUSTERS, st.integers(0, 9))
def test_taken_servers_get_no_second_replica(cluster: list[Candidate], seed: int) -> None:
    taken = cluster[:2]
    chosen = choose(cluster, 3, CHUNK, random.Random(seed), taken=taken)
    assert not {each.server_id for each in chosen} & {each.server_id for each in taken}


def test_racks_and_hosts_matter_in_that_order() -> None:
    rng = random.Random(1)
    first = candidate("s1", zone="z", rack="r1", host="h1")
    same_host = candidate("s2", zone="z", rack="r1", host="h1")
    same_rack = candidate("s3", zone="z", rack="r1", host="h3")
    other_rack = candidate("s4", zone="z", rack="r2", host="h4")
    others = [same_host, same_rack, other_rack]
    assert choose(others, 3, CHUNK, rng, taken=[first]) == [other_rack, same_rack, same_host]


def test_free_space_weighs_and_load_divides() -> None:
    rng = random.Random(1)
    cluster = [
        candidate("large", free=60 * GIB),
        candidate("small", free=20 * GIB),
        candidate("busy", free=60 * GIB, load=2.0),
    ]
    counts = Counter(choose(cluster, 1, CHUNK, rng)[0].server_id for _ in range(2000))
    assert counts["large"] == pytest.approx(1200, rel=0.1)
    assert counts["small"] == pytest.approx(400, rel=0.2)
    assert counts["busy"] == pytest.approx(400, rel=0.2)


def test_the_writers_own_host_comes_first_if_it_has_room() -> None:
    rng = random.Random(1)
    cluster = [candidate("s1"), candidate("s2"), candidate("s3", free=GIB)]
    for _ in range(20):
        assert choose(cluster, 2, CHUNK, rng, preferred_host="s2")[0].server_id == "s2"
        chosen = choose(cluster, 2, CHUNK, rng, preferred_host="s3")
        assert {each.server_id for each in chosen} == {"s1", "s2"}, "1 % of 100 GiB is kept free"


def test_a_grant_needs_two_servers_unless_one_replica_is_enough() -> None:
    rng = random.Random(1)
    alone = [candidate("s1", "d1"), candidate("s1", "d2")]
    with pytest.raises(NoSpace, match="2 servers"):
        choose_for_grant(alone, 2, CHUNK, rng)
    assert len(choose_for_grant(alone, 1, CHUNK, rng)) == 1
    pair = [candidate("s1"), candidate("s2")]
    assert len(choose_for_grant(pair, 3, CHUNK, rng)) == 2
    with pytest.raises(NoSpace):
        choose_for_grant([], 1, CHUNK, rng)


def test_avoided_servers_are_the_last_resort() -> None:
    rng = random.Random(1)
    cluster = [candidate("s1"), candidate("s2"), candidate("s3")]
    for _ in range(20):
        chosen = choose_for_grant(cluster, 2, CHUNK, rng, avoid=["s2:9500"])
        assert {each.server_id for each in chosen} == {"s1", "s3"}
    assert len(choose_for_grant(cluster, 2, CHUNK, rng, avoid=["s1:9500", "s2:9500"])) == 2


def test_tiny_disks_keep_a_tenth_and_large_ones_a_hundredth() -> None:
    assert spare_bytes(100 << 20, 30 << 20) == 20 << 20
    assert spare_bytes(2 * GIB, GIB) == GIB - (64 << 20)
    assert spare_bytes(100 * GIB, 3 * GIB) == 2 * GIB
    assert spare_bytes(100 * GIB, GIB // 2) == 0


@pytest.mark.parametrize(
    ("sizes", "replicas", "capacity"),
    [
        ([10, 10, 10], 2, 15),
        ([100, 10, 10], 2, 20),
        ([100, 10], 2, 10),
        ([100], 2, 0),
        ([100], 1, 100),
        ([100, 50], 1, 150),
        ([10, 10], 3, 10),
        ([], 1, 0),
        ([0, 0], 2, 0),
    ],
)
def test_capacity(sizes: list[int], replicas: int, capacity: int) -> None:
    by_server = {f"s{number}": size for number, size in enumerate(sizes)}
    assert capacity_bytes(by_server, replicas) == capacity
