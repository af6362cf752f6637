"""Daemons whose calls on their disks fail one at a time: by a library before the C library.

See failing.c.  Unlike a disk that is gone, everything works again after the one call.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from tests.t5_faults.disks import run
from tests.t5_faults.harness import FaultyCluster

SOURCE = Path(__file__).with_name("failing.c")


class Failing:
    """One daemon, started anew with the library; calls on files in `part` of its data can fail."""

    def __init__(self, cluster: FaultyCluster, name: str, directory: Path, part: str = "") -> None:
        self._cluster = cluster
        self._name = name
        self._orders = directory / f"orders-{name}"
        self._orders.mkdir()
        library = directory / "failing.so"
        run("cc", "-O2", "-shared", "-fPIC", "-o", library, SOURCE, "-ldl")
        self._words = {
            "LD_PRELOAD": str(library),
            "DFS_FAIL_BELOW": str(cluster.data(name) / part),
            "DFS_FAIL_ORDERS": str(self._orders),
        }

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Inside, the daemon has the library; afterwards it runs without it."""
        self._cluster.kill(self._name)
        self.start()
        try:
            yield
        finally:
            if self._cluster.daemon(self._name).running():
                self._cluster.kill(self._name)
            self._cluster.start(self._name)

    def start(self) -> None:
        """Start the daemon with the library."""
        os.environ.update(self._words)
        try:
            self._cluster.start(self._name)
        finally:
            for word in self._words:
                del os.environ[word]

    def fail(self, kind: str, after: int = 0) -> None:
        """One call fails with EIO: "sync", "write" or "read", when so many have succeeded."""
        fresh = self._orders / "fresh"
        fresh.write_text(f"{after:<12}")
        fresh.rename(self._orders / kind)

    def has_failed(self, kind: str) -> bool:
        """Whether it did."""
        return not (self._orders / kind).exists()

    def call_off(self) -> None:
        """What has not failed yet will not."""
        for order in self._orders.iterdir():
            order.unlink()
