"""Random operations on a mount and on ext4 must have the same results (tests/stateful)."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.stateful.machine import World
from tests.stateful.oracle import ext4
from tests.stateful.running import missing_abilities, run_machine
from tests.stateful.trouble import Whole
from tests.t4_mount.direct import check_metadata
from tests.t4_mount.harness import LiveCluster, LiveMount


@pytest.fixture
def plain(tmp_path: Path) -> Iterator[Path]:
    with ext4(tmp_path) as place:
        yield place


@pytest.fixture
def mounts(cluster: LiveCluster) -> Iterator[list[LiveMount]]:
    """Two that may be mounted anew."""
    both = [cluster.mount(f"stateful{number}", "allow_other") for number in range(2)]
    yield both
    for mount in both:
        cluster.unmount(mount)


@pytest.mark.parametrize("count", [1, 2], ids=["one-mount", "two-mounts"])
def test_mounts_behave_like_ext4(
    cluster: LiveCluster, mounts: list[LiveMount], plain: Path, rng: random.Random, count: int
) -> None:
    mounts = mounts[:count]
    roots = [mount.point for mount in mounts]

    def check() -> None:
        assert not check_metadata(cluster.metad).findings

    assert not missing_abilities(roots)
    world = World(
        roots=roots,
        plain=plain,
        remount=lambda view: mounts[view].restart(),
        check=check,
    )
    run_machine(lambda: Whole(world), rng, examples=12, steps=80)
