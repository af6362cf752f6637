"""Random operations on two mounts and on ext4 (tests/stateful), while the cluster's processes die.

All rules: mounts are mounted anew, metad is killed and started again, a chunkd is lost and comes
back; nothing of that may show in any result.
"""

from __future__ import annotations

import inspect
import random
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis.stateful import RULE_MARKER

from dfsmount.cli.processes import identity_of, remember
from tests.stateful.machine import World
from tests.stateful.oracle import ext4
from tests.stateful.running import missing_abilities, run_machine
from tests.stateful.trouble import Whole
from tests.t5_process.harness import READY_S, Cluster
from tests.t5_process.observed import wait_for


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


@pytest.fixture
def shell() -> Iterator[subprocess.Popen[str]]:
    """Starts metad for us.

    A child of this process has all its files open until it runs another program, and closing those
    that have something to be stored waits for metad, which is what the child is to become.
    """
    pipe = subprocess.PIPE
    with subprocess.Popen(["sh"], stdin=pipe, stdout=pipe, text=True, bufsize=1) as process:
        yield process
        assert process.stdin is not None
        process.stdin.close()


def start_metad(cluster: Cluster, shell: subprocess.Popen[str]) -> None:
    """Returns when it answers."""
    metad = cluster.daemon("metad")
    assert shell.stdin is not None and shell.stdout is not None
    log = shlex.quote(str(metad.log))
    shell.stdin.write(f"{shlex.join(metad.command)} >> {log} 2>&1 & echo $!\n")
    identity = identity_of(int(shell.stdout.readline()))
    assert identity is not None
    remember(identity, metad.pid_file)
    wait_for(cluster.answers, "metad answers", READY_S)


def test_faults_do_not_show(
    cluster: Cluster,
    mounts: list[Path],
    plain: Path,
    shell: subprocess.Popen[str],
    rng: random.Random,
) -> None:
    def remount(view: int) -> None:
        cluster.unmount(mounts[view])
        cluster.mount(mounts[view], "allow_other")

    def restart_metad() -> None:
        cluster.kill("metad")
        start_metad(cluster, shell)

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
