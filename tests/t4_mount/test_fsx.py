"""Random operations on the bytes of files (tests/fsx), on one mount and on two in turn.

`make fsx` runs millions.  A failure tells its seed, which `make fsx SEED=...` takes.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fsx.campaign import Settings, run
from tests.fsx.operations import SMALL, SPARSE, Shape
from tests.fsx.system import missing_kinds
from tests.t4_mount.conftest import TwoViews
from tests.t4_mount.harness import LiveCluster, LiveMount


def _settings(
    roots: list[Path], tmp_path: Path, rng: random.Random, count: int, shape: Shape = SMALL
) -> Settings:
    assert missing_kinds(roots[0]) == {}
    return Settings(
        roots=roots,
        log=tmp_path / "fsx.log",
        seed=rng.randrange(1 << 30),
        operations=count,
        shape=shape,
        without=frozenset({"drop_caches"}),  # it is everybody's on this host
        say=print,
    )


@pytest.fixture
def own_mount(cluster: LiveCluster) -> Iterator[LiveMount]:
    """One that may be mounted anew."""
    mount = cluster.mount("fsx")
    yield mount
    cluster.unmount(mount)


def test_one_mount(own_mount: LiveMount, tmp_path: Path, rng: random.Random) -> None:
    settings = _settings([own_mount.point], tmp_path, rng, 4000)
    settings.remounts = [own_mount.restart]
    run(settings)


def test_sparse_files_on_one_mount(here: Path, tmp_path: Path, rng: random.Random) -> None:
    run(_settings([here], tmp_path, rng, 2000, shape=SPARSE))


def test_two_mounts_in_turn(views: TwoViews, tmp_path: Path, rng: random.Random) -> None:
    run(_settings([views.a, views.b], tmp_path, rng, 1500))
