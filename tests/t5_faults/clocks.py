"""Daemons whose clocks are wrong: by a library before the C library (clocks.c).

A machine has one clock on its wall; with this each daemon has its own, and it can jump while the
daemon runs, or go at a wrong rate.
"""

from __future__ import annotations

import mmap
import struct
import time
from pathlib import Path

from tests.t5_faults.altered import Altered, library
from tests.t5_faults.harness import FaultyCluster

SOURCE = Path(__file__).with_name("clocks.c")


class Clocked(Altered):
    """One daemon or mount, started anew with clocks that can be set."""

    def __init__(self, cluster: FaultyCluster, name: str, directory: Path) -> None:
        self._file = directory / f"clock-{name}"
        self._file.write_bytes(bytes(mmap.PAGESIZE))
        words = {"LD_PRELOAD": str(library(SOURCE, directory)), "DFS_CLOCK": str(self._file)}
        super().__init__(cluster, name, words)

    def jump(self, wall_s: float = 0.0, monotonic_s: float = 0.0) -> None:
        """From now on the clocks are wrong by so much."""
        with self._file.open("r+b") as file:
            file.write(struct.pack("qq", int(wall_s * 1e9), int(monotonic_s * 1e9)))

    def go_at(self, rate: float) -> None:
        """From now on all clocks of the daemon go so much faster, for as long as it runs."""
        with self._file.open("r+b") as file:
            file.seek(16)
            file.write(struct.pack("qq", time.monotonic_ns(), int((rate - 1) * 1e6)))
