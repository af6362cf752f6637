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
SENTENCE = "the event loop stood still for 1."
Saw = Callable[[str], None]


def lag_s(cluster: FaultyCluster, name: str) -> float:
    """What its metrics say."""
    address = cluster.address if name == "metad" else cluster.server(name).address
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as reply:
        return samples(reply.read())["dfs_loop_lag_seconds", ()]


@pytest.mark.parametrize("name", ["metad", "chunkd1", "mnt"])
def test_alarm(cluster: FaultyCluster, load: Load, saw: Saw, name: str) -> None:
    """F32: a line in its log, and a metric, where it has a page of them."""
    cluster.see_log(name)
    if name != "mnt":
        assert lag_s(cluster, name) < STALL_S - 0.5
    with load.watched() as longest:
        with cluster.stopped(name):
            time.sleep(STALL_S)
        wait_for(lambda: cluster.unseen_log(name).count(SENTENCE), "it says so")
        if name != "mnt":
            assert lag_s(cluster, name) >= STALL_S - 0.5
        load.wait_progress(1)
    assert all(server.state != "down" for server in cluster.status().servers)
    saw(seen(longest))
