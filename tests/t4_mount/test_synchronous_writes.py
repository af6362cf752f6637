"""O_SYNC and O_DSYNC: the data is durable before write(2) returns, however it was opened.

For plain handles the kernel calls fsync itself, for those with O_APPEND (direct_io) it does not.
Seen with a mount whose fsync fails: then so does every write that is to be durable.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.t4_mount.harness import REPOSITORY, LiveCluster, LiveMount


@pytest.fixture(scope="module")
def unsafe(cluster: LiveCluster) -> Iterator[LiveMount]:
    program = [sys.executable, str(REPOSITORY / "tests" / "t4_mount" / "unsafe_mount.py")]
    point = cluster.directory.parent / "unsafe"
    mount = cluster.mount("unsafe", command=[*program, cluster.metad, str(point)])
    yield mount
    cluster.unmount(mount)


@pytest.mark.parametrize("sync", [os.O_SYNC, os.O_DSYNC], ids=["O_SYNC", "O_DSYNC"])
@pytest.mark.parametrize(
    "how", [0, os.O_APPEND, os.O_DIRECT], ids=["plain", "O_APPEND", "O_DIRECT"]
)
def test_a_write_that_is_to_be_durable_calls_fsync(
    here: Path, unsafe: LiveMount, how: int, sync: int
) -> None:
    path = unsafe.point / here.name / "f"
    for flags, expected in ((how, None), (how | sync, errno.EIO)):
        descriptor = os.open(path, os.O_CREAT | os.O_RDWR | flags, 0o600)
        try:
            assert _error_of_writing(descriptor) == expected
        finally:
            os.close(descriptor)


def _error_of_writing(descriptor: int) -> int | None:
    try:
        os.write(descriptor, bytes(4096))
    except OSError as problem:
        return problem.errno
    return None
