"""One cluster for most tests here: after each of them it must be whole again, and prove it."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.t5_process.harness import Cluster
from tests.t5_process.programs import Worker

LARGE_BYTES = 160 << 20
# After that a test hangs, and its mounts are aborted so that it fails.
PATIENCE_S = float(os.environ.get("DFS_TEST_LIMIT_S", "120"))


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
    with hurried(_shared_cluster):
        _shared_cluster.restore()
        _shared_cluster.wait_healthy()
        yield _shared_cluster
        _shared_cluster.restore()
        _shared_cluster.wait_healthy()
        _shared_cluster.check_fsck()
        _shared_cluster.check_logs()


@contextlib.contextmanager
def hurried(cluster: Cluster) -> Iterator[None]:
    """Aborts the cluster's mounts when the block takes too long, so that what hangs fails."""
    timer = threading.Timer(PATIENCE_S, cluster.abort_mounts)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()


@pytest.fixture
def place(cluster: Cluster, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A directory of this test's own on the mount.

    Afterwards what metad says of its chunks is compared with the disks, and it is removed.
    """
    name = "".join(letter if letter.isalnum() else "-" for letter in request.node.name)
    directory = cluster.mount_point / name
    directory.mkdir()
    yield directory
    cluster.restore()
    cluster.wait_healthy()
    cluster.wait_sound(*(path for path in directory.rglob("*") if path.is_file()))
    shutil.rmtree(directory)


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
