"""The mount process is killed while files are written: what was fsynced is there afterwards."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from pathlib import Path

from tests.t5_process.harness import Cluster
from tests.t5_process.observed import sha256_of, wait_for
from tests.t5_process.programs import Worker

USABLE_WITHIN_S = 5.0  # far below the lease of 20 s that the dead mount still has


def test_unmounted_while_metad_is_away(cluster: Cluster, place: Path) -> None:
    """The session could not be given back; the next mount does it."""
    (place / "before").write_bytes(b"before")
    assert [each.name for each in place.iterdir()] == ["before"]  # a time of reading, not told yet
    cluster.kill("metad")
    cluster.unmount()
    cluster.start("metad")
    started = time.monotonic()
    cluster.mount()
    (place / "before").write_bytes(b"after")
    (place / "before").unlink()
    usable_s = time.monotonic() - started
    assert usable_s < USABLE_WITHIN_S, f"usable after {usable_s:.1f} s"


def test_kill_mount(cluster: Cluster, place: Path, worker: Callable[[str, Path], Worker]) -> None:
    writing = worker("files", place)
    unlinked = os.open(place / "unlinked", os.O_CREAT | os.O_WRONLY)
    os.write(unlinked, bytes(1_000_000))
    (place / "unlinked").unlink()  # open and without a name when the mount dies
    writing.wait_progress(20)
    cluster.kill("mnt")
    assert writing.end() != 0
    with contextlib.suppress(OSError):  # the file went with the mount
        os.close(unlinked)
    cluster.clear_dead_mount()
    acknowledged = writing.entries()

    started = time.monotonic()
    cluster.mount()
    # The dead mount held this directory and this file: a change must not wait for its lease.
    (place / "after").write_bytes(b"after")
    with (place / acknowledged[-1]["name"]).open("ab") as file:
        file.write(b"!")
    usable_s = time.monotonic() - started
    assert usable_s < USABLE_WITHIN_S, f"usable after {usable_s:.1f} s"

    for entry in acknowledged[:-1]:
        assert sha256_of(place / entry["name"]) == entry["sha256"], entry["name"]
    names = {path.name for path in place.iterdir()}
    extra = names - {entry["name"] for entry in acknowledged} - {"after"}
    assert len(extra) <= 1, f"names that nobody created: {extra}"  # one may have been under way
    wait_for(lambda: len(cluster.status().sessions) == 1, "the dead session's end")
    wait_for(lambda: cluster.orphans() == 0, "the unlinked file's end")
