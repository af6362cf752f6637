"""One operation of a program can be followed through the logs of all daemons by its id."""

from __future__ import annotations

import json
import os
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dfsmount.cli.localcluster import choose_ports
from tests.t1_wire.test_metrics import samples
from tests.t5_process.harness import Cluster


@pytest.fixture
def talkative(_usable: None, tmp_path: Path) -> Iterator[tuple[Cluster, int]]:
    """A cluster that logs each call, and the port of the mount's metrics."""
    cluster = Cluster(tmp_path / "cluster")
    try:
        cluster.write_files()
        for daemon in cluster.local.daemons:
            with daemon.config.open("a") as file:
                file.write('log_level = "DEBUG"\n')
        (port,) = choose_ports(1)
        cluster.up()
        cluster.mount(options=f"debug,metrics_listen=127.0.0.1:{port}")
        cluster.wait_healthy()
        yield cluster, port
    finally:
        cluster.close()


def lines(cluster: Cluster, name: str) -> list[dict[str, Any]]:
    """The log of a daemon or of the mount."""
    text = cluster.log_text(name)
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


def test_one_id_in_all_logs(talkative: tuple[Cluster, int]) -> None:
    cluster, port = talkative
    with (cluster.mount_point / "file").open("wb", buffering=0) as file:
        file.write(os.urandom(300_000))
        os.fsync(file.fileno())
    (operation,) = [
        line
        for line in lines(cluster, cluster.mount_point.name)
        if line["message"].startswith("fsync: ok")
    ]
    assert operation["service"] == "mount"
    found = {
        name: [
            line["message"].partition(":")[0]
            for line in lines(cluster, name)
            if line["request"] == operation["request"]
        ]
        for name in ("metad", *cluster.chunkd_names)
    }
    assert "meta.batch" in found["metad"]
    writers = [name for name in cluster.chunkd_names if "chunk.write" in found[name]]
    assert len(writers) == 2, "the second one was asked by the first"
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as reply:
        metrics = samples(reply.read())
    assert metrics["dfs_operation_duration_seconds_count", ("fsync", "ok")] == 1
    assert metrics["dfs_operation_duration_seconds_count", ("create", "ok")] == 1
    assert metrics["dfs_dirty_bytes", ()] == 0
