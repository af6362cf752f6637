"""A mount ends whatever its kernel and the processes on it are waiting for."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.t4_mount.harness import LiveCluster, eventually

PROGRAM = Path(__file__).parent / "slow_mount.py"
MAKE = "import sys; open(sys.argv[1], 'x')"
UNSTICK_S = 60.0


@pytest.fixture
def limit_s() -> float:
    return 150.0


def is_telling(pid: int) -> bool:
    """Does a thread of this process wait in the kernel for the lock of a directory?"""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return any((task / "wchan").read_text() == "fuse_reverse_inval_entry" for task in tasks)


def test_a_mount_ends_while_it_tells_the_kernel_of_a_name(cluster: LiveCluster, here: Path) -> None:
    """The kernel waits for a directory's lock, its holder for an answer of this mount."""
    point, slow = cluster.directory.parent / "slowly", cluster.directory.parent / "slow"
    command = [sys.executable, str(PROGRAM), cluster.metad, str(point), "-o", "nocache"]
    mount = cluster.mount("slowly", command=command)
    there = point / here.name
    (here / "name").touch()
    assert (there / "name").exists()
    pid = mount.pid
    slow.touch()
    maker = subprocess.Popen([sys.executable, "-c", MAKE, there / "new"], stderr=subprocess.DEVNULL)
    unstick = threading.Timer(UNSTICK_S, maker.kill)  # for when this test fails
    unstick.start()

    def something_happens() -> bool:
        (here / "name").unlink(missing_ok=True)
        (here / "name").touch()
        return is_telling(pid)

    try:
        eventually(something_happens, 30)
        mount.stop()
    finally:
        unstick.cancel()
        maker.kill()
        maker.wait()
        slow.unlink()
        cluster.mounts.remove(mount)
