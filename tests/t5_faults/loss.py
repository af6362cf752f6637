"""One of three servers is lost under load, with much on it: how soon it is noticed and made good.

    python -m tests.t5_faults.loss --gib 10

fills a cluster (two copies of everything) with small and large files, lets programs write and read,
kills a chunkd and leaves it dead, and measures.  With the usual timers a server is down after 10 s,
and repair begins 30 s later.  The data lies in plain directories below the temporary directory,
which needs three times the size.
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from metad.config import MetadConfig
from tests.t5_faults.harness import Changes, FaultyCluster
from tests.t5_faults.load import Load
from tests.t5_process.observed import sha256_of, wait_for

MIB = 1 << 20
LARGE_BYTES = 128 * MIB
SMALL_BYTES = 100_000
SMALL_SHARE = 0.1  # of all bytes
VICTIM = "chunkd1"
USUAL = MetadConfig(url="sqlite:////unused")
USUAL_TIMERS: Changes = {
    name: getattr(USUAL, name)
    for name in (
        *("heartbeat_s", "suspect_s", "down_s", "repair_after_s", "maintenance_s"),
        *("order_timeout_s", "reclaim_grace_s", "chunk_size_bytes"),
    )
}


@dataclass
class Figures:
    """What was measured, in seconds from the kill."""

    bytes: int
    chunks: int
    endangered: int = 0
    noticed_s: float = 0.0
    repair_started_s: float = 0.0
    redundant_s: float = 0.0
    slowest_s: float = 0.0
    errors: int = 0


class Loss:
    """The cluster, its content, and the loss."""

    def __init__(self, directory: Path, metad: Changes, report: Callable[[str], None]) -> None:
        self.cluster = FaultyCluster(
            directory, isolated=False, disk_bytes=0, metad=metad, chunkd={"scrub_period_s": 86400.0}
        )
        self._report = report
        self._records = directory / "records"
        self._records.mkdir()

    def fill(self, size_bytes: int) -> dict[Path, str]:
        """Files of random bytes; the digests of some of each kind."""
        place = self.cluster.mount_point / "content"
        place.mkdir()
        digests: dict[Path, str] = {}
        piece = random.Random(1).randbytes(LARGE_BYTES + SMALL_BYTES)
        small_bytes = int(size_bytes * SMALL_SHARE)
        started = time.monotonic()
        for number in range(small_bytes // SMALL_BYTES):
            path = place / str(number // 1000) / f"small-{number}"
            if number % 1000 == 0:
                path.parent.mkdir()
            path.write_bytes(number.to_bytes(8, "big") + piece[: SMALL_BYTES - 8])
            if number % 100 == 0:
                digests[path] = sha256_of(path)
        for number in range(max(1, (size_bytes - small_bytes) // LARGE_BYTES)):
            path = place / f"large-{number}"
            length = min(LARGE_BYTES, size_bytes - small_bytes)
            path.write_bytes(number.to_bytes(8, "big") + piece[:length])
            digests[path] = sha256_of(path)
        self._report(f"filled in {time.monotonic() - started:.0f} s")
        return digests

    def lose(self, digests: dict[Path, str]) -> Figures:
        """Kill a server for good, watch, and compare everything afterwards."""
        cluster = self.cluster
        place = cluster.mount_point / "load"
        place.mkdir()
        before = cluster.status()
        figures = Figures(bytes=before.chunks.bytes, chunks=before.chunks.total)
        orders = cluster.log_text("metad").count("copies ordered")
        with Load(cluster, place, self._records) as load:
            load.wait_progress()
            load.slowest_s()
            cluster.kill(VICTIM)
            started = time.monotonic()

            def after(condition: Callable[[], bool], what: str) -> float:
                wait_for(condition, what, 3600, poll_s=0.2)
                return time.monotonic() - started

            figures.noticed_s = after(
                lambda: cluster.server(VICTIM).state == "down", "it counts as down"
            )
            figures.endangered = cluster.status().chunks.under_replicated
            self._report(f"noticed after {figures.noticed_s:.1f} s")
            figures.repair_started_s = after(
                lambda: cluster.log_text("metad").count("copies ordered") > orders, "repair"
            )
            self._report(f"repair started after {figures.repair_started_s:.1f} s")
            figures.redundant_s = after(
                lambda: cluster.status().chunks.under_replicated == 0, "full redundancy"
            )
            self._report(f"redundant after {figures.redundant_s:.1f} s")
            load.wait_progress(1)
            figures.slowest_s = max(load.slowest_s().values())
            load.finish()  # none of the programs met an error
            cluster.remount()
            load.check()
        for path, digest in digests.items():
            assert sha256_of(path) == digest, f"wrong bytes in {path}"
        cluster.start(VICTIM)
        cluster.wait_healthy(120)
        cluster.check_fsck()
        cluster.check_logs()
        return figures


def run(size_bytes: int, directory: Path, metad: Changes, report: Callable[[str], None]) -> Figures:
    """All of it.  Nothing runs afterwards; the directory stays."""
    loss = Loss(directory, metad, report)
    try:
        loss.cluster.up()
        loss.cluster.mount()
        return loss.lose(loss.fill(size_bytes))
    finally:
        loss.cluster.close()


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--gib", type=float, default=10)
    directory = Path(tempfile.mkdtemp(prefix="dfs-loss-"))

    def report(line: str) -> None:
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()

    try:
        size_bytes = int(parser.parse_args().gib * (1 << 30))
        for name, value in asdict(run(size_bytes, directory, USUAL_TIMERS, report)).items():
            report(f"{name}: {value:.1f}" if isinstance(value, float) else f"{name}: {value}")
    finally:
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    main()
