"""Fixtures of the tests on real mounts: one cluster and two mounts for the whole session.

Each test gets a fresh directory on the mount; after each test the daemons must live and the
metadata must agree with itself, after the session the logs must be free of warnings.
Without root or /dev/fuse these tests are skipped, except in CI, where they fail.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.stateful.oracle import ext4
from tests.t4_mount.compare import Sides
from tests.t4_mount.direct import check_metadata
from tests.t4_mount.harness import LiveCluster, LiveMount, Watchdog, missing_for_mounts

HERE = Path(__file__).parent
TEST_LIMIT_S = float(os.environ.get("DFS_TEST_LIMIT_S", "90"))

cluster_key = pytest.StashKey[LiveCluster]()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.mount)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failure comes with the last lines of all logs."""
    report = yield
    cluster = item.session.stash.get(cluster_key, None)
    if report.failed and cluster is not None:
        report.sections.append(("logs of the cluster", cluster.last_words()))
    return report


@pytest.fixture(scope="session")
def can_mount() -> None:
    """Skip where nothing can be mounted; fail there when CI=true."""
    if reason := missing_for_mounts():
        if os.environ.get("CI") == "true":
            pytest.fail(f"CI must be able to mount: {reason}", pytrace=False)
        pytest.skip(reason)


@pytest.fixture(scope="session")
def cluster(
    can_mount: None, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LiveCluster]:
    """The cluster; when it goes, it must be clean and have logged nothing alarming."""
    cluster = LiveCluster(tmp_path_factory.mktemp("live") / "cluster")
    request.session.stash[cluster_key] = cluster
    try:
        yield cluster
        report = cluster.fsck()
    finally:
        cluster.down()
    assert not report.count, f"dfs fsck: {report.findings}"
    alarming = cluster.alarming_lines()
    assert not alarming, "in the logs:\n" + "\n".join(alarming)


@pytest.fixture(scope="session")
def mount_a(cluster: LiveCluster) -> LiveMount:
    return cluster.mount("a", "allow_other,dev,suid")


@pytest.fixture(scope="session")
def mount_b(cluster: LiveCluster) -> LiveMount:
    return cluster.mount("b")


@pytest.fixture(scope="session")
def acl_mounts(cluster: LiveCluster) -> tuple[LiveMount, LiveMount]:
    options = "allow_other,suid,acl"
    return cluster.mount("acl-a", options), cluster.mount("acl-b", options)


@pytest.fixture(scope="module")
def deaf(cluster: LiveCluster) -> Iterator[LiveMount]:
    """A mount that obeys no invalidation; with ACLs."""
    program = [sys.executable, str(HERE / "deaf_mount.py")]
    point = cluster.directory.parent / "deaf"
    mount = cluster.mount("deaf", command=[*program, cluster.metad, str(point), "-o", "acl"])
    yield mount
    cluster.unmount(mount)


@pytest.fixture
def limit_s() -> float:
    """How long a test may take."""
    return TEST_LIMIT_S


@pytest.fixture(autouse=True)
def guard(cluster: LiveCluster, limit_s: float) -> Iterator[None]:
    """Around each test: a time limit, living daemons, consistent metadata."""
    watchdog = Watchdog(cluster)
    with watchdog.watch(limit_s):
        yield
        report = check_metadata(cluster.metad)
    if watchdog.barked:
        for mount in cluster.mounts:
            mount.clear()
            mount.start()
        pytest.fail(f"hung for {limit_s:g} s; the mounts were killed", pytrace=False)
    cluster.check_alive()
    for mount in cluster.mounts:
        assert mount.is_running, f"the mount on {mount.point} ended\n{cluster.last_words()}"
    assert not report.count, f"fsck: {report.findings}"


def _fresh_name(request: pytest.FixtureRequest) -> str:
    name = "".join(letter if letter.isalnum() else "_" for letter in request.node.name)
    return f"{request.path.stem}-{name}"[:200]


@pytest.fixture
def here(mount_a: LiveMount, request: pytest.FixtureRequest) -> Path:
    """A fresh directory on the mount."""
    directory = mount_a.point / _fresh_name(request)
    directory.mkdir()
    return directory


@pytest.fixture(scope="session")
def ext4_root(can_mount: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A directory on ext4."""
    with ext4(tmp_path_factory.mktemp("oracle")) as place:
        yield place


@pytest.fixture
def sides(here: Path, ext4_root: Path, request: pytest.FixtureRequest) -> Sides:
    """A fresh directory, open to everybody, on the mount and on ext4."""
    plain = ext4_root / _fresh_name(request)
    plain.mkdir()
    for side in (here, plain):
        side.chmod(0o777)
    return Sides(here, plain)


@dataclass(frozen=True)
class TwoViews:
    """One directory as two mounts see it."""

    a: Path
    b: Path


@pytest.fixture
def views(mount_a: LiveMount, mount_b: LiveMount, request: pytest.FixtureRequest) -> TwoViews:
    """A fresh directory on both mounts."""
    name = _fresh_name(request)
    (mount_a.point / name).mkdir()
    return TwoViews(mount_a.point / name, mount_b.point / name)
