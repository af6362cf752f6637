"""One cluster for most tests here: after each of them it must be whole again, and prove it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.t5_process.harness import Cluster
from tests.t5_process.programs import Worker
from tests.t5_process.wholeness import own_place, whole

LARGE_BYTES = 160 << 20


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All tests of this directory start real daemons."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.process)


@pytest.fixture(scope="session")
def _usable() -> None:
    """Real mounts need root and /dev/fuse; in CI their absence is a failure."""
    if os.geteuid() == 0 and Path("/dev/fuse").exists():
        return
    reason = "needs root and /dev/fuse"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def _shared_cluster(_usable: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    cluster = Cluster(tmp_path_factory.mktemp("cluster"))
    try:
        cluster.write_files()
        cluster.up()
        cluster.mount()
        yield cluster
    finally:
        cluster.close()


@pytest.fixture
def cluster(_shared_cluster: Cluster) -> Iterator[Cluster]:
    """The shared cluster, mounted and healthy; afterwards it must be so again."""
    with whole(_shared_cluster):
        yield _shared_cluster


@pytest.fixture
def place(cluster: Cluster, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A directory of this test's own on the mount."""
    with own_place(cluster, request.node.name) as directory:
        yield directory


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[Callable[[str, Path], Worker]]:
    """worker(kind, directory) starts a program of workload.py."""
    workers: list[Worker] = []

    def start(kind: str, directory: Path) -> Worker:
        one = Worker(kind, directory, tmp_path / f"record-{len(workers)}")
        workers.append(one)
        return one

    yield start
    for one in workers:
        one.close()


@pytest.fixture(scope="session")
def memory() -> Iterator[Path]:
    """A directory in memory: the other end of copies, faster than any disk."""
    base = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=base if base.is_dir() else None) as directory:
        yield Path(directory)


@pytest.fixture(scope="session")
def large_file(memory: Path) -> Path:
    """A large file of random bytes, outside of the mount."""
    path = memory / "large"
    with path.open("wb") as file:
        for _ in range(LARGE_BYTES >> 20):
            file.write(os.urandom(1 << 20))
    return path
