"""Disks that are full, lose their cable, give errors, forget files: one chunkd suffers alone."""

from __future__ import annotations

import errno
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.t5_faults.chunks import Copy, check, copies_of, write_files
from tests.t5_faults.harness import FaultyCluster, long_run
from tests.t5_faults.load import Load, seen
from tests.t5_process.observed import wait_for

VICTIM = "chunkd1"
Saw = Callable[[str], None]


@pytest.fixture
def written(cluster: FaultyCluster, place: Path) -> dict[Path, str]:
    """Files that no cache of the mount has."""
    digests = write_files(place, 12, 100_000)
    cluster.remount()
    return digests


def failed(cluster: FaultyCluster, name: str) -> bool:
    """`dfs status` says that the disk of this server is broken."""
    return any(disk.failed for disk in cluster.server(name).disks)


def test_disk_full(cluster: FaultyCluster, load: Load, saw: Saw) -> None:
    """F4: others take what comes."""
    with load.watched() as longest, cluster.disks[VICTIM].full():
        load.wait_progress(10)
        assert cluster.server(VICTIM).state == "up"
        assert not failed(cluster, VICTIM)
    saw(seen(longest))


def test_started_on_a_full_disk(cluster: FaultyCluster, written: dict[Path, str]) -> None:
    """F4: a chunkd that dies there starts again, as often as it likes, and serves what it has."""
    copies = copies_of(cluster, written)
    own = {copy.path for copy in copies if copy.server == VICTIM}
    others = [name for name in cluster.chunkd_names if name != VICTIM]
    with cluster.disks[VICTIM].full():
        for _death in range(3):
            cluster.kill(VICTIM)
            cluster.start(VICTIM)
        wait_for(lambda: cluster.server(VICTIM).state == "up", "it is taken for up")
        assert not failed(cluster, VICTIM)
        with cluster.stopped(*others):
            check({path: digest for path, digest in written.items() if path in own})
    cluster.wait_healthy()
    assert own and "its ballast is given up" in cluster.see_log(VICTIM)


@long_run
def test_inodes_used_up(cluster: FaultyCluster, load: Load, saw: Saw) -> None:
    """F4: bytes are free, but no file can be made."""
    with load.watched() as longest, cluster.disks[VICTIM].without_inodes():
        load.wait_progress(10)
        assert cluster.server(VICTIM).state == "up"
        assert not failed(cluster, VICTIM)
    saw(seen(longest))


@long_run  # 30 s: as long as a mount looks for room
def test_all_disks_full(cluster: FaultyCluster, place: Path, saw: Saw) -> None:
    """F4: ENOSPC, and not silently; what is there can be read and removed, and then it goes on."""
    digests = write_files(place, 3, 300_000)
    with (
        cluster.disks["chunkd1"].full(),
        cluster.disks["chunkd2"].full(),
        cluster.disks["chunkd3"].full(),
    ):
        started = time.monotonic()
        with pytest.raises(OSError) as caught:
            durable(place / "refused")
        assert caught.value.errno == errno.ENOSPC
        refused_s = time.monotonic() - started
        check(digests)
        removed, _ = digests.popitem()
        removed.unlink()
        (place / "refused").unlink()
    started = time.monotonic()
    wait_for(lambda: stores(place / "again"), "there is room again")
    saw(f"ENOSPC after {refused_s:.1f} s; room used {time.monotonic() - started:.1f} s later")
    check(digests)


def durable(path: Path) -> None:
    """Make a new file, and make it durable."""
    with path.open("wb", buffering=0) as file:
        file.write(os.urandom(300_000))
        os.fsync(file.fileno())


def stores(path: Path) -> bool:
    """Whether that can be done now."""
    try:
        durable(path)
    except OSError as problem:
        assert problem.errno == errno.ENOSPC
        return False
    return True


def test_disk_gone(
    cluster: FaultyCluster, load: Load, healing: Callable[[], float], saw: Saw
) -> None:
    """F6: every call on the disk fails, fsync too; the daemon lives.  Repair does not wait."""
    with load.watched() as longest:
        cluster.disks[VICTIM].cut()
        started = time.monotonic()
        wait_for(lambda: failed(cluster, VICTIM), "the disk counts as failed")
        noticed_s = time.monotonic() - started
        wait_for(lambda: cluster.status().chunks.under_replicated == 0, "repair onto the others")
        repaired_s = time.monotonic() - started
        load.wait_progress()
    cluster.power_cut(VICTIM)
    cluster.start(VICTIM)
    healing()
    saw(f"{seen(longest)}; noticed {noticed_s:.1f} s, repaired {repaired_s:.1f} s")


def test_unreadable_half(
    cluster: FaultyCluster, written: dict[Path, str], load: Load, saw: Saw
) -> None:
    """F5: the rear of a disk answers EIO; readers get their bytes from elsewhere."""
    disk = cluster.disks[VICTIM]
    victims = [copy for copy in copies_of(cluster, written) if copy.server == VICTIM]
    places = sorted(disk.place_of(copy.file, 0) for copy in victims)
    started = time.monotonic()
    with load.watched() as longest:
        disk.cut_short(places[len(places) // 2])
        for copy in victims:
            handle = os.open(copy.file, os.O_RDONLY)
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(handle)
        check(written)
        load.wait_progress()
        cluster.kill(VICTIM)
        disk.renew("identity")
        cluster.start(VICTIM)
    cluster.wait_healthy()
    cluster.wait_sound(*written)
    saw(f"{seen(longest)}; whole again on a new disk after {time.monotonic() - started:.1f} s")
    check(written)


def test_chunk_files_removed(
    cluster: FaultyCluster, written: dict[Path, str], load: Load, saw: Saw
) -> None:
    """F10: some files are gone behind our back; the inventory finds out."""
    victims = [copy for copy in copies_of(cluster, written) if copy.server == VICTIM]
    assert victims
    for copy in victims:
        copy.file.unlink()
    started = time.monotonic()
    with load.watched() as longest:
        cluster.wait_sound(*written)
        load.wait_progress()
    saw(f"{seen(longest)}; repaired after {time.monotonic() - started:.1f} s")
    check(written)


@long_run
def test_all_chunk_files_removed(
    cluster: FaultyCluster, written: dict[Path, str], load: Load, saw: Saw
) -> None:
    """F10, F31: `rm -rf` of everything that a running daemon has."""
    started = time.monotonic()
    with load.watched() as longest:
        for entry in cluster.data(VICTIM).iterdir():
            if entry.name in ("chunks", "quarantine", "unknown"):
                shutil.rmtree(entry)
        load.wait_progress()
    cluster.wait_healthy()
    cluster.wait_sound(*written)
    saw(f"{seen(longest)}; repaired after {time.monotonic() - started:.1f} s")
    check(written)


def test_disk_replaced(
    cluster: FaultyCluster, written: dict[Path, str], load: Load, saw: Saw
) -> None:
    """F31: the wrong disk was wiped; only its identity is known from a note."""
    started = time.monotonic()
    with load.watched() as longest:
        cluster.kill(VICTIM)
        cluster.disks[VICTIM].renew("identity")
        cluster.start(VICTIM)
        load.wait_progress()
    cluster.wait_healthy()
    cluster.wait_sound(*written)
    saw(f"{seen(longest)}; repaired after {time.monotonic() - started:.1f} s")
    check(written)


def test_last_copy_rotten(cluster: FaultyCluster, place: Path, saw: Saw) -> None:
    """F30: one copy is deleted, the other has a flipped bit: that range alone is EIO."""
    path = place / "file"
    path.write_bytes(os.urandom(3 << 20))
    content = path.read_bytes()
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)
    cluster.remount()
    info = cluster.info(path)
    middle = next(extent for extent in info.extents if extent.offset == 1 << 20)

    def both() -> list[Copy]:
        """Empty while there is one too many: the writer gave up on a server that had stored it."""
        copies = [copy for copy in copies_of(cluster, [path]) if copy.chunk == middle.chunk]
        return copies if len(copies) == 2 else []

    lost, rotten = wait_for(both, "two copies")
    cluster.disks[rotten.server].flip(rotten.file, 5)
    lost.file.unlink()
    descriptor = os.open(path, os.O_RDONLY)
    try:
        with pytest.raises(OSError) as caught:
            os.pread(descriptor, 4096, 1 << 20)
        assert caught.value.errno == errno.EIO
        assert os.pread(descriptor, 1 << 20, 0) == content[: 1 << 20]
        assert os.pread(descriptor, 1 << 20, 2 << 20) == content[2 << 20 :]
    finally:
        os.close(descriptor)
    wait_for(lambda: cluster.status().chunks.lost == 1, "`dfs status` counts it as lost")
    path.unlink()
    wait_for(lambda: cluster.status().chunks.lost == 0, "it is not missed any more")
    saw("EIO for the chunk that is lost, all other bytes are served")
