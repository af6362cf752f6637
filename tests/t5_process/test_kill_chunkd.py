"""A chunkd is killed while a large file is copied: the application does not notice."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.t5_process.harness import Cluster
from tests.t5_process.observed import run_dfs, sha256_of, wait_for
from tests.t5_process.programs import copying

COPY_S = 90.0
STORED_CHUNKS = 10  # of 40; the chance that none of them is on the victim is 1 in 59,000


def copy_and_kill(
    cluster: Cluster, source: Path, target: Path, victim: str, begun: Callable[[], bool]
) -> None:
    """`cp source target`, with the victim killed when it has `begun`."""
    with copying(source, target) as copy:
        wait_for(begun, "cp on its way", poll_s=0.002)
        cluster.kill(victim)
        assert copy.poll() is None, "cp ended before the server was killed: use a larger file"
        # Repair starts soon, so this is looked at meanwhile.
        wait_for(lambda: reported(cluster), "`dfs status` tells of the loss")
        assert copy.wait(COPY_S) == 0


def reported(cluster: Cluster) -> bool:
    """`dfs status` says that a server is away, and that chunks have too few replicas."""
    exit_status, output = run_dfs("status", "--json", "--url", cluster.address)
    answer = json.loads(output)
    away = [each["state"] for each in answer["servers"]].count("down")
    assert answer["chunks"]["lost"] == 0
    return away == 1 and answer["chunks"]["under_replicated"] > 0 and exit_status == 1


@pytest.mark.parametrize(
    ("victim", "healed_by"),
    [("chunkd1", "return"), ("chunkd2", "repair"), ("chunkd3", "return")],
)
def test_while_writing(
    cluster: Cluster, place: Path, large_file: Path, victim: str, healed_by: str
) -> None:
    # Stored, not only copied: what is still in the mount's memory has no replica to lose.
    enough = cluster.status().chunks.total + STORED_CHUNKS
    copy_and_kill(
        cluster,
        large_file,
        place / "large",
        victim,
        begun=lambda: cluster.status().chunks.total >= enough,
    )
    assert sha256_of(place / "large") == sha256_of(large_file)
    if healed_by == "repair":
        wait_for(lambda: cluster.status().chunks.under_replicated == 0, "repair without it")
    cluster.start(victim)
    cluster.wait_healthy()
    cluster.remount()
    assert sha256_of(place / "large") == sha256_of(large_file)


def test_while_reading(cluster: Cluster, place: Path, large_file: Path, memory: Path) -> None:
    with copying(large_file, place / "large") as copy:
        assert copy.wait(COPY_S) == 0
    for victim in cluster.chunkd_names:
        cluster.remount()
        target = memory / "copy"
        copy_and_kill(
            cluster,
            place / "large",
            target,
            victim,
            begun=lambda target=target: (
                target.exists() and target.stat().st_size > large_file.stat().st_size // 4
            ),
        )
        assert sha256_of(target) == sha256_of(large_file)
        target.unlink()
        cluster.start(victim)
        cluster.wait_healthy()
