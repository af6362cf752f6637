"""How long metad needs to look at every chunk: counting, searching what is endangered or misplaced,
comparing a page of an inventory.

Usage: python bench/chunks.py [--chunks 1000000] [--directory DIR]

Makes a database of so many chunks with two copies each on ten servers in five racks; prints one
line per figure.  In metad all of this runs in a thread, on a connection of its own.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import trio

from metad.copies import contents, misplaced, redundancy
from metad.copies.misplaced import wanted_places
from metad.copies.placement import Candidate
from metad.copies.policies import Policy
from metad.storage.database import Database
from metad.storage.opening import open_database

SERVERS = 10
PAGE = 65_536
DISKS = [f"d{number}" for number in range(SERVERS)]


def fill(db: Database, chunks: int) -> list[bytes]:
    """Servers, disks and chunks; the sorted ids on the first disk."""
    rng = random.Random(0)
    ids = sorted(rng.randbytes(16) for _ in range(chunks))
    pairs = [rng.sample(range(SERVERS), 2) for _ in ids]
    with db.transaction():
        for number, disk in enumerate(DISKS):
            db.change(
                "INSERT INTO server (id, incarnation, address, software, zone, rack, labels, "
                "hostname, addresses) VALUES (?, 1, ?, '', '', '', '[]', '', '[]')",
                (f"s{number}", f"h{number}:1"),
            )
            db.change(
                "INSERT INTO disk (key, identity, server, path, total_bytes, state) "
                "VALUES (?, ?, ?, '', 0, 'active')",
                (number, disk, f"s{number}"),
            )
        db.change_many(
            "INSERT INTO chunk (id, length, digest, state, refs, good) "
            "VALUES (?, 4194304, zeroblob(16), 'live', 1, 2)",
            [(each,) for each in ids],
        )
        db.change_many(
            "INSERT INTO replica (chunk, disk, state) VALUES (?, ?, 'good')",
            [(each, disk) for each, pair in zip(ids, pairs, strict=True) for disk in pair],
        )
    return [each for each, pair in zip(ids, pairs, strict=True) if 0 in pair]


def timed(name: str, work: Callable[[], object]) -> None:
    """Print what it takes."""
    began_s = time.perf_counter()
    work()
    print(f"{name:56} {time.perf_counter() - began_s:6.2f} s")


def places_of(domain: str) -> dict[int, misplaced.Places]:
    """Two servers are in each rack."""
    known = [
        Candidate(disk, f"s{number}", "", rack=f"r{number // 2}", host=f"h{number}")
        for number, disk in enumerate(DISKS)
    ]
    policy = Policy(2, 0, "rack" if domain == "rack" else "host")
    return {0: wanted_places(policy, known, known)}


async def measure(chunks: int, directory: Path) -> None:
    """All figures."""
    db = open_database(f"sqlite:///{directory / 'bench.db'}")
    try:
        ids = fill(db, chunks)
        down, wanted = DISKS[1:], {0: 2}
        page = set(ids[:PAGE])
        last = max(page)
        timed("count, all servers up", lambda: redundancy.totals(db, DISKS, wanted))
        timed("count, one server down", lambda: redundancy.totals(db, down, wanted))
        timed("count, three servers down", lambda: redundancy.totals(db, DISKS[3:], wanted))
        timed("endangered, nothing", lambda: redundancy.endangered(db, DISKS, wanted, 50_000))
        timed(
            "endangered, one server down", lambda: redundancy.endangered(db, down, wanted, 50_000)
        )
        timed("misplaced, by host", lambda: misplaced.count(db, places_of("host")))
        timed("misplaced, by rack", lambda: misplaced.count(db, places_of("rack")))
        timed(
            f"inventory, a page of {len(page)}",
            lambda: contents.page_diff(db, DISKS[0], bytes(16), last, page),
        )
    finally:
        db.close()


def main() -> None:
    """See the module's text."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--chunks", type=int, default=1_000_000)
    parser.add_argument("--directory", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.directory) as directory:
        trio.run(measure, options.chunks, Path(directory))


if __name__ == "__main__":
    main()
