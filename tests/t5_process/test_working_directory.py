"""Processes whose working directory is in the mount, when the client has to forget everything."""

from __future__ import annotations

import os
from pathlib import Path

from tests.t5_process.harness import Cluster


def test_a_working_directory_keeps_its_path(cluster: Cluster, place: Path) -> None:
    """What /proc says of an open directory is what getcwd(2) says of a working directory."""
    inner = place / "inner"
    inner.mkdir()
    descriptor = os.open(inner, os.O_RDONLY)
    try:
        cluster.kill("metad")
        cluster.start("metad")
        (place / "file").write_bytes(b"")  # returns when the mount is told of changes again
        assert Path(f"/proc/self/fd/{descriptor}").readlink() == inner
    finally:
        os.close(descriptor)
