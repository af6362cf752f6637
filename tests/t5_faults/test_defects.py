"""A mistake in the code of one daemon shows itself: that daemon may end, all others carry on.

In the answer to a call it is the failure of that call alone.  In what a daemon does by itself it is
the daemon's end (status 1), and whoever manages it starts it again.  A mount always ends.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.t5_faults.chunks import check, write_files
from tests.t5_faults.defective import Defective
from tests.t5_faults.harness import FaultyCluster
from tests.t5_faults.load import Load, seen
from tests.t5_faults.test_clients import opened
from tests.t5_process.observed import wait_for

VICTIM = "chunkd1"
Saw = Callable[[str], None]


def ended(
    cluster: FaultyCluster, defective: Defective, statuses: list[int], function: str
) -> float:
    """A mistake in background work, and what follows; the time until all is whole again."""
    started = time.monotonic()
    defective.fail(function)
    defective.wait_failed(function)
    wait_for(lambda: statuses, "it ends")
    cluster.wait_healthy()
    assert statuses == [1]
    return time.monotonic() - started


def test_chunkd(cluster: FaultyCluster, load: Load, tmp_path: Path, saw: Saw) -> None:
    """F33: it has stored a chunk and cannot say so; then its background work is wrong."""
    defective = Defective(
        cluster,
        VICTIM,
        tmp_path,
        "+chunkd.service:ChunkCalls._keep",
        "chunkd.groupsync:Syncer.run_once",
    )
    with defective.running(), defective.kept_alive() as statuses:
        cluster.wait_healthy()
        with load.watched() as longest:
            defective.fail("_keep")
            defective.wait_failed("_keep")
            load.wait_progress(2)
            assert not statuses, "it has ended"
            healed_s = ended(cluster, defective, statuses, "run_once")
            load.wait_progress(2)
    saw(f"{seen(longest)}; once it ended, and all was whole {healed_s:.1f} s later")


def test_chunkd_that_cannot_read(cluster: FaultyCluster, place: Path, tmp_path: Path) -> None:
    """F33: readers get their bytes from another one."""
    digests = write_files(place, 12, 100_000)
    defective = Defective(cluster, VICTIM, tmp_path, "chunkd.store:ChunkStore.open_range")
    with defective.running():
        cluster.wait_healthy()
        cluster.remount()
        pid = cluster.pid(VICTIM)
        defective.fail("open_range")
        check(digests)
        defective.wait_failed("open_range")
        assert cluster.pid(VICTIM) == pid, "it has ended"


def test_metad(cluster: FaultyCluster, load: Load, place: Path, tmp_path: Path, saw: Saw) -> None:
    """F33: a change fails with EIO and nothing of it was done; a mistake elsewhere is the end."""
    defective = Defective(
        cluster,
        "metad",
        tmp_path,
        "+metad.names.xattrs:setxattr",
        "metad.upkeep.repair:Repairer.run_once",
    )
    with defective.running(), defective.kept_alive() as statuses:
        cluster.wait_healthy()
        path = place / "numbers"
        with load.watched() as longest:
            defective.fail("setxattr")
            with pytest.raises(OSError) as caught:
                os.setxattr(path, "user.name", b"value")
            assert caught.value.errno == errno.EIO
            defective.wait_failed("setxattr")
            assert os.listxattr(path) == []
            os.setxattr(path, "user.name", b"value")
            assert not statuses, "it has ended"
            healed_s = ended(cluster, defective, statuses, "run_once")
            assert os.getxattr(path, "user.name") == b"value"
            load.wait_progress(2)
    saw(f"{seen(longest)}; once it ended, and all was whole {healed_s:.1f} s later")


def test_mount(cluster: FaultyCluster, place: Path, tmp_path: Path, saw: Saw) -> None:
    """F33: it ends; what was fsynced is there when it is mounted again."""
    defective = Defective(cluster, "mnt", tmp_path, "dfsmount.vfs:Vfs.write")
    with defective.running():
        with opened(place / "file") as descriptor:
            os.write(descriptor, b"kept")
            os.fsync(descriptor)
            defective.fail("write")
            started = time.monotonic()
            with pytest.raises(OSError) as caught:
                os.write(descriptor, b"lost")
        assert caught.value.errno in (errno.ENOTCONN, errno.ECONNABORTED)
        defective.wait_failed("write")
        wait_for(lambda: cluster.identity("mnt") is None, "it ends")
        cluster.restore()
        assert (place / "file").read_bytes() == b"kept"
        (place / "file").unlink()
        saw(
            f"{errno.errorcode[caught.value.errno or 0]}; mounted again and used "
            f"{time.monotonic() - started:.1f} s later"
        )
