"""What metad knows of chunkds: who may register, who lives, which disks count."""

from __future__ import annotations

import pytest

from dfswire.errors import AlreadyRunning, IdentityTaken, Removed, WrongCluster
from dfswire.health import Experience
from dfswire.messages import Replica
from metad.hosts.doubles import CLAIMS_MAX, Doubles
from metad.hosts.orders import OrderQueue
from metad.hosts.servers import Servers
from tests.t2_metad.machines_for_tests import disk, heartbeat, register

CLUSTER = "c" * 32


@pytest.fixture
def servers() -> Servers:
    return Servers(CLUSTER, OrderQueue(100), suspect_s=3.0, down_s=10.0)


def state(servers: Servers, disk_id: str, now: float) -> str:
    return servers.disk_state(disk_id, now)


def test_up_suspect_down_and_up_again(servers: Servers) -> None:
    servers.register(register("s1"), 0.0)
    assert [state(servers, "s1-d", at) for at in (0, 2.9, 3, 9.9, 10)] == [
        "up",
        "up",
        "suspect",
        "suspect",
        "down",
    ]
    assert servers.heartbeat(heartbeat("s1"), 12.0)
    assert state(servers, "s1-d", 12.0) == "up"


def test_another_cluster_is_refused(servers: Servers) -> None:
    with pytest.raises(WrongCluster):
        servers.register(register("s1", cluster_id="d" * 32), 0.0)
    assert servers.foreign(29.0) == ["s1:9500"]
    assert servers.foreign(30.0) == []
    for number in range(100):  # whoever asks under ever new names fills no memory
        with pytest.raises(WrongCluster):
            servers.register(register(f"x{number}", cluster_id="d" * 32), 100.0 + number)
    assert len(servers._foreign) == 30
    servers.register(register("s1", cluster_id=CLUSTER), 0.0)


def test_an_older_start_is_refused_for_ever(servers: Servers) -> None:
    servers.register(register("s1", incarnation=5), 0.0)
    with pytest.raises(AlreadyRunning):
        servers.register(register("s1", incarnation=4), 1000.0)
    assert not servers.heartbeat(heartbeat("s1", incarnation=4), 1.0)


@pytest.mark.parametrize("incarnation", [1, 2])
def test_a_second_process_is_refused_while_the_first_is_up(
    servers: Servers, incarnation: int
) -> None:
    servers.register(register("s1"), 0.0)
    copy = register("s1", incarnation=incarnation, address="elsewhere:9500")
    with pytest.raises(AlreadyRunning, match="s1:9500"):
        servers.register(copy, 2.0)
    with pytest.raises(AlreadyRunning, match="copy of its data"):
        servers.register(copy, 9.9)  # suspect only
    servers.register(copy, 10.0)
    assert servers.replicas(["s1-d"], 10.0) == [Replica(disk="s1-d", address="elsewhere:9500")]


def test_a_clone_is_refused_for_good_when_the_first_is_heard_again(servers: Servers) -> None:
    servers.register(register("s1", process="one"), 0.0)
    clone = register("s1", process="two", address="elsewhere:9500", incarnation=2)
    thief = register("s2", process="three", disks=[disk("s1-d")])
    older = register("s1", process="four", incarnation=0)

    def refusals() -> list[type[AlreadyRunning]]:
        kinds = []
        for each in (clone, thief, older):
            with pytest.raises(AlreadyRunning) as caught:
                servers.register(each, 1.0)
            kinds.append(caught.type)
        return kinds

    assert refusals() == [AlreadyRunning] * 3
    assert servers.heartbeat(heartbeat("s1", process="one"), 1.0)
    assert refusals() == [AlreadyRunning] * 3, "that one may have been under way"
    assert servers.heartbeat(heartbeat("s1", process="one"), 2.0)
    assert refusals() == [IdentityTaken] * 3
    # What another process is told is its own affair, and a new holder has to be heard anew.
    with pytest.raises(AlreadyRunning) as caught:
        servers.register(register("s1", process="five", address="third:9500"), 2.0)
    assert caught.type is AlreadyRunning
    servers.register(register("s1", process="six", incarnation=3), 2.0)
    assert refusals() == [AlreadyRunning, AlreadyRunning, AlreadyRunning]


def test_claims_are_not_remembered_without_end() -> None:
    doubles = Doubles()
    for number in range(CLAIMS_MAX + 1):
        doubles.refusal("s1", ("s1", str(number)), "")
    doubles.heard("s1")
    doubles.heard("s1")
    assert type(doubles.refusal("s1", ("s1", str(CLAIMS_MAX)), "")) is IdentityTaken
    assert type(doubles.refusal("s1", ("s1", "0"), "")) is AlreadyRunning, "it is a new one"


def test_a_quick_restart_on_the_same_address_is_welcome(servers: Servers) -> None:
    servers.register(register("s1"), 0.0)
    servers.orders.add("verify", b"c" * 16, "s1-d")
    assert servers.orders.take(["s1-d"], 0.0)
    servers.register(register("s1", incarnation=2), 0.1)
    assert servers.orders.take(["s1-d"], 0.2), "the new process has not heard of the order"


def test_heartbeats_of_strangers_are_told_to_register(servers: Servers) -> None:
    assert not servers.heartbeat(heartbeat("s1"), 0.0)
    servers.load(register("s1"), 0.0)
    assert not servers.heartbeat(heartbeat("s1"), 0.0)
    servers.register(register("s1"), 0.0)
    assert servers.heartbeat(heartbeat("s1"), 0.0)
    assert not servers.heartbeat(heartbeat("s1", disks=[disk("new")]), 0.0)


def test_a_loaded_server_is_suspect_then_down(servers: Servers) -> None:
    servers.load(register("s1", incarnation=3), 100.0)
    assert state(servers, "s1-d", 100.0) == "suspect"
    assert state(servers, "s1-d", 110.0) == "down"
    with pytest.raises(AlreadyRunning):
        servers.register(register("s1", incarnation=2), 100.0)
    moved = register("s1", incarnation=4, address="new:9500")
    with pytest.raises(AlreadyRunning):
        servers.register(moved, 100.5)  # its other process may be about to call
    servers.register(moved, 110.0)
    assert state(servers, "s1-d", 111.0) == "up"


def test_failed_and_missing_disks_do_not_count(servers: Servers) -> None:
    servers.register(register("s1", disks=[disk("x"), disk("y"), disk("z")]), 0.0)
    servers.heartbeat(heartbeat("s1", disks=[disk("x"), disk("y", failed=True)]), 1.0)
    assert servers.live_disks(1.0) == {"x"}
    assert servers.disks_worth_waiting_for(1.0, 30.0) == {"x"}
    assert [each.disk for each in servers.candidates(1.0)] == ["x"]
    assert state(servers, "z", 1.0) == state(servers, "unknown", 1.0) == "down"


def test_who_is_worth_waiting_for(servers: Servers) -> None:
    servers.register(register("s1"), 0.0)
    assert servers.live_disks(9.9) == {"s1-d"}
    assert servers.live_disks(10.0) == set()
    assert servers.disks_worth_waiting_for(39.9, 30.0) == {"s1-d"}
    assert servers.disks_worth_waiting_for(40.0, 30.0) == set()


def test_a_disk_may_move_but_not_be_in_two_servers(servers: Servers) -> None:
    servers.register(register("s1", disks=[disk("x"), disk("y")]), 0.0)
    with pytest.raises(AlreadyRunning, match="disk x"):
        servers.register(register("s2", disks=[disk("x")]), 1.0)
    servers.heartbeat(heartbeat("s1", disks=[disk("y")]), 2.0)
    servers.register(register("s2", disks=[disk("x")]), 3.0)
    found = servers.server_of("x")
    assert found is not None and found.server_id == "s2"
    assert len(servers.domains(["x", "y", "unknown"])) == 2


def test_a_disk_of_a_dead_server_may_be_plugged_in_elsewhere(servers: Servers) -> None:
    servers.register(register("s1", disks=[disk("x")]), 0.0)
    servers.register(register("s2", disks=[disk("x")]), 10.0)
    assert servers.replicas(["x"], 10.0) == [Replica(disk="x", address="s2:9500")]
    assert servers.live_disks(10.0) == {"x"}


def test_the_best_replica_comes_first(servers: Servers) -> None:
    servers.register(register("down"), 0.0)
    servers.register(register("suspect"), 8.0)
    servers.register(register("up"), 12.0)
    found = servers.replicas(["unknown", "down-d", "suspect-d", "up-d"], 12.0)
    assert [each.disk for each in found] == ["up-d", "suspect-d", "down-d"]


def test_what_is_drained_is_readable_but_takes_nothing(servers: Servers) -> None:
    for name in ("s1", "s2", "s3"):
        servers.register(register(name), 0.0)
    servers.administer({"s1": "draining"}, {"s2-d": "drained"})
    assert [each.disk for each in servers.candidates(0.0)] == ["s3-d"]
    assert servers.live_disks(0.0) == {"s1-d", "s2-d", "s3-d"}
    assert [servers.is_wanted(each) for each in ("s1-d", "s2-d", "s3-d")] == [False, False, True]
    assert servers.disk_admin("s1-d") == "draining"  # as its server
    servers.administer({}, {})
    assert len(servers.candidates(0.0)) == 3


def test_a_removed_server_counts_for_nothing_and_stays_out(servers: Servers) -> None:
    servers.register(register("s1"), 0.0)
    servers.register(register("s2"), 0.0)
    servers.administer({"s1": "removed"}, {"s2-d": "removed"})
    assert servers.live_disks(0.0) == set()
    assert state(servers, "s1-d", 0.0) == state(servers, "s2-d", 0.0) == "down"
    with pytest.raises(Removed, match="dfs node enable s1"):
        servers.register(register("s1", incarnation=2), 0.0)
    servers.register(register("s2", incarnation=2), 0.0)


def test_two_starts_that_counted_alike_are_told_apart(servers: Servers) -> None:
    """Of a copied data directory: both count up from the same number."""
    servers.register(register("s1", process="one"), 0.0)
    assert servers.heartbeat(heartbeat("s1", process="one"), 1.0)
    assert not servers.heartbeat(heartbeat("s1", process="other"), 1.0)
    other = register("s1", process="other", address="elsewhere:9500")
    servers.register(other, 11.0)
    assert not servers.heartbeat(heartbeat("s1", process="one"), 12.0), "it was away, and wakes up"
    with pytest.raises(AlreadyRunning):
        servers.register(register("s1", process="one"), 12.0)


def test_a_server_whose_disks_were_set_back_counts_on(servers: Servers) -> None:
    servers.register(register("s1", incarnation=9, process="one"), 0.0)
    back = register("s1", incarnation=4, process="two", first=True)
    assert servers.identities.incarnation_for(back, 5.0) == 4, (
        "and is refused: the other may be alive"
    )
    assert servers.identities.incarnation_for(back, 10.0) == 10
    zombie = register("s1", incarnation=4, process="two")
    assert servers.identities.incarnation_for(zombie, 10.0) == 4
    alike = register("s1", incarnation=9, process="two", first=True)
    assert servers.identities.incarnation_for(alike, 10.0) == 10
    assert servers.identities.incarnation_for(alike, 5.0) == 9
    assert servers.identities.incarnation_for(register("s1", incarnation=10, first=True), 5.0) == 10


def test_a_server_that_others_find_slow_is_suspect_and_chosen_last(servers: Servers) -> None:
    for name in ("s1", "s2", "s3"):
        servers.register(register(name), 0.0)
    for client in ("a", "b"):
        servers.grayness.report(
            client,
            [
                Experience(address="s1:9500", calls=10, slow=9),
                Experience(address="s2:9500", calls=10),
                Experience(address="s3:9500", calls=10),
            ],
            1.0,
        )
    servers.watch(1.0)
    assert state(servers, "s1-d", 1.0) == "suspect"
    slow = servers.get("s1")
    assert slow is not None
    assert "2 of 2 that call it" in servers.reason(slow, 1.0)
    assert servers.replicas(["s1-d", "s2-d"], 1.0) == [
        Replica(disk="s2-d", address="s2:9500"),
        Replica(disk="s1-d", address="s1:9500", doubtful=True),
    ]
    assert {each.disk: each.slow for each in servers.candidates(1.0)} == {
        "s1-d": True,
        "s2-d": False,
        "s3-d": False,
    }
    assert servers.live_disks(1.0) == {"s1-d", "s2-d", "s3-d"}, "nothing is repaired for this"
    servers.register(register("s1", incarnation=2), 2.0)
    assert state(servers, "s1-d", 2.0) == "up", "it is another process"
