"""The disk under metad's database fills up: changes fail with ENOSPC, reads go on, and it heals."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.t5_process.harness import Cluster
from tests.t5_process.wholeness import hurried

IMAGE_BYTES = 24 << 20
EARLY = 200  # directories that are in the log, and for which the database must grow
ROUNDS_MAX = 20_000  # directories of 200 bytes each: far more than what the image holds


@pytest.fixture
def small_disk(_usable: None, tmp_path: Path) -> Iterator[Path]:
    """A small ext4 file system in a file."""
    image, point = tmp_path / "image", tmp_path / "cluster" / "metad"
    point.mkdir(parents=True)
    with image.open("wb") as file:
        file.truncate(IMAGE_BYTES)
    # With smaller blocks the index of SQLite's log has holes that find no room: SIGBUS.
    subprocess.run(["mkfs.ext4", "-q", "-b", "4096", "-m", "0", str(image)], check=True)
    done = subprocess.run(
        ["mount", "-o", "loop", str(image), str(point)], capture_output=True, text=True
    )
    if done.returncode:
        pytest.skip(f"no loop device: {done.stderr.strip()}")
    yield point
    subprocess.run(["umount", str(point)], check=True)


@pytest.fixture
def cramped(small_disk: Path) -> Iterator[Cluster]:
    """A cluster whose metad has that disk."""
    cluster = Cluster(small_disk.parent)
    try:
        cluster.write_files()
        cluster.up()
        cluster.mount()
        with hurried(cluster):
            yield cluster
    finally:
        cluster.close()


def fill(disk: Path) -> Path:
    """Use all of its space; the file that does."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file:
        for piece in (bytes(1 << 16), bytes(512)):
            try:
                while True:
                    file.write(piece)
            except OSError as problem:
                assert problem.errno == errno.ENOSPC
        os.fsync(file.fileno())
    return filler


def test_metad_full(cramped: Cluster, small_disk: Path) -> None:
    root = cramped.mount_point
    (root / "before").write_bytes(b"before" * 20_000)
    made = [f"early-{number}" for number in range(EARLY)]
    for name in made:
        (root / name).mkdir()
    filler = fill(small_disk)
    with pytest.raises(OSError) as caught:
        for number in range(ROUNDS_MAX):  # the write-ahead log may have some room of its own
            (root / f"directory-{number}").mkdir()
            made.append(f"directory-{number}")
    assert caught.value.errno == errno.ENOSPC
    with pytest.raises(OSError) as caught:
        (root / "before").rename(root / "after")
    assert caught.value.errno == errno.ENOSPC
    assert (root / "before").read_bytes() == b"before" * 20_000
    assert sorted(path.name for path in root.iterdir()) == sorted(["before", *made])
    cramped.kill("metad")
    cramped.start("metad")  # with a log that has no room in the database
    assert (root / "before").read_bytes() == b"before" * 20_000
    assert sorted(path.name for path in root.iterdir()) == sorted(["before", *made])

    filler.unlink()
    (root / "before").rename(root / "after")
    (root / "more").mkdir()
    cramped.remount()
    assert sorted(path.name for path in root.iterdir()) == sorted(["after", "more", *made])
    cramped.kill("metad")
    cramped.start("metad")
    assert sorted(path.name for path in root.iterdir()) == sorted(["after", "more", *made])
    cramped.check_fsck()
    cramped.check_logs()


def test_a_start_without_room(cramped: Cluster, small_disk: Path) -> None:
    """After a clean end there is no log, and no room for one: metad says so, and that it passes."""
    root = cramped.mount_point
    (root / "before").write_bytes(b"before" * 20_000)
    os.kill(cramped.pid("metad"), signal.SIGTERM)
    assert cramped.exit_status("metad") == 0
    filler = fill(small_disk)
    with pytest.raises(AssertionError, match="make room on its disk"):
        cramped.start("metad")
    assert cramped.exit_status("metad") == 1, "systemd tries again"
    filler.unlink()
    cramped.start("metad")
    assert (root / "before").read_bytes() == b"before" * 20_000
    cramped.check_fsck()
    cramped.check_logs()
