"""One deployed cluster for most tests here; each leaves it whole, with all services running."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.t7_hosts.cluster import Deployment
from tests.t7_hosts.load import Load
from tests.t7_hosts.playbooks import PROGRAM, Played

PROGRAMS = ("systemd-nspawn", "mmdebstrap", "ssh", "ssh-keygen", "ip", "nft", "unshare")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All tests of this directory boot hosts."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.hosts)


@pytest.fixture(scope="session")
def hosts() -> Iterator[Deployment]:
    """Booted hosts without dfs."""
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if os.geteuid() != 0 or missing or not PROGRAM.exists():
        pytest.fail(f"needs root and 'scripts/setup.sh hosts' (missing: {missing})", pytrace=False)
    deployment = Deployment()
    try:
        yield deployment
    finally:
        deployment.close()


@pytest.fixture(scope="session")
def bootstrap(hosts: Deployment) -> Iterator[Played]:
    """The first run of site.yml.  What is written then is there when all tests are through."""
    played = hosts.playbooks.play("site.yml")
    hosts.write_everything()
    yield played
    hosts.wait_whole()
    hosts.check_everything()


@pytest.fixture
def cluster(hosts: Deployment, bootstrap: Played) -> Iterator[Deployment]:
    """The deployed cluster, whole before a test and after it."""
    hosts.wait_whole()
    yield hosts
    hosts.wait_whole()
    stopped = [host for host, pid in hosts.pids().items() if not pid]
    assert not stopped, f"services that do not run: {stopped}"


@pytest.fixture
def load(cluster: Deployment) -> Iterator[Load]:
    """A program on the mount, whose operations must all succeed."""
    one = cluster.load()
    yield one
    one.close()


@pytest.fixture
def fsx(cluster: Deployment) -> Iterator[Load]:
    """fsx on the mount; it must find nothing."""
    one = cluster.fsx()
    yield one
    one.close()
