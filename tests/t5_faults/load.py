"""Several programs that use the mount at once while a test breaks things (see workload.py)."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tests.t5_faults.harness import FaultyCluster
from tests.t5_process.observed import HEAL_S
from tests.t5_process.programs import Worker
from tests.t5_process.workload import numbers

NUMBERS_BYTES = 6 << 20
KINDS = ("files", "names", "reads")


class Load:
    """Writers that fsync, changes of names, and a reader that misses the caches."""

    def __init__(
        self,
        cluster: FaultyCluster,
        place: Path,
        records: Path,
        kinds: Sequence[str] = KINDS,
        pause_s: float = 0.0,
    ) -> None:
        self._cluster = cluster
        self._place = place
        (place / "numbers").write_bytes(numbers(0, NUMBERS_BYTES // 8))
        self._workers = {
            kind: Worker(kind, place, records / f"record-{kind}", str(pause_s)) for kind in kinds
        }
        self._seen: dict[str, int] = dict.fromkeys(kinds, 0)

    def __enter__(self) -> Load:
        return self

    def __exit__(self, *problem: object) -> None:
        for worker in self._workers.values():
            worker.close()

    def wait_progress(self, more: int = 3, timeout_s: float = HEAL_S, only: str = "") -> float:
        """Wait until each program has finished `more` operations; how long that took."""
        started = time.monotonic()
        for kind, worker in self._workers.items():
            if only in ("", kind):
                worker.wait_progress(more, timeout_s)
        return time.monotonic() - started

    def slowest_s(self) -> dict[str, float]:
        """The longest operation of each kind since the last call, in seconds."""
        longest = {}
        for kind, worker in self._workers.items():
            entries = worker.entries()
            fresh = entries[self._seen[kind] :]
            self._seen[kind] = len(entries)
            longest[kind] = max((entry["took_s"] for entry in fresh), default=0.0)
        return longest

    def operations(self) -> int:
        """How many there were so far."""
        return sum(len(worker.entries()) for worker in self._workers.values())

    @contextlib.contextmanager
    def watched(self) -> Iterator[dict[str, float]]:
        """Filled at the end of the block: the longest operation of each kind inside of it."""
        self.slowest_s()
        longest: dict[str, float] = {}
        yield longest
        longest.update(self.slowest_s())

    def acknowledged(self) -> list[dict[str, Any]]:
        """What was promised so far: names and digests."""
        return [
            entry
            for kind, worker in self._workers.items()
            if kind != "reads"
            for entry in worker.entries()
        ]

    def finish(self) -> None:
        """The programs end; none of them met an error or wrong bytes."""
        for worker in self._workers.values():
            worker.finish()

    def check(self) -> None:
        """All that was acknowledged is there."""
        self._cluster.check_files(
            {
                f"{self._place.name}/{entry['name']}": entry["sha256"]
                for entry in self.acknowledged()
            }
        )


def seen(longest: dict[str, float]) -> str:
    """For the table: what the application noticed."""
    return "slowest " + ", ".join(f"{kind} {value:.1f} s" for kind, value in longest.items())
