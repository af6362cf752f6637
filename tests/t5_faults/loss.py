"""One of three servers is lost under load, with much on it; later one is drained and removed.

    python -m tests.t5_faults.loss --gib 10

fills a cluster (two copies of everything) with small and large files, lets programs write and read,
kills a chunkd and leaves it dead, and measures; then that server returns, and another one is
drained, removed and taken back.  With the usual timers a server is down after 10 s, and repair
begins 30 s later.  The data lies in plain directories below the temporary directory, which needs
three times the size.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from dfsmount.cli.localcluster import HOST
from metad.config import MetadConfig
from tests.t5_faults.harness import Changes, FaultyCluster
from tests.t5_faults.load import Load
from tests.t5_process.observed import run_dfs, sha256_of, wait_for

MIB = 1 << 20
LARGE_BYTES = 128 * MIB
SMALL_BYTES = 100_000
SMALL_SHARE = 0.1  # of all bytes
VICTIM, DRAINED = "chunkd1", "chunkd2"
USUAL = MetadConfig(url="sqlite:////unused")
USUAL_TIMERS: Changes = {
    name: getattr(USUAL, name)
    for name in (
        *("heartbeat_s", "suspect_s", "down_s", "repair_after_s", "maintenance_s"),
        *("order_timeout_s", "reclaim_grace_s", "restore_window_s", "chunk_size_bytes"),
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
    drained_s: float = 0.0
    removed_s: float = 0.0
    slowest_while_drained_s: float = 0.0


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

    @contextlib.contextmanager
    def loaded(self, name: str) -> Iterator[Load]:
        """Inside, programs use the mount; none of them may meet an error, and all is compared."""
        place = self.cluster.mount_point / name
        records = self._records / name
        place.mkdir()
        records.mkdir()
        with Load(self.cluster, place, records) as load:
            load.wait_progress()
            load.slowest_s()
            yield load
            load.wait_progress(1)
            load.finish()
            self.cluster.remount()
            load.check()

    def lose(self, figures: Figures) -> None:
        """Kill a server, and watch until everything has its copies on the others."""
        cluster = self.cluster
        orders = cluster.log_text("metad").count("copies ordered")
        with self.loaded("loss") as load:
            cluster.kill(VICTIM)
            clock = Clock(self._report)
            clock.wait(lambda: cluster.server(VICTIM).state == "down", "noticed")
            figures.noticed_s = clock.now_s
            figures.endangered = cluster.status().chunks.under_replicated
            clock.wait(
                lambda: cluster.log_text("metad").count("copies ordered") > orders, "repair begun"
            )
            figures.repair_started_s = clock.now_s
            clock.wait(lambda: cluster.status().chunks.under_replicated == 0, "redundant")
            figures.redundant_s = clock.now_s
            figures.slowest_s = max(load.slowest_s().values())
        cluster.start(VICTIM)
        cluster.wait_healthy(120)

    def drain(self, figures: Figures) -> None:
        """Empty a living server, forget it, and take it back."""
        address = f"{HOST}:{self.cluster.daemon(DRAINED).port}"
        with self.loaded("drain") as load:
            clock = Clock(self._report)
            self.dfs("node", "drain", address, "--wait")
            clock.say("drained")
            figures.drained_s = clock.now_s
            assert self.cluster.status().chunks.under_replicated == 0
            self.dfs("node", "remove", address, "--wait")
            clock.say("removed")
            figures.removed_s = clock.now_s
            figures.slowest_while_drained_s = max(load.slowest_s().values())
        # A chunkd that is told of its removal ends.
        wait_for(lambda: self.cluster.daemon(DRAINED).running() is None, "its end")
        self.dfs("node", "enable", address)
        self.cluster.start(DRAINED)
        self.cluster.wait_healthy(120)

    def dfs(self, *words: str) -> None:
        """A command of an operator, which must work."""
        status, output = run_dfs(*words, "--url", self.cluster.address)
        assert status == 0, f"dfs {' '.join(words)}: {output}"

    def figures(self) -> Figures:
        """Nothing is measured yet."""
        chunks = self.cluster.status().chunks
        return Figures(bytes=chunks.bytes, chunks=chunks.total)


class Clock:
    """Seconds since something happened."""

    def __init__(self, report: Callable[[str], None]) -> None:
        self._report = report
        self._started = time.monotonic()
        self.now_s = 0.0

    def say(self, what: str) -> None:
        """It is so now."""
        self.now_s = time.monotonic() - self._started
        self._report(f"{what} after {self.now_s:.1f} s")

    def wait(self, condition: Callable[[], bool], what: str) -> None:
        """Wait until it is so."""
        wait_for(condition, what, 3600, poll_s=0.2)
        self.say(what)


def run(size_bytes: int, directory: Path, metad: Changes, report: Callable[[str], None]) -> Figures:
    """All of it.  Nothing runs afterwards; the directory stays."""
    loss = Loss(directory, metad, report)
    cluster = loss.cluster
    try:
        cluster.up()
        cluster.mount()
        digests = loss.fill(size_bytes)
        figures = loss.figures()
        for step in (loss.lose, loss.drain):
            step(figures)
            for path, digest in digests.items():
                assert sha256_of(path) == digest, f"wrong bytes in {path}"
        cluster.check_fsck()
        cluster.check_logs()
        return figures
    finally:
        cluster.close()


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
