"""Chunk servers that die, freeze, come back with old disks, or exist twice."""

from __future__ import annotations

import os
import random
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.t5_faults.chunks import check, write_files
from tests.t5_faults.harness import METAD, FaultyCluster, long_run, nightly
from tests.t5_faults.load import Load, seen
from tests.t5_process.observed import sha256_of, wait_for

VICTIM = "chunkd1"
Saw = Callable[[str], None]


def copies_ordered(cluster: FaultyCluster) -> int:
    """How often repair has ordered copies, as metad's log says."""
    return cluster.log_text("metad").count("copies ordered")


def test_killed_again_and_again(
    cluster: FaultyCluster, load: Load, rng: random.Random, saw: Saw
) -> None:
    """F1, F2, F3: one chunkd after the other dies and is back before it is missed: no repair."""
    missed_s = METAD["down_s"] + METAD["repair_after_s"]
    deaths = in_time = 0
    with load.watched() as longest:
        while in_time < 4:
            deaths += 1
            assert deaths <= 12, f"only {in_time} starts were quick enough to show anything"
            before, died_s = copies_ordered(cluster), time.monotonic()
            name = rng.choice(cluster.chunkd_names)
            cluster.kill(name)
            load.wait_progress(1)
            cluster.start(name)
            was_in_time = time.monotonic() - died_s < missed_s
            cluster.wait_healthy()
            if was_in_time:  # a busy machine may need longer for a start
                in_time += 1
                assert copies_ordered(cluster) == before, "a server that flaps starts repair"
    saw(f"{seen(longest)}; no repair started in {in_time} of {deaths} deaths")


@pytest.mark.parametrize("seconds", [*nightly(0.5), 4.0])
def test_frozen(
    cluster: FaultyCluster,
    load: Load,
    healing: Callable[[], float],
    saw: Saw,
    seconds: float,
) -> None:
    """F16: stopped with its connections open, and awake again."""
    with load.watched() as longest:
        with cluster.stopped(VICTIM):
            time.sleep(seconds)
            load.wait_progress(1)
        back_s = healing()
        load.wait_progress(1)
    saw(f"{seen(longest)}; whole {back_s:.1f} s after it woke up")


def test_stale_server_returns(cluster: FaultyCluster, place: Path, load: Load, saw: Saw) -> None:
    """F25: while it is away half of its files are deleted or overwritten: nothing comes back."""
    digests = write_files(place, 16, 100_000)
    cluster.kill(VICTIM)
    paths = sorted(digests)
    for path in paths[:4]:
        path.unlink()
        del digests[path]
    for path in paths[4:8]:
        path.write_bytes(os.urandom(120_000))
        digests[path] = sha256_of(path)
    with load.watched() as longest:
        wait_for(lambda: cluster.status().chunks.under_replicated == 0, "repair without it")
        load.wait_progress()
    started = time.monotonic()
    cluster.start(VICTIM)
    cluster.wait_healthy()
    cluster.wait_sound(*digests)
    reconciled_s = time.monotonic() - started
    check(digests)
    assert not any(path.exists() for path in paths[:4]), "a deleted file is there again"
    saw(f"{seen(longest)}; reconciled {reconciled_s:.1f} s after its return")


def test_disk_of_yesterday(cluster: FaultyCluster, place: Path, load: Load, saw: Saw) -> None:
    """F25: a disk image of an earlier time is put back: old chunks are not taken for new ones."""
    old = write_files(place, 8, 100_000)
    disk = cluster.disks[VICTIM]
    cluster.kill(VICTIM)
    image = disk.snapshot()
    cluster.start(VICTIM)
    cluster.wait_healthy()
    paths = sorted(old)
    digests = {}
    for path in paths[:4]:
        path.unlink()
    for path in paths[4:]:
        path.write_bytes(os.urandom(130_000))
        digests[path] = sha256_of(path)
    later = place / "later"
    later.mkdir()
    digests |= write_files(later, 6, 100_000)
    cluster.kill(VICTIM)
    disk.roll_back(image)
    started = time.monotonic()
    with load.watched() as longest:
        cluster.start(VICTIM)
        cluster.wait_healthy()
        cluster.wait_sound(*digests)
        load.wait_progress()
    saw(f"{seen(longest)}; whole {time.monotonic() - started:.1f} s after its return")
    check(digests)


@long_run
def test_cloned_server(cluster: FaultyCluster, load: Load, saw: Saw, tmp_path: Path) -> None:
    """F26: a second host starts with a copy of the first one's data: it is refused, and ends."""
    clone = tmp_path / "clone"
    shutil.copytree(cluster.data(VICTIM), clone)
    daemon = cluster.daemon(VICTIM)
    config = tmp_path / "chunkd.toml"
    other = cluster.network.address("chunkd2")
    config.write_text(
        daemon.config.read_text()
        .replace(str(cluster.data(VICTIM)), str(clone))
        .replace(f'"{cluster.network.address(VICTIM)}:', f'"{other}:')
    )
    words = [*cluster.network.inside("chunkd2"), *daemon.command[daemon.command.index("-P") - 1 :]]
    words[words.index(str(daemon.config))] = str(config)
    started = time.monotonic()
    with load.watched() as longest:
        done = subprocess.run(words, capture_output=True, text=True, timeout=40, cwd="/")
        load.wait_progress()
    assert done.returncode == 2, done.stderr
    assert "already up" in done.stderr or "started again" in done.stderr, done.stderr
    assert len(cluster.status().servers) == 3
    assert cluster.server(VICTIM).address.startswith(cluster.network.address(VICTIM))
    saw(f"{seen(longest)}; the clone gave up after {time.monotonic() - started:.1f} s")


@long_run
def test_swapped_disks(cluster: FaultyCluster, load: Load, saw: Saw) -> None:
    """F31: two servers are started with each other's disks: each is the server of its disk."""
    first, second = cluster.daemon("chunkd1"), cluster.daemon("chunkd2")
    texts = {daemon.name: daemon.config.read_text() for daemon in (first, second)}
    with load.watched() as longest:
        cluster.kill(first.name, second.name)
        try:
            for one, other in ((first, second), (second, first)):
                swapped = texts[one.name].replace(
                    str(cluster.data(one.name)), str(cluster.data(other.name))
                )
                one.config.write_text(swapped)
            cluster.start(first.name, second.name)
            cluster.wait_healthy()
            load.wait_progress()
        finally:
            cluster.kill(first.name, second.name)
            for daemon in (first, second):
                daemon.config.write_text(texts[daemon.name])
            cluster.start(first.name, second.name)
    cluster.wait_healthy()
    saw(seen(longest))


@long_run
def test_few_descriptors(cluster: FaultyCluster, load: Load, saw: Saw) -> None:
    """F32: a chunkd may open hardly any more files: it refuses, others take what comes."""
    pid = cluster.pid(VICTIM)
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    used = len(list(Path(f"/proc/{pid}/fd").iterdir()))
    with load.watched() as longest:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (used + 1, before[1]))
        try:
            load.wait_progress(5)
        finally:
            resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
    assert cluster.pid(VICTIM) == pid, "it has ended"
    saw(seen(longest))


@long_run
def test_stalls(cluster: FaultyCluster, load: Load, saw: Saw) -> None:
    """F32: every daemon in turn stands still for half a second."""
    with load.watched() as longest:
        for name in ("metad", *cluster.chunkd_names):
            os.kill(cluster.pid(name), signal.SIGSTOP)
            time.sleep(0.5)
            os.kill(cluster.pid(name), signal.SIGCONT)
        load.wait_progress()
    assert all(server.state == "up" for server in cluster.status().servers)
    saw(seen(longest))
