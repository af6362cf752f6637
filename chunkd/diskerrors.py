"""What went wrong on one disk, as its callers are told: OSError becomes our own tree of errors.

The parts of a ChunkStore share one of these.  Each error that speaks against the disk is counted
in its DiskHealth, with the time at which it came.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from chunkd.diskhealth import DiskHealth
from dfswire.errors import DFSError, UnknownChunk


class DiskErrors:
    """Of one disk; `health` is what they add up to."""

    def __init__(self, disk: str, monotonic: Callable[[], float]) -> None:
        self.disk = disk
        self.health = DiskHealth()
        self._monotonic = monotonic

    @contextlib.contextmanager
    def translated(self) -> Iterator[None]:
        """OSError -> our tree, counting what speaks against the disk."""
        try:
            yield
        except FileNotFoundError as problem:
            raise UnknownChunk(f"not on disk {self.disk}: {problem.filename}") from problem
        except OSError as problem:
            raise self.translate(problem) from problem

    def translate(self, problem: OSError) -> DFSError:
        """Our error for a failed call; a broken disk is recorded."""
        return self.health.translate(problem, self._monotonic())

    def record(self) -> None:
        """Something happened that speaks against the disk, without an OSError that says so."""
        self.health.record(self._monotonic())
