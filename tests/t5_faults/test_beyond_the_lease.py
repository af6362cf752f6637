"""A mount and metad are cut off from each other for longer than its lease, and than its fence.

Lease 3 s, fence 5 s (20 s and 30 s by default).  The chunkds can be reached all the time.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import time
from collections.abc import Callable, Iterator

import pytest

from tests.t5_faults.harness import FaultyCluster
from tests.t5_faults.holder import Holder
from tests.t5_faults.test_clients import works
from tests.t5_process.observed import wait_for

Saw = Callable[[str], None]
SIZE = 200_000
KILLED_WITHIN_S = 2.0
NEW = os.O_RDWR | os.O_CREAT


@contextlib.contextmanager
def cut_off(cluster: FaultyCluster) -> Iterator[None]:
    """Inside, nothing passes between the first mount and metad."""
    cluster.network.cut("mnt", "metad")
    try:
        yield
    finally:
        cluster.network.heal()


def lease_ended(cluster: FaultyCluster) -> bool:
    """Whether the first mount says so."""
    return "the lease ended" in cluster.unseen_log("mnt")


def session_ended(cluster: FaultyCluster) -> bool:
    """Whether metad has given the first mount up."""
    return all(each.mount_point != str(cluster.mount_point) for each in cluster.status().sessions)


def test_shorter_than_the_fence(fenced: FaultyCluster, saw: Saw) -> None:
    """F12: within the lease open files are read and written; then all waits, and goes on."""
    here = fenced.mount_point
    (here / "own").mkdir()
    with Holder() as one, Holder() as waiting, Holder() as killed:
        descriptor = one.do("open", here / "kept", NEW)
        one.do("pwrite", descriptor, b"1" * SIZE, 0)
        one.do("fsync", descriptor)
        fenced.see_log("mnt")
        with cut_off(fenced):
            one.do("pwrite", descriptor, b"2" * SIZE, 0)
            assert one.do("pread", descriptor, SIZE, 0) == b"2" * SIZE
            waiting.begin("mkdir", here / "made")
            killed.begin("mkdir", here / "own" / "never")
            wait_for(lambda: lease_ended(fenced), "the mount's lease ends")
            assert not session_ended(fenced)
            assert waiting.is_waiting, "it goes on without metad"
            assert killed.is_waiting
            assert killed.killed(KILLED_WITHIN_S) == -signal.SIGKILL
        started = time.monotonic()
        waiting.end()
        one.do("fsync", descriptor)
        resumed_s = time.monotonic() - started
    assert (fenced.directory / "other" / "kept").read_bytes() == b"2" * SIZE
    assert (fenced.directory / "other" / "made").is_dir()
    saw(f"waits; went on {resumed_s:.1f} s after the end")


def test_longer_than_the_fence(fenced: FaultyCluster, saw: Saw) -> None:
    """F12: no write of the time before is accepted, though the chunkds took its bytes.

    EIO once for each descriptor; then the mount works on.
    """
    here, there = fenced.mount_point, fenced.directory / "other"
    with Holder() as one:
        descriptors = [one.do("open", here / "late", NEW) for _ in range(2)]
        one.do("pwrite", descriptors[0], b"1" * SIZE, 0)
        one.do("fsync", descriptors[0])
        with cut_off(fenced):
            one.do("pwrite", descriptors[0], b"2" * SIZE, 0)
            one.begin("fsync", descriptors[0])
            wait_for(lambda: session_ended(fenced), "metad gives the mount up")
            (there / "late").write_bytes(b"3" * SIZE)
            assert one.is_waiting, "it was told that its bytes are durable"
        started = time.monotonic()
        with pytest.raises(OSError) as caught:
            one.end()
        assert caught.value.errno == errno.EIO
        with pytest.raises(OSError) as caught:
            one.do("fsync", descriptors[1])
        assert caught.value.errno == errno.EIO
        told_s = time.monotonic() - started
        for descriptor in descriptors:
            one.do("fsync", descriptor)  # told once
        assert one.do("pread", descriptors[1], SIZE, 0) == b"3" * SIZE
    assert (there / "late").read_bytes() == b"3" * SIZE
    wait_for(lambda: works(here / "late-again"), "the mount that was away works again")
    saw(f"EIO once for each descriptor, {told_s:.1f} s after the end")


def test_soft_mount(fenced: FaultyCluster, saw: Saw) -> None:
    """F12: with `-o soft=2` calls end with EIO; when metad is back they work again."""
    here = fenced.mount_point
    fenced.remount("soft=2")
    try:
        (here / "soft").write_bytes(b"1" * SIZE)
        with Holder() as one, cut_off(fenced):
            started = time.monotonic()
            with pytest.raises(OSError) as caught:
                one.do("mkdir", here / "refused")
            assert caught.value.errno == errno.EIO
            refused_s = time.monotonic() - started
            # A file that was closed a while ago: its lease is on the way back.
            with pytest.raises(OSError) as caught:
                one.do("pwrite", one.do("open", here / "soft", os.O_RDWR), b"2", 0)
            assert caught.value.errno == errno.EIO
        wait_for(lambda: works(here / "soft-again"), "the mount works again")
        assert (here / "soft").read_bytes() == b"1" * SIZE
    finally:
        fenced.remount()
    saw(f"EIO after {refused_s:.1f} s")
