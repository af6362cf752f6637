"""Daemons and mounts that are started with other words in their environment, and later without.

A library before the C library (failing.py, clocks.py) and mistakes in our own code (defective.py)
come in by that; the daemons themselves know nothing of it.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

from tests.t5_faults.disks import run
from tests.t5_faults.harness import FaultyCluster


def library(source: Path, directory: Path) -> Path:
    """A library made of one file in C."""
    made = directory / source.with_suffix(".so").name
    run("cc", "-O2", "-shared", "-fPIC", "-o", made, source, "-ldl")
    return made


class Altered:
    """One daemon, or the mount ("mnt"), with `words` in its environment."""

    def __init__(self, cluster: FaultyCluster, name: str, words: Mapping[str, str]) -> None:
        self._cluster = cluster
        self._name = name
        self._words = dict(words)

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Inside, the process has those words; afterwards it runs without them."""
        self._end()
        self.start()
        try:
            yield
        finally:
            if self._cluster.identity(self._name) is not None:
                self._end()
            self._begin()

    def start(self) -> None:
        """Start it with those words."""
        os.environ.update(self._words)
        try:
            self._begin()
        finally:
            for word in self._words:
                del os.environ[word]

    @contextlib.contextmanager
    def kept_alive(self) -> Iterator[list[int]]:
        """Inside, a daemon is started whenever it has ended, as a service manager does; statuses.

        For use inside of `running`.
        """
        statuses: list[int] = []
        over = threading.Event()

        def keep() -> None:
            while not over.wait(0.05):
                if self._cluster.daemon(self._name).running() is None:
                    statuses.append(self._cluster.exit_status(self._name))
                    self.start()

        thread = threading.Thread(target=keep)
        thread.start()
        try:
            yield statuses
        finally:
            over.set()
            thread.join()

    @property
    def _is_mount(self) -> bool:
        return self._name == self._cluster.mount_point.name

    def _begin(self) -> None:
        if self._is_mount:
            self._cluster.mount()
        else:
            self._cluster.start(self._name)

    def _end(self) -> None:
        if self._is_mount:
            self._cluster.unmount()
        else:
            self._cluster.kill(self._name)
