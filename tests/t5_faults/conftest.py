"""One cluster of namespaces and small disks for most tests here; after each it must be whole again.

While a test breaks things, programs use the mount and write down what was acknowledged; afterwards
all of that must be there.  What each test saw is printed as a table at the end of the session: it
is where the figures of docs/failures.md come from.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.t5_faults import disks, network
from tests.t5_faults.harness import SHORT_LEASES, FaultyCluster
from tests.t5_faults.load import Load
from tests.t5_process.wholeness import own_place, proven, whole

TOOLS = ["ip", "nft", "tc", "nsenter", "losetup", "blockdev", "filefrag", "mkfs.ext4", "mkfs.xfs"]
HERE = Path(__file__).parent

results_key = pytest.StashKey[list[tuple[str, str]]]()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All tests of this directory start real daemons."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.process)


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """What the faults did."""
    if results := config.stash.get(results_key, None):
        terminalreporter.section("faults")
        for name, line in results:
            terminalreporter.write_line(f"{name}: {line}")


def missing() -> str:
    """Why these tests cannot run here; "" when they can."""
    if os.geteuid() != 0 or not Path("/dev/fuse").exists():
        return "needs root and /dev/fuse"
    if absent := [tool for tool in TOOLS if shutil.which(tool) is None]:
        return f"needs {', '.join(absent)}"
    if not Path("/dev/loop-control").exists():
        return "needs loop devices"
    return ""


@pytest.fixture(scope="session")
def breakable() -> None:
    """Disks and networks can be made here; in CI their absence is a failure."""
    if reason := missing():
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    disks.sweep()
    network.sweep()


@pytest.fixture(scope="session")
def _shared_cluster(
    breakable: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[FaultyCluster]:
    cluster = FaultyCluster(tmp_path_factory.mktemp("faulty"))
    try:
        cluster.up()
        cluster.mount()
        yield cluster
    finally:
        cluster.close()


@pytest.fixture
def cluster(_shared_cluster: FaultyCluster) -> Iterator[FaultyCluster]:
    """The shared cluster, mounted and healthy; afterwards it must be so again."""
    with whole(_shared_cluster):
        yield _shared_cluster


@pytest.fixture(scope="module")
def _fenced_cluster(
    breakable: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[FaultyCluster]:
    directory = tmp_path_factory.mktemp("fenced")
    cluster = FaultyCluster(directory, mounts=["mnt", "other"], metad=SHORT_LEASES)
    try:
        cluster.up()
        cluster.mount()
        cluster.mount(directory / "other")
        yield cluster
    finally:
        cluster.close()


@pytest.fixture
def fenced(_fenced_cluster: FaultyCluster) -> Iterator[FaultyCluster]:
    """A cluster with two mounts that gives silent clients up after 5 s."""
    with proven(_fenced_cluster):
        yield _fenced_cluster


@pytest.fixture
def place(cluster: FaultyCluster, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A directory of this test's own on the mount."""
    with own_place(cluster, request.node.name) as directory:
        yield directory


@pytest.fixture
def load(cluster: FaultyCluster, place: Path, tmp_path: Path) -> Iterator[Load]:
    """Programs at work in `place`; what was acknowledged to them is there when the test is over."""
    with Load(cluster, place, tmp_path) as running:
        running.wait_progress()
        yield running
        cluster.restore()
        running.wait_progress()
        running.finish()
        cluster.wait_healthy()
        cluster.remount()
        running.check()


@pytest.fixture
def saw(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """saw("...") puts a line into the table of this session."""
    results = request.config.stash.setdefault(results_key, [])

    def add(line: str) -> None:
        results.append((request.node.name, line))

    return add


@pytest.fixture
def healing(cluster: FaultyCluster) -> Callable[[], float]:
    """healing() waits for full redundancy; how long that took, in seconds."""

    def wait() -> float:
        started = time.monotonic()
        cluster.wait_healthy()
        return time.monotonic() - started

    return wait
