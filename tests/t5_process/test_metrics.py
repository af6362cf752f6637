"""Every real daemon tells Prometheus what it does."""

from __future__ import annotations

import os
import urllib.request
from pathlib import Path

from tests.t1_wire.test_metrics import samples
from tests.t5_process.harness import Cluster
from tests.t5_process.observed import wait_for


def scrape(port: int) -> dict[tuple[str, tuple[str, ...]], float]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as reply:
        assert reply.headers["Content-Type"].startswith("text/plain")
        return samples(reply.read())


def test_all_daemons_can_be_scraped(cluster: Cluster, place: Path) -> None:
    with (place / "file").open("wb") as file:
        file.write(os.urandom(300_000))
        file.flush()
        os.fsync(file.fileno())

    def counted() -> bool:  # now and then, since it is a look at every chunk
        return scrape(cluster.local.metad.port)["dfs_chunk_bytes", ()] >= 300_000

    wait_for(counted, "the chunk is counted")
    metad = scrape(cluster.local.metad.port)
    assert metad["dfs_servers", ("up",)] == 3
    assert metad["dfs_sessions", ("yes",)] >= 1
    assert metad["dfs_commits_total", ()] >= 1
    assert metad["dfs_commit_seconds_total", ()] > 0
    assert metad["dfs_call_duration_seconds_count", ("meta.batch", "ok")] >= 1
    assert metad["dfs_call_duration_seconds_count", ("server.heartbeat", "ok")] >= 1
    written = 0.0
    for daemon in cluster.local.chunkds:
        chunkd = scrape(daemon.port)
        assert chunkd["dfs_build_info", ("chunkd", "0.1.0")] == 1
        count = "dfs_disk_operation_duration_seconds_count"
        fsyncs = [value for (name, _), value in chunkd.items() if name == count]
        written += sum(v for (n, _), v in chunkd.items() if n == "dfs_disk_written_bytes_total")
        assert fsyncs
    assert written >= 2 * 300_000
