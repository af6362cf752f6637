"""What surrounds each test of a cluster of real processes: whole before it, and after it."""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

from tests.t5_process.harness import Cluster

# After that a test hangs, and its mounts are aborted so that it fails.
PATIENCE_S = float(os.environ.get("DFS_TEST_LIMIT_S", "120"))


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


@contextlib.contextmanager
def proven(cluster: Cluster) -> Iterator[None]:
    """After the block everything runs and is redundant, and neither fsck nor a log complains."""
    with hurried(cluster):
        yield
        cluster.restore()
        cluster.wait_healthy()
        cluster.check_fsck()
        cluster.check_logs()


@contextlib.contextmanager
def whole(cluster: Cluster) -> Iterator[None]:
    """The same, and all runs and is redundant before the block too."""
    with proven(cluster):
        cluster.restore()
        cluster.wait_healthy()
        yield


@contextlib.contextmanager
def own_place(cluster: Cluster, test: str) -> Iterator[Path]:
    """A directory of this test's own on the mount.

    Afterwards what metad says of its chunks is compared with the disks, and it is removed.
    """
    name = "".join(letter if letter.isalnum() else "-" for letter in test)
    directory = cluster.mount_point / name
    directory.mkdir()
    yield directory
    cluster.restore()
    cluster.wait_healthy()
    cluster.wait_sound(*(path for path in directory.rglob("*") if path.is_file()))
    shutil.rmtree(directory)
