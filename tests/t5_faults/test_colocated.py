"""Two servers on one host: their copies are lost together, so no chunk is on both."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.t5_faults.chunks import check, copies_of, write_files
from tests.t5_faults.harness import FaultyCluster
from tests.t5_process.observed import wait_for
from tests.t5_process.wholeness import proven

HOSTS = {"chunkd1": "one", "chunkd2": "one", "chunkd3": "two"}
Saw = Callable[[str], None]


@pytest.fixture
def uneven(breakable: None, tmp_path: Path) -> Iterator[FaultyCluster]:
    """Three servers on two hosts."""
    cluster = FaultyCluster(
        tmp_path / "cluster",
        isolated=False,
        hostnames=HOSTS,
        disk_bytes=0,
        metad={"trim_after_s": 1.0},
    )
    try:
        cluster.up()
        cluster.wait_healthy()
        cluster.mount()
        with proven(cluster):
            yield cluster
    finally:
        cluster.close()


def hosts_of(cluster: FaultyCluster, digests: dict[Path, str]) -> dict[bytes, list[str]]:
    """On which hosts the copies of each chunk are."""
    found: dict[bytes, list[str]] = {}
    for copy in copies_of(cluster, digests):
        found.setdefault(copy.chunk, []).append(HOSTS[copy.server])
    return found


def apart(cluster: FaultyCluster, digests: dict[Path, str]) -> bool:
    """Every chunk is on both hosts."""
    return all(set(each) == {"one", "two"} for each in hosts_of(cluster, digests).values())


def test_two_servers_on_one_host(uneven: FaultyCluster, saw: Saw) -> None:
    """F27: copies are on different hosts; where that cannot be they are not called so, and move."""
    place = uneven.mount_point
    digests = write_files(place, 16, 100_000)
    assert apart(uneven, digests)
    # A host is lost: two copies on the other one are better than one, while there is no better.
    uneven.kill("chunkd3")
    wait_for(lambda: uneven.server("chunkd3").state == "down", "it counts as down")
    wait_for(lambda: uneven.status().chunks.under_replicated == 0, "repair onto one host")
    uneven.start("chunkd3")
    wait_for(lambda: apart(uneven, digests), "the copies are on different hosts again")
    uneven.wait_healthy()
    uneven.remount()
    # The other one is lost, two servers at a time.
    uneven.kill("chunkd1", "chunkd2")
    check(digests)
    saw("each chunk was on both hosts; two servers lost at once were one copy")
