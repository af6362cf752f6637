"""A process whose event loop stands still says so itself, as soon as it goes on."""

from __future__ import annotations

import time
import urllib.request
from collections.abc import Callable

import pytest

from tests.t1_wire.test_metrics import samples
from tests.t5_faults.harness import FaultyCluster
from tests.t5_faults.load import Load, seen
from tests.t5_process.observed import wait_for

STALL_S = 1.8  # the lag may be shorter by the half second that it is measured with
SENTENCE = "the event loop stood still for "
Saw = Callable[[str], None]


def lag_s(cluster: FaultyCluster, name: str) -> float:
    """What its metrics say."""
    address = cluster.address if name == "metad" else cluster.server(name).address
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as reply:
        return samples(reply.read())["dfs_loop_lag_seconds", ()]


@pytest.mark.parametrize("name", ["metad", "chunkd1"])
def test_alarm(cluster: FaultyCluster, load: Load, saw: Saw, name: str) -> None:
    """F32: a line in its log, and a metric."""
    cluster.see_log(name)
    cluster.kill(name)  # one that another test has stopped a short while ago would keep quiet
    cluster.start(name)
    cluster.wait_healthy()
    with load.watched() as longest:
        with cluster.stopped(name):
            time.sleep(STALL_S)
        wait_for(lambda: cluster.unseen_log(name).count(SENTENCE), "it says so")
        wait_for(lambda: lag_s(cluster, name) >= STALL_S - 0.5, "its metrics say so")
        load.wait_progress(1)
    saw(seen(longest))


def test_alarm_of_a_mount(cluster: FaultyCluster) -> None:
    """It need not have a page of metrics."""
    cluster.see_log("mnt")
    cluster.remount()
    with cluster.stopped("mnt"):
        time.sleep(STALL_S)
    wait_for(lambda: cluster.unseen_log("mnt").count(SENTENCE), "it says so")
