"""Random operations on two mounts and on ext4 (tests/stateful), while the cluster's processes die.

All rules: mounts are mounted anew, metad is killed and started again, a chunkd is lost and comes
back; nothing of that may show in any result.
"""

from __future__ import annotations

import inspect
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis.stateful import RULE_MARKER

from tests.stateful.machine import World
from tests.stateful.oracle import ext4
from tests.stateful.running import missing_abilities, run_machine
from tests.stateful.trouble import Whole
from tests.t5_process.harness import Cluster


@pytest.fixture
def plain(tmp_path: Path) -> Iterator[Path]:
    with ext4(tmp_path) as place:
        yield place


@pytest.fixture
def mounts(cluster: Cluster) -> Iterator[list[Path]]:
    points = [cluster.directory / f"stateful{number}" for number in range(2)]
    for point in points:
        cluster.mount(point, "allow_other")
    yield points
    for point in points:
        cluster.unmount(point)


def test_faults_do_not_show(
    cluster: Cluster, mounts: list[Path], plain: Path, rng: random.Random
) -> None:
    def remount(view: int) -> None:
        cluster.unmount(mounts[view])
        cluster.mount(mounts[view], "allow_other")

    def restart_metad() -> None:
        cluster.kill("metad")
        cluster.start("metad")

    def check() -> None:
        cluster.wait_healthy()
        cluster.check_fsck()

    assert not missing_abilities(mounts)
    world = World(
        roots=mounts,
        plain=plain,
        remount=remount,
        restart_metad=restart_metad,
        lose_chunkd=lambda number: cluster.kill(cluster.chunkd_names[number]),
        return_chunkds=cluster.restore,
        check=check,
    )
    run_machine(lambda: Whole(world), rng, examples=5, steps=100)


def test_there_are_sixty_rules() -> None:
    members = inspect.getmembers(Whole)
    assert sum(hasattr(member, RULE_MARKER) for _, member in members) >= 60
