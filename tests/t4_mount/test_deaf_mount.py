"""Without invalidations a second mount does see stale things: test_two_mounts.py can fail."""

from __future__ import annotations

import os
from pathlib import Path

from tests.t4_mount.harness import LiveMount


def test_a_mount_without_invalidations_serves_what_is_no_longer_true(
    here: Path, deaf: LiveMount
) -> None:
    there = deaf.point / here.name
    (here / "f").write_bytes(b"old")
    (here / "gone").touch()
    assert (there / "f").read_bytes() == b"old"
    assert (there / "f").stat().st_size == 3
    assert (there / "gone").exists()
    assert not (there / "coming").exists()
    (here / "f").write_bytes(b"newer")
    (here / "gone").unlink()
    (here / "coming").touch()
    assert (there / "f").stat().st_size == 3
    assert (there / "gone").exists()
    assert not (there / "coming").exists()
    deaf.restart()
    assert (there / "f").read_bytes() == b"newer"
    assert sorted(os.listdir(there)) == ["coming", "f"]
