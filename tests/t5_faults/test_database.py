"""metad's database is damaged, or a part of it is gone, when metad starts: it does not serve."""

from __future__ import annotations

import contextlib
import random
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.t5_faults.chunks import check, write_files
from tests.t5_faults.harness import NIGHTLY, FaultyCluster
from tests.t5_process.observed import HEAL_S

PAGE_BYTES = 4096
PAGES = 20 if NIGHTLY else 3
Saw = Callable[[str], None]


@contextlib.contextmanager
def kept_files(directory: Path) -> Iterator[None]:
    """Afterwards the database is again what it was before.  Nobody uses it then."""
    kept = {path: path.read_bytes() for path in directory.glob("metad.db*")}
    try:
        yield
    finally:
        for path in directory.glob("metad.db*"):
            path.unlink()
        for path, data in kept.items():
            path.write_bytes(data)


def roots(database: Path) -> list[int]:
    """Pages that are in use, whatever else is: the first of each table and index."""
    with contextlib.closing(sqlite3.connect(database)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        found = connection.execute("SELECT rootpage FROM sqlite_schema WHERE rootpage > 0")
        return sorted({page for (page,) in found})


def healed(cluster: FaultyCluster, program: subprocess.Popen[bytes]) -> float:
    """The right database is there again; how long it took until who waited had his answer."""
    started = time.monotonic()
    cluster.start("metad")
    assert program.wait(HEAL_S) == 0
    return time.monotonic() - started


@contextlib.contextmanager
def waiting_program(place: Path) -> Iterator[subprocess.Popen[bytes]]:
    """It makes `place`/made, as soon as metad answers; gone afterwards in any case."""
    program = subprocess.Popen(["mkdir", str(place / "made")])
    try:
        yield program
    finally:
        program.kill()
        program.wait()


def refused(cluster: FaultyCluster, program: subprocess.Popen[bytes], why: str) -> None:
    """metad does not start, and who asks it waits."""
    with pytest.raises(AssertionError, match=why):
        cluster.start("metad")
    assert program.poll() is None, "neither refused nor acknowledged"


def test_damaged_pages(cluster: FaultyCluster, place: Path, rng: random.Random, saw: Saw) -> None:
    """F19: any page that is in use: metad refuses to start, and who asks waits."""
    digests = write_files(place, 4, 100_000)
    cluster.kill("metad")
    directory = cluster.data("metad")
    pages = roots(directory / "metad.db")
    with waiting_program(place) as program:
        for page in rng.sample(pages, PAGES):
            with kept_files(directory):
                with (directory / "metad.db").open("r+b") as file:
                    file.seek((page - 1) * PAGE_BYTES)
                    file.write(rng.randbytes(PAGE_BYTES))
                refused(cluster, program, "is damaged, restore a backup")
        healed_s = healed(cluster, program)
    assert (place / "made").is_dir()
    check(digests)
    saw(f"waits; {PAGES} of {len(pages)} pages; answered {healed_s:.1f} s after the right one")


def test_rotten_bits(cluster: FaultyCluster, place: Path, rng: random.Random, saw: Saw) -> None:
    """F19: one bit anywhere, which SQLite may have nothing against."""
    digests = write_files(place, 4, 100_000)
    cluster.kill("metad")
    directory = cluster.data("metad")
    roots(directory / "metad.db")  # folds the log in
    with waiting_program(place) as program:
        for _round in range(PAGES):
            with kept_files(directory):
                data = bytearray((directory / "metad.db").read_bytes())
                bit = rng.randrange(len(data) * 8)
                data[bit // 8] ^= 1 << bit % 8
                (directory / "metad.db").write_bytes(data)
                page = 1 + bit // 8 // PAGE_BYTES
                refused(cluster, program, f"page {page} is damaged, restore")
        healed_s = healed(cluster, program)
    assert (place / "made").is_dir()
    check(digests)
    saw(f"waits; {PAGES} bits; answered {healed_s:.1f} s after the right one")


def test_log_taken_away(cluster: FaultyCluster, place: Path, saw: Saw) -> None:
    """F19: what stood in the log only is gone: the checksums say so, and without them the chunkds'
    copies of the journal, which have more."""
    digests = write_files(place, 4, 100_000)
    cluster.kill("metad")
    directory = cluster.data("metad")
    with waiting_program(place) as program:
        with kept_files(directory):
            assert (directory / "metad.db-wal").stat().st_size > PAGE_BYTES
            for name in ("metad.db-wal", "metad.db-shm"):
                (directory / name).unlink()
            refused(cluster, program, "damaged, restore a backup")
            (directory / "metad.db-sums").unlink()  # who says that it is whole
            started = time.monotonic()
            with contextlib.suppress(AssertionError):  # it may end before it is ready
                cluster.start("metad")
            assert cluster.exit_status("metad") == 2
            ended_s = time.monotonic() - started
            assert "it is an old copy" in cluster.see_log("metad")
            assert program.poll() is None, "neither refused nor acknowledged"
        healed_s = healed(cluster, program)
    assert (place / "made").is_dir()
    check(digests)
    saw(f"waits; metad ended after {ended_s:.1f} s; answered {healed_s:.1f} s after the right one")
