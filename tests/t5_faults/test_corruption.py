"""Damage of many kinds to many chunk files: none of it is served, all of it is found and repaired.

DFS_FAULT_CORRUPTIONS=10000 for the long run.
"""

from __future__ import annotations

import os
import random
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from tests.t5_faults.chunks import DAMAGES, Copy, check, copies_of, write_files
from tests.t5_faults.harness import FaultyCluster

CORRUPTIONS = int(os.environ.get("DFS_FAULT_CORRUPTIONS", "33"))
AT_ONCE = 220
SIZE_BYTES = 80_000  # two blocks with a checksum each


def test_corruptions(
    cluster: FaultyCluster, place: Path, rng: random.Random, saw: Callable[[str], None]
) -> None:
    done: Counter[str] = Counter()
    longest_s = 0.0
    while done.total() < CORRUPTIONS:
        count = min(AT_ONCE, CORRUPTIONS - done.total())
        digests = write_files(place, count, SIZE_BYTES)
        cluster.remount()
        copies = copies_of(cluster, digests)
        victims = one_each(copies, rng)
        others = {copy.server: copy for copy in copies if copy not in victims}
        started = time.monotonic()
        for copy in victims:
            damage = DAMAGES[done.total() % len(DAMAGES)]
            damage(cluster, copy, others[copy.server])
            done[damage.__name__] += 1
        check(digests)
        cluster.wait_sound(*digests)  # on the disks: whatever was not found yet fails this
        longest_s = max(longest_s, time.monotonic() - started)
        cluster.remount()
        check(digests)
        for path in digests:
            path.unlink()
    saw(f"{done.total()} corruptions of {len(done)} kinds, all repaired within {longest_s:.1f} s")


def one_each(copies: list[Copy], rng: random.Random) -> list[Copy]:
    """One replica of each file."""
    by_path: dict[Path, list[Copy]] = {}
    for copy in copies:
        by_path.setdefault(copy.path, []).append(copy)
    return [rng.choice(found) for found in by_path.values()]
