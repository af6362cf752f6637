"""The plan of repair keeps its promises on any cluster."""

from __future__ import annotations

import random
from collections import Counter

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from dfswire.health import Experience
from metad.copies.policies import Policy
from metad.copies.redundancy import EndangeredChunk
from metad.hosts.orders import OrderQueue
from metad.hosts.servers import Servers
from metad.upkeep.rates import Throttle
from metad.upkeep.repairplan import Copy, Cuts, Planned, Situation, plan_repair
from metad.upkeep.transfers import SMALL_PER_TRANSFER, RepairLimits
from tests.t2_metad.machines_for_tests import GIB, disk, heartbeat, register

NOW = 1000.0
NAMES = ["s1", "s2", "s3", "s4", "s5"]


def chunk(number: int, **states: str) -> EndangeredChunk:
    """chunk(1, s1="good", s2="bad")"""
    rows = [(f"{server}-d", state) for server, state in states.items()]
    return EndangeredChunk(bytes([number]) * 16, 1000, b"d" * 16, 0, rows)


def cluster(**silent_s: float) -> Servers:
    """cluster(s1=0, s2=50): s2 was last heard 50 s ago."""
    servers = Servers("c", OrderQueue(1))
    for name, seconds in silent_s.items():
        servers.register(register(name), NOW - seconds)
    return servers


def situation(servers: Servers, **limits: int) -> Situation:
    policy = Policy(limits.pop("replicas", 2), 4 << 20)
    return Situation(
        servers,
        NOW,
        RepairLimits(**{"whole_bytes": 1000, **limits}),
        lambda _key: policy,
        random.Random(1),
        servers.disks_worth_waiting_for(NOW, 30.0),
    )


def plan(servers: Servers, *chunks: EndangeredChunk, **limits: int) -> list[Copy]:
    return plan_repair(chunks, situation(servers, **limits)).copies


def test_a_lost_replica_is_made_anew_from_the_living_one() -> None:
    servers = cluster(s1=0, s2=40, s3=0)
    (copy,) = plan(servers, chunk(1, s1="good", s2="good"))
    assert copy.disk == "s3-d"
    assert [each.disk for each in copy.sources] == ["s1-d"]
    assert (copy.length, copy.digest) == (1000, b"d" * 16)


def test_a_server_is_missed_thirty_seconds_after_it_is_down() -> None:
    assert plan(cluster(s1=0, s2=39.9, s3=0), chunk(1, s1="good", s2="good")) == []
    assert plan(cluster(s1=0, s2=40, s3=0), chunk(1, s1="good", s2="good"))


def test_a_failed_disk_and_a_bad_replica_are_missed_at_once() -> None:
    servers = cluster(s1=0, s2=0, s3=0)
    assert plan(servers, chunk(1, s1="good", s2="good")) == []
    assert plan(servers, chunk(1, s1="good", s2="bad"))
    servers.heartbeat(heartbeat("s2", disks=[disk("s2-d", failed=True)]), NOW)
    assert plan(servers, chunk(1, s1="good", s2="good"))


def test_the_server_of_a_bad_replica_may_get_the_new_one() -> None:
    (copy,) = plan(cluster(s1=0, s2=0), chunk(1, s1="good", s2="bad"))
    assert copy.disk == "s2-d"


def test_nothing_can_be_done_without_a_living_source_or_a_place() -> None:
    assert plan(cluster(s1=20, s3=0), chunk(1, s1="good"), replicas=2) == []
    assert plan(cluster(s1=0), chunk(1, s1="good")) == []


def test_what_is_under_way_is_not_ordered_again() -> None:
    servers = cluster(s1=0, s2=0, s3=0)
    (copy,) = plan(servers, chunk(1, s1="good"))
    servers.orders.add("copy", copy.chunk, copy.disk, sources=copy.sources)
    assert plan(servers, chunk(1, s1="good")) == []
    (second,) = plan(servers, chunk(1, s1="good"), replicas=3)
    assert second.disk != copy.disk


def test_the_most_endangered_come_first() -> None:
    servers = cluster(s1=0, s2=0, s3=0, s4=0)
    one_rack = chunk(1, s1="good", s2="good")
    two_racks = chunk(2, s1="good", s4="good")
    alone = chunk(3, s2="good")
    for name in ("s1", "s2", "s3"):
        servers.register(register(name, rack="a"), NOW)
    servers.register(register("s4", rack="b"), NOW)
    copies = plan(servers, two_racks, one_rack, alone, replicas=3)
    assert [copy.chunk[0] for copy in copies] == [3, 3, 1, 2]


def test_a_disk_is_not_filled_beyond_the_reserve() -> None:
    servers = cluster(s1=0)
    free = 5 * GIB + 3500  # of 100: 5 GiB are for writers
    servers.register(register("s2", disks=[disk("s2-d", free=free)]), NOW)
    copies = plan(servers, *(chunk(number, s1="good") for number in range(6)))
    assert len(copies) == 3
    for copy in copies:
        servers.orders.add("copy", copy.chunk, copy.disk, length=1000, sources=copy.sources)
    assert plan(servers, chunk(7, s1="good")) == [], "what is under way needs room too"


def test_disks_that_share_their_room_are_filled_together() -> None:
    servers = cluster(s1=0)
    free = 5 * GIB + 1500
    for name in ("s2", "s3"):
        figures = disk(f"{name}-d", free=free)
        shared = msgspec.structs.replace(figures, filesystem="one")
        servers.register(register(name, disks=[shared]), NOW)
    assert len(plan(servers, chunk(1, s1="good"), chunk(2, s1="good"))) == 1


def test_rates_are_kept_and_what_waits_is_not_forgotten() -> None:
    servers = cluster(s1=0, s2=0, s3=0)
    at = situation(servers)
    at.throttle = Throttle(600, 0)  # 1200 bytes at once, then 600 in a second
    chunks = [chunk(number, s1="good") for number in range(4)]
    planned = plan_repair(chunks, at)
    assert [copy.chunk[0] for copy in planned.copies] == [0, 1]
    assert planned.waiting == [each.chunk for each in chunks[2:]]
    at.now += 1.0
    assert plan_repair(chunks[2:], at).copies == []
    at.now += 1.0
    planned = plan_repair(chunks[2:], at)
    assert [copy.chunk[0] for copy in planned.copies] == [2]


def test_a_chunk_waits_for_its_best_place() -> None:
    """One more in the same rack would be quicker, and no use when the rack fails."""
    servers = cluster(s1=0, s2=0)
    servers.register(register("s1", rack="a"), NOW)
    servers.register(register("s2", rack="a"), NOW)
    servers.register(register("s3", rack="b"), NOW)
    busy = chunk(9, s2="good")
    servers.orders.add("copy", busy.chunk, "s3-d", length=1000, sources=[])
    at = situation(servers, transfers_per_disk=1)
    planned = plan_repair([chunk(1, s1="good")], at)
    assert planned == Planned([], [chunk(1).chunk])


def test_a_pair_that_is_cut_off_is_avoided() -> None:
    servers = cluster(s1=0, s2=0, s3=0)
    at = situation(servers)
    at.cuts.add("s2", "s1", NOW)
    for number in range(20):
        (copy,) = plan_repair([chunk(number, s1="good")], at).copies
        assert copy.disk == "s3-d"
    at.cuts.add("s3", "s1", NOW)
    assert plan_repair([chunk(1, s1="good")], at) == Planned()
    at = situation(servers, replicas=3)
    at.cuts.add("s3", "s1", NOW)
    (copy,) = plan_repair([chunk(1, s1="good", s2="good")], at).copies
    assert [each.disk for each in copy.sources] == ["s2-d"]
    at.now += Cuts.FOR_S
    assert not at.cuts.between("s3", "s1", at.now)


def test_a_slow_server_is_the_last_source_and_the_last_place() -> None:
    servers = cluster(s1=0, s2=0, s3=0, s4=0)
    for client in ("a", "b"):
        experience = [Experience(address="s3:9500", calls=9, slow=9)]
        servers.grayness.report(client, experience, NOW)
    servers.watch(NOW)
    for number in range(20):
        (copy,) = plan(servers, chunk(number, s1="good", s3="good", s2="bad"), replicas=3)
        assert [each.disk for each in copy.sources] == ["s1-d", "s3-d"]
    for number in range(20):
        (copy,) = plan(servers, chunk(number, s1="good"))
        assert copy.disk != "s3-d"


def test_where_a_copy_is_on_its_way_out_none_is_put() -> None:
    servers = cluster(s1=0, s2=0)
    assert plan(servers, chunk(1, s1="good", s2="excess")) == []


def test_small_chunks_share_a_transfer() -> None:
    """Each order takes two heartbeats: with as few of them as of whole chunks little would go."""
    servers = cluster(s1=0, s2=0)
    whole = [chunk(number, s1="good") for number in range(100)]
    assert len(plan(servers, *whole, transfers_per_disk=2)) == 2
    small = [each._replace(length=10) for each in whole]
    assert len(plan(servers, *small, transfers_per_disk=2)) == 2 * SMALL_PER_TRANSFER
    limits = RepairLimits(transfers_per_disk=2, whole_bytes=1000)
    assert limits.places(3, [], 0) == 6 * SMALL_PER_TRANSFER
    assert limits.places(3, [1000, 500, 1], 1000) == 3
    assert limits.places(3, [1000] * 4, 10) == 0
    halves = [each._replace(length=500) for each in whole]
    assert len(plan(servers, *halves, transfers_per_disk=2)) == 4


STATES = st.dictionaries(st.sampled_from(NAMES), st.sampled_from(["good", "bad"]), min_size=1)


@given(
    st.dictionaries(st.sampled_from(NAMES), st.sampled_from([0.0, 5.0, 20.0, 50.0]), min_size=1),
    st.lists(STATES, max_size=8),
    st.integers(1, 3),
    st.integers(1, 3),
)
def test_promises(
    silent: dict[str, float], chunks: list[dict[str, str]], wanted: int, transfers: int
) -> None:
    servers = cluster(**silent)
    endangered = [chunk(number, **states) for number, states in enumerate(chunks)]
    copies = plan(servers, *endangered, replicas=wanted, transfers_per_disk=transfers)
    busy: Counter[str] = Counter()
    for copy in copies:
        states = dict(endangered[copy.chunk[0]].replicas)
        assert servers.disk_state(copy.disk, NOW) == "up"
        assert states.get(copy.disk) != "good", "where it is already"
        assert copy.sources
        for source in copy.sources:
            assert states[source.disk] == "good", "from good replicas only"
            assert servers.disk_state(source.disk, NOW) != "down"
        busy.update([copy.disk, copy.sources[0].disk])
    assert all(count <= transfers for count in busy.values())
    for number, states in enumerate(chunks):
        here = [copy for copy in copies if copy.chunk[0] == number]
        good = [
            name
            for name, state in states.items()
            if state == "good" and silent.get(name, 99.0) < 40.0
        ]
        assert len({copy.disk for copy in here}) == len(here) <= max(wanted - len(good), 0)
