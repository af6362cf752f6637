"""A host with a mount vanishes while it holds locks and unwritten data; then it returns.

The cluster gives silent clients up after 5 s (30 s by default).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.t5_faults.clocks import Clocked
from tests.t5_faults.disks import run
from tests.t5_faults.harness import FaultyCluster
from tests.t5_process.observed import wait_for

Saw = Callable[[str], None]
SIZE = 200_000
FENCE_S = 5.0


@contextlib.contextmanager
def opened(path: Path, flags: int = os.O_RDWR | os.O_CREAT) -> Iterator[int]:
    """An open file, closed in any case."""
    descriptor = os.open(path, flags)
    try:
        yield descriptor
    finally:
        with contextlib.suppress(OSError):  # what was not stored is reported here too
            os.close(descriptor)


@contextlib.contextmanager
def vanished(cluster: FaultyCluster, how: str) -> Iterator[None]:
    """Inside, the host of the first mount is cut off, or its mount is frozen."""
    if how == "frozen":
        with cluster.stopped("mnt"):
            yield
    else:
        cluster.network.isolate("mnt")
        yield
        cluster.network.heal()


@pytest.mark.parametrize("how", ["cut off", "frozen"])
def test_host_vanishes(fenced: FaultyCluster, saw: Saw, how: str) -> None:
    """F24, F12: others wait for its locks and leases no longer than its fence; then it is late."""
    here, there = fenced.mount_point, fenced.directory / "other"
    name = f"shared-{how.replace(' ', '-')}"
    with opened(here / name) as descriptor:
        os.pwrite(descriptor, b"1" * SIZE, 0)
        os.fsync(descriptor)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        os.pwrite(descriptor, b"2" * SIZE, 0)  # buffered, and never to be seen by anybody
        with vanished(fenced, how):
            started = time.monotonic()
            with opened(there / name) as other:
                fcntl.flock(other, fcntl.LOCK_EX)
                waited_s = time.monotonic() - started
                found = os.pread(other, SIZE, 0)
                assert found in (b"1" * SIZE, b"2" * SIZE), "a mixture, or other bytes"
                os.pwrite(other, b"3" * SIZE, 0)
                os.fsync(other)
        # It is back, and believes to have the lock and the newest data.
        started = time.monotonic()
        with pytest.raises(OSError) as caught:
            os.pwrite(descriptor, b"4" * 10, 0)
            os.fsync(descriptor)
        assert caught.value.errno in (errno.EIO, errno.ESTALE)
        told_s = time.monotonic() - started
        assert (there / name).read_bytes() == b"3" * SIZE
    wait_for(lambda: works(here / f"{name}-again"), "the mount that was away works again")
    assert (here / name).read_bytes() == b"3" * SIZE
    assert (there / f"{name}-again").read_bytes() == b"again"
    saw(
        f"the other host had the lock after {waited_s:.1f} s (fence {FENCE_S:g} s); "
        f"the late one was told by {errno.errorcode[caught.value.errno or 0]} in {told_s:.1f} s"
    )


def works(path: Path) -> bool:
    """Whether a file can be made durable there."""
    try:
        with path.open("wb", buffering=0) as file:
            file.write(b"again")
            os.fsync(file.fileno())
    except OSError as problem:
        assert problem.errno in (errno.EIO, errno.ESTALE)
        return False
    return True


def test_host_suspended(fenced: FaultyCluster, tmp_path: Path, saw: Saw) -> None:
    """F21: a laptop sleeps with all its clocks but one, and wakes up without a network: it does
    not believe what it knew."""
    here, there = fenced.mount_point, fenced.directory / "other"
    laptop = Clocked(fenced, "mnt", tmp_path)
    with laptop.running(), ThreadPoolExecutor(1) as program, contextlib.ExitStack() as cleanup:
        cleanup.callback(fenced.network.heal)
        (here / "slept").write_bytes(b"before")
        assert (here / "slept").read_bytes() == b"before"
        fenced.network.isolate("mnt")
        with fenced.stopped("mnt"):
            started = time.monotonic()
            (there / "slept").write_bytes(b"behind")
            waited_s = time.monotonic() - started
            laptop.jump(monotonic_s=-waited_s)
            fenced.see_log("mnt")
        wait_for(lambda: "was suspended for" in fenced.unseen_log("mnt"), "it notices", 3.0)
        reading = program.submit((here / "slept").read_bytes)
        with pytest.raises(TimeoutError):  # as of any host that can't reach metad
            reading.result(1.0)
        fenced.network.heal()
        started = time.monotonic()
        assert reading.result(30.0) == b"behind"
        saw(
            f"the other host waited {waited_s:.1f} s (fence {FENCE_S:g} s); "
            f"read right {time.monotonic() - started:.1f} s after the network was back"
        )
    wait_for(lambda: works(here / "awake"), "the mount that was away works again")


def test_unlinked_file_of_a_vanished_host(fenced: FaultyCluster, saw: Saw) -> None:
    """F24: what it had open without a name does not stay for ever."""
    here = fenced.mount_point
    with opened(here / "unlinked") as descriptor:
        os.pwrite(descriptor, bytes(SIZE), 0)
        os.fsync(descriptor)
        (here / "unlinked").unlink()
        wait_for(lambda: fenced.orphans() == 1, "it is kept for the host that has it open")
        with vanished(fenced, "cut off"):
            started = time.monotonic()
            wait_for(lambda: fenced.orphans() == 0, "the end of the unlinked file")
            gone_s = time.monotonic() - started
    wait_for(lambda: works(here / "after"), "the mount that was away works again")
    saw(f"reclaimed after {gone_s:.1f} s (fence {FENCE_S:g} s)")


def test_mount_aborted(fenced: FaultyCluster, tmp_path: Path, saw: Saw) -> None:
    """F23: the kernel's end of a mount is cut off: what was fsynced is there, and it ends."""
    here, there = fenced.mount_point, fenced.directory / "other"
    with opened(here / "kept") as kept, opened(here / "dirty") as dirty:
        os.pwrite(kept, b"1" * SIZE, 0)
        os.fsync(kept)
        os.pwrite(dirty, b"2" * SIZE, 0)  # may be lost, but never in part
        fcntl.flock(kept, fcntl.LOCK_EX)
        started = time.monotonic()
        abort(here, tmp_path)
        with pytest.raises(OSError) as caught:
            os.fsync(kept)
        assert caught.value.errno in (errno.ENOTCONN, errno.ECONNABORTED)
    wait_for(lambda: fenced.identity("mnt") is None, "the mount's process ends")
    with opened(there / "kept") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        freed_s = time.monotonic() - started
        assert os.pread(other, SIZE + 1, 0) == b"1" * SIZE
    fenced.restore()
    assert (here / "kept").read_bytes() == b"1" * SIZE
    found = (here / "dirty").read_bytes() if (here / "dirty").exists() else b""
    assert found in (b"", b"2" * SIZE), "a part of what one write wrote"
    assert (there / "kept").read_bytes() == b"1" * SIZE
    saw(
        f"{errno.errorcode[caught.value.errno or 0]}; its lock was free after {freed_s:.1f} s, "
        "mounted again at once"
    )


def abort(point: Path, place: Path) -> None:
    """By fusectl, as an administrator does when a mount hangs."""
    device = point.stat().st_dev
    control = place / "fusectl"
    control.mkdir()
    run("mount", "-t", "fusectl", "fusectl", control)
    try:
        (control / str(os.minor(device)) / "abort").write_text("1")
    finally:
        run("umount", control)
