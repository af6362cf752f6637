"""Two neighbouring releases in one cluster: any mixture of them works, and so do the upgrade while
programs use the mount, and the way back (see nextrelease.py)."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from chunkd.journal import DIRECTORY as JOURNAL
from dfswire.daemon import software_version
from dfswire.journalfile import parse_segment
from tests.t5_faults import nextrelease
from tests.t5_faults.altered import Altered
from tests.t5_faults.chunks import check, write_files
from tests.t5_faults.harness import NIGHTLY, FaultyCluster
from tests.t5_faults.load import Load, seen

THIS, NEXT = software_version(), nextrelease.VERSION
Saw = Callable[[str], None]
Mixture = tuple[str, str, str]  # the releases of metad, chunkds and mount

# In this order one thing changes at a time; those left out are passed by test_rolling_upgrade.
MIXTURES: list[Mixture] = [
    *([(THIS, THIS, THIS), (THIS, THIS, NEXT)] if NIGHTLY else []),
    (NEXT, THIS, NEXT),
    (NEXT, THIS, THIS),
    *([(NEXT, NEXT, THIS), (NEXT, NEXT, NEXT)] if NIGHTLY else []),
    (THIS, NEXT, NEXT) if NIGHTLY else (THIS, THIS, NEXT),
    (THIS, NEXT, THIS) if NIGHTLY else (THIS, NEXT, NEXT),
]


class Releases:
    """Which release each process of a cluster is of, and how it gets another one."""

    def __init__(self, cluster: FaultyCluster, tree: Path) -> None:
        self._cluster = cluster
        self._words = {THIS: {}, NEXT: nextrelease.words(tree)}
        self._mount = THIS
        self._daemons = dict.fromkeys(["metad", *cluster.chunkd_names], THIS)

    def change(self, name: str, release: str) -> None:
        """Stop a daemon as a service manager does, and start it from that release's code."""
        if self._daemons[name] == release:
            return
        os.kill(self._cluster.pid(name), signal.SIGTERM)
        assert self._cluster.exit_status(name) == 0
        self._daemons[name] = release
        self._altered(name, release).start()

    def remount(self, release: str) -> None:
        """Unmount, and mount with that release's code: nothing is cached."""
        self._cluster.unmount()
        self._mount = release
        self._altered(self._cluster.mount_point.name, release).start()

    def take(self, mixture: Mixture) -> None:
        """Make the cluster this mixture."""
        metad, chunkds, mount = mixture
        self.change("metad", metad)
        for name in self._cluster.chunkd_names:
            self.change(name, chunkds)
        self.remount(mount)
        self._cluster.wait_healthy()
        self.check()

    def check(self) -> None:
        """metad knows everybody as what they should be."""
        status = self._cluster.status()
        assert status.software == self._daemons["metad"]
        for name in self._cluster.chunkd_names:
            assert self._cluster.server(name).software == self._daemons[name]
        point = str(self._cluster.mount_point)
        (mount,) = [each for each in status.sessions if each.mount_point == point]
        assert mount.software == self._mount

    def restore(self) -> None:
        """Everything is of this release again."""
        if {self._mount, *self._daemons.values()} != {THIS}:
            self.take((THIS, THIS, THIS))

    def _altered(self, name: str, release: str) -> Altered:
        return Altered(self._cluster, name, self._words[release])


@contextlib.contextmanager
def second_mount(cluster: FaultyCluster, tree: Path) -> Iterator[Path]:
    """Another mount on the same host, of the next release."""
    point = cluster.directory / "second" / cluster.mount_point.name
    point.mkdir(parents=True)
    with pytest.MonkeyPatch.context() as environment:
        for name, value in nextrelease.words(tree).items():
            environment.setenv(name, value)
        cluster.mount(point)
    try:
        yield point
    finally:
        cluster.unmount(point)


def check_additions(cluster: FaultyCluster) -> None:
    """The older ones have met what they do not know, and said so."""
    mount = cluster.log_text(cluster.mount_point.name)
    for service in ("metad", "chunkd"):
        assert f"{nextrelease.UNKNOWN_CALL} {service}.greet" in mount
    for name in cluster.chunkd_names:
        assert f"{nextrelease.UNKNOWN_CALL} metad.greet" in cluster.log_text(name)
        assert nextrelease.UNKNOWN_ORDER in cluster.log_text(name)


def check_files_of_next(cluster: FaultyCluster) -> None:
    """What the next release writes to disk has more in it, and this one can read it."""
    added = nextrelease.ADDED.encode()
    for name in cluster.chunkd_names:
        assert added in (cluster.data(name) / "identity").read_bytes()
        segments = sorted((cluster.data(name) / JOURNAL).glob("*.journal"))
        contents = [each.read_bytes() for each in segments]
        assert any(added in each for each in contents)
        assert all(parse_segment(each).header.cluster_id for each in contents)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The code of the next release."""
    return nextrelease.build(tmp_path_factory.mktemp("release") / "next")


@pytest.fixture
def releases(cluster: FaultyCluster, tree: Path) -> Iterator[Releases]:
    """Afterwards everything is of this release."""
    found = Releases(cluster, tree)
    yield found
    cluster.restore()
    found.restore()


def test_mixtures(
    cluster: FaultyCluster, releases: Releases, place: Path, tmp_path: Path, saw: Saw
) -> None:
    """F28: programs write, fsync, rename and read past the caches in each mixture, and find what
    they wrote in those before."""
    digests: dict[Path, str] = {}
    for number, mixture in enumerate(MIXTURES):
        releases.take(mixture)
        check(digests)
        here, records = place / f"{number}", tmp_path / f"{number}"
        here.mkdir()
        records.mkdir()
        with Load(cluster, here, records) as load:
            load.wait_progress()
            load.finish()
            digests |= {here / each["name"]: each["sha256"] for each in load.acknowledged()}
        check(digests)
    check_additions(cluster)
    releases.restore()
    check(digests)
    saw(f"nothing: {len(MIXTURES)} mixtures, {len(digests)} files")


def test_rolling_upgrade(
    cluster: FaultyCluster, releases: Releases, tree: Path, load: Load, place: Path, saw: Saw
) -> None:
    """F28: chunkds one by one, metad, another mount; then all the way back."""
    order = [*cluster.chunkd_names, "metad"]
    started = time.monotonic()
    with load.watched() as longest:
        for name in order:
            releases.change(name, NEXT)
            cluster.wait_healthy()
            load.wait_progress(1)
        releases.check()
        with second_mount(cluster, tree) as point:
            there = point / place.name / "of-next"
            there.mkdir()
            digests = write_files(there, 4, 300_000)
            check({place / "of-next" / path.name: digests[path] for path in digests})
            load.wait_progress(1)
        check_files_of_next(cluster)
        for name in reversed(order):
            releases.change(name, THIS)
            cluster.wait_healthy()
            load.wait_progress(1)
        releases.check()
    took_s = time.monotonic() - started
    cluster.wait_healthy()
    assert len(list((place / "of-next").iterdir())) == len(digests)
    check({place / "of-next" / path.name: digests[path] for path in digests})
    saw(f"{seen(longest)}; upgrade and rollback in {took_s:.0f} s")
