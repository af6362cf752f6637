"""Daemons whose calls on their disks fail one at a time, or are slow: by a library before the C
library.

See failing.c.  Unlike a disk that is gone, everything works again after the one call.
"""

from __future__ import annotations

from pathlib import Path

from tests.t5_faults.altered import Altered, library
from tests.t5_faults.harness import FaultyCluster

SOURCE = Path(__file__).with_name("failing.c")


class Failing(Altered):
    """One daemon, started anew with the library; calls on files in `part` of its data can fail."""

    def __init__(self, cluster: FaultyCluster, name: str, directory: Path, part: str = "") -> None:
        self._orders = directory / f"orders-{name}"
        self._orders.mkdir()
        words = {
            "LD_PRELOAD": str(library(SOURCE, directory)),
            "DFS_FAIL_BELOW": str(cluster.data(name) / part),
            "DFS_FAIL_ORDERS": str(self._orders),
        }
        super().__init__(cluster, name, words)

    def fail(self, kind: str, after: int = 0) -> None:
        """One call fails with EIO: "sync", "write" or "read", when so many have succeeded."""
        fresh = self._orders / "fresh"
        fresh.write_text(f"{after:<12}")
        fresh.rename(self._orders / kind)

    def slow_down(self, delay_s: float, *kinds: str) -> None:
        """Every call of these kinds takes so much longer from now on."""
        for kind in kinds:
            fresh = self._orders / "fresh"
            fresh.write_text(f"{delay_s * 1000:.0f}")
            fresh.rename(self._orders / f"slow-{kind}")

    def has_failed(self, kind: str) -> bool:
        """Whether it did."""
        return not (self._orders / kind).exists()

    def call_off(self) -> None:
        """What has not failed yet will not, and nothing is slow any more."""
        for order in self._orders.iterdir():
            order.unlink()
