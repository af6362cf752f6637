"""Packets are lost between hosts that are all alive: who notices, and what goes on meanwhile."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.t5_faults.chunks import check, copies_of, write_files
from tests.t5_faults.harness import FaultyCluster, long_run, nightly
from tests.t5_faults.load import Load, seen
from tests.t5_faults.network import DROP, RESET, SWALLOW, loss
from tests.t5_process.observed import wait_for

VICTIM = "chunkd1"
Saw = Callable[[str], None]


def partition(cluster: FaultyCluster, one: str, other: str, kind: str) -> None:
    """Between two hosts: nothing passes, or nothing in one direction, or resets, or no data."""
    network = cluster.network
    if kind in ("both", "swallow"):
        network.cut(one, other, {"both": DROP, "swallow": SWALLOW}[kind])
    elif kind == "back":
        network.impair(other, one)
    else:  # a reset must be able to come back
        network.impair(one, other, {"there": DROP, "reset": RESET}[kind])


@pytest.mark.parametrize("kind", ["both", *nightly("there", "back", "reset"), "swallow"])
def test_mount_and_one_chunkd(cluster: FaultyCluster, load: Load, saw: Saw, kind: str) -> None:
    """F11: the heartbeat is fine, only the client suffers."""
    partition(cluster, "mnt", VICTIM, kind)
    with load.watched() as first:
        load.wait_progress(3)
    with load.watched() as later:
        load.wait_progress(3)
    cluster.network.heal()
    saw(f"at first: {seen(first)}; then: {seen(later)}")


@pytest.mark.parametrize("seconds", [2, *nightly(15)])
def test_mount_and_metad(cluster: FaultyCluster, load: Load, saw: Saw, seconds: int) -> None:
    """F12: shorter than the lease: everybody waits, nobody loses anything."""
    load.slowest_s()
    cluster.network.cut("mnt", "metad")
    time.sleep(seconds)
    cluster.network.heal()
    resumed_s = load.wait_progress(1)
    saw(f"{seen(load.slowest_s())}; went on {resumed_s:.1f} s after the {seconds} s")


@pytest.mark.parametrize("kind", [*nightly("there"), "back"])
def test_requests_or_replies_lost(cluster: FaultyCluster, load: Load, saw: Saw, kind: str) -> None:
    """F22: a change whose reply was lost is repeated, and executed once (the load would fail)."""
    load.slowest_s()
    for _ in range(3):
        partition(cluster, "mnt", "metad", kind)
        time.sleep(0.5)
        cluster.network.heal()
        load.wait_progress(1)
    saw(seen(load.slowest_s()))


def test_chunkd_and_metad(
    cluster: FaultyCluster, load: Load, healing: Callable[[], float], saw: Saw
) -> None:
    """F13: clients reach it, metad does not: it counts as down, and nothing is deleted early."""
    with load.watched() as longest:
        cluster.network.cut(VICTIM, "metad")
        started = time.monotonic()
        wait_for(lambda: cluster.server(VICTIM).state == "down", "it counts as down")
        noticed_s = time.monotonic() - started
        wait_for(lambda: cluster.status().chunks.under_replicated == 0, "repair onto the others")
        repaired_s = time.monotonic() - started
        load.wait_progress()
    cluster.network.heal()
    back_s = healing()
    saw(
        f"{seen(longest)}; noticed {noticed_s:.1f} s, repaired {repaired_s:.1f} s, "
        f"back {back_s:.1f} s after the end"
    )


@long_run
def test_one_way_from_chunkd_to_metad(
    cluster: FaultyCluster, load: Load, healing: Callable[[], float], saw: Saw
) -> None:
    """F13: its heartbeats arrive, the answers do not."""
    with load.watched() as longest:
        cluster.network.impair("metad", VICTIM)
        wait_for(lambda: cluster.server(VICTIM).state == "down", "it counts as down")
        load.wait_progress()
    cluster.network.heal()
    saw(f"{seen(longest)}; back {healing():.1f} s after the end")


def test_chunkds_among_each_other(
    cluster: FaultyCluster, place: Path, load: Load, saw: Saw
) -> None:
    """F14: chains and repair cannot pass; nobody calls a chunk whole that is not."""
    digests = write_files(place, 8, 100_000)
    copies = copies_of(cluster, digests)
    # One of three is not missed: what a slow server got too late was stored elsewhere meanwhile.
    counts = Counter(copy.chunk for copy in copies)
    victims = [copy for copy in copies if copy.server == VICTIM and counts[copy.chunk] == 2]
    assert victims
    network = cluster.network
    with load.watched() as longest:
        network.cut("chunkd1", "chunkd2")
        network.cut("chunkd1", "chunkd3")
        network.cut("chunkd2", "chunkd3")
        for copy in victims:
            copy.file.unlink()
        wait_for(
            lambda: cluster.status().chunks.under_replicated >= len(victims), "they are missed"
        )
        load.wait_progress()
        assert cluster.status().chunks.under_replicated >= len(victims)
    network.heal()
    started = time.monotonic()
    cluster.wait_sound(*digests)
    saw(f"{seen(longest)}; repaired {time.monotonic() - started:.1f} s after the end")
    check(digests)


def test_metad_alone(cluster: FaultyCluster, load: Load, saw: Saw) -> None:
    """F15: nobody reaches metad for longer than it takes a server to count as down."""
    load.slowest_s()
    cluster.network.isolate("metad")
    time.sleep(4)
    cluster.network.heal()
    resumed_s = load.wait_progress(1)
    cluster.wait_healthy()
    saw(f"{seen(load.slowest_s())}; went on {resumed_s:.1f} s after the 4 s")


@long_run
def test_thin_line(cluster: FaultyCluster, load: Load, saw: Saw) -> None:
    """F16: a server that answers, but slowly: 1 Mbit/s."""
    load.wait_progress(10)  # experience with all servers
    cluster.network.slow_down(VICTIM, "1mbit")
    with load.watched() as first:
        load.wait_progress(3)
    with load.watched() as later:
        load.wait_progress(3)
    cluster.network.heal()
    saw(f"at first: {seen(first)}; then: {seen(later)}")


def test_lossy_line(cluster: FaultyCluster, load: Load, saw: Saw) -> None:
    """F16: five of a hundred packets of one server are lost."""
    for other in ("mnt", "metad", "chunkd2", "chunkd3"):
        cluster.network.cut(VICTIM, other, loss(5))
    with load.watched() as longest:
        load.wait_progress(10)
    assert cluster.server(VICTIM).state != "down"
    cluster.network.heal()
    saw(seen(longest))
