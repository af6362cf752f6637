"""Power cuts of a whole cluster during fsync-heavy writing, one after the other.

    python -m tests.t5_faults.powercuts --count 1000 --seed 0 --jobs 2

Each round: twelve writers work on the mount (promises.py); at a random moment all disks, metad's
too, lose what is not on them, and every process is killed; the disks are mounted again, everything
is started, and all promises of this round and of the one before are looked at.  It ends with status
1 at the first one that was broken, and leaves the directory as it is.  A round waits for disks and
for processes half of its time: with `--jobs` so many clusters have their rounds at the same time.
"""

from __future__ import annotations

import argparse
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests.t5_faults import disks
from tests.t5_faults.harness import FaultyCluster
from tests.t5_faults.nursery import Nursery
from tests.t5_faults.promises import writers
from tests.t5_process.observed import wait_for
from tests.t5_process.programs import ROOT

DISK_BYTES = 96 << 20
LONGEST_S = 0.8  # from the first promise to the cut
CHECK_DISKS_EVERY = 10
TIMERS = {"reclaim_grace_s": 2.0}


@dataclass
class Totals:
    """What the rounds have shown."""

    rounds: int = 0
    promises: int = 0
    recovery_s: float = 0.0
    longest_recovery_s: float = 0.0


class PowerCuts:
    """The cluster, and rounds of it."""

    def __init__(self, directory: Path, seed: int, nursery: Nursery) -> None:
        self.cluster = FaultyCluster(
            directory,
            isolated=False,
            nursery=nursery,
            kinds=["ext4"] * 3,
            disk_bytes=DISK_BYTES,
            metad=TIMERS,
        )
        self._records = directory / "records"
        self._seed = seed
        self.totals = Totals()

    def start(self) -> None:
        """Everything runs."""
        self.cluster.start("metad")
        with ThreadPoolExecutor(1) as pool:
            mounted = pool.submit(self.cluster.mount)
            self.cluster.start(*self.cluster.chunkd_names)
            mounted.result()

    def round(self, number: int) -> None:
        """One cut.  Raises AssertionError when something promised is not there."""
        rng = random.Random(f"{self._seed}:{number}")
        place, records = self.cluster.mount_point / str(number), self._records / str(number)
        records.mkdir(parents=True)
        place.mkdir()
        words = [sys.executable, "-m", "tests.t5_faults.promises", place, records, str(number)]
        program = subprocess.Popen(list(map(str, words)), cwd=ROOT)
        try:
            wait_for(lambda: any(promised(each) for each in records.iterdir()), "a promise")
            time.sleep(rng.uniform(0, LONGEST_S))
            names = ["metad", *self.cluster.chunkd_names]
            rng.shuffle(names)
            self.cluster.lose_power(*names, "mnt")
        finally:
            program.kill()
            program.wait()
        started = time.monotonic()
        self.cluster.boot_disks("metad", *self.cluster.chunkd_names)
        self.start()
        self.check(number)
        self.totals.rounds += 1
        took_s = time.monotonic() - started
        self.totals.recovery_s += took_s
        self.totals.longest_recovery_s = max(self.totals.longest_recovery_s, took_s)
        if number % CHECK_DISKS_EVERY == 0:
            self.check_deeply()
        self._forget(number - 1)

    def check(self, number: int) -> None:
        """The promises of this round and of the one before."""
        for each in (number - 1, number):
            place, records = self.cluster.mount_point / str(each), self._records / str(each)
            if records.exists():
                made = sum(writer.check() for writer in writers(place, records, each))
                self.totals.promises += made if each == number else 0
        self.cluster.check_fsck()

    def check_deeply(self) -> None:
        """Full redundancy comes back, the disks have what metad says, and nobody crashed."""
        self.cluster.wait_healthy()
        self.cluster.check_logs()
        files = [path for path in self.cluster.mount_point.rglob("*") if path.is_file()]
        self.cluster.wait_sound(*files)

    def _forget(self, number: int) -> None:
        place, records = self.cluster.mount_point / str(number), self._records / str(number)
        if records.exists():
            shutil.rmtree(place)
            shutil.rmtree(records)


def promised(record: Path) -> bool:
    """Whether an operation of this writer has returned."""
    return b'["has"' in record.read_bytes()


def run(count: int, seed: int, directory: Path, report: Callable[[str], None]) -> Totals:
    """So many rounds.  Nothing runs afterwards; after a broken promise all files are kept."""
    started = time.monotonic()
    nursery = Nursery()
    cuts = PowerCuts(directory, seed, nursery)
    is_whole = False
    try:
        cuts.start()
        for number in range(1, count + 1):
            cuts.round(number)
            totals = cuts.totals
            per_minute = 60 * number / (time.monotonic() - started)
            report(
                f"{number} of {count} cuts, {totals.promises} promises kept, {per_minute:.0f} a "
                f"minute, recovery {totals.recovery_s / number:.1f} s, at most "
                f"{totals.longest_recovery_s:.1f} s"
            )
        cuts.check_deeply()
        is_whole = True
    finally:
        cuts.cluster.close(keep_disks=not is_whole)
        nursery.close()
    return cuts.totals


def run_beside(count: int, seed: int, jobs: int) -> int:
    """The rounds shared out among so many of these programs; 1 when a promise was broken."""
    programs = []
    for job in range(jobs):
        share = count // jobs + (job < count % jobs)
        words = ["--count", str(share), "--seed", str(seed * jobs + job)]
        command = [sys.executable, "-u", "-m", "tests.t5_faults.powercuts", *words]
        programs.append(subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True))

    def pass_on(job: int) -> int:
        output = programs[job].stdout
        assert output is not None
        for line in output:
            sys.stdout.write(f"{job + 1}: {line}")
            sys.stdout.flush()
        return programs[job].wait()

    with ThreadPoolExecutor(jobs) as pool:
        return max(map(abs, pool.map(pass_on, range(jobs))))


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1)
    words = parser.parse_args()
    disks.sweep()
    if words.jobs > 1:
        raise SystemExit(run_beside(words.count, words.seed, words.jobs))
    directory = Path(tempfile.mkdtemp(prefix="dfs-power-"))
    is_terminal = sys.stdout.isatty()

    def report(line: str) -> None:
        sys.stdout.write(f"\r{line} " if is_terminal else f"{line}\n")
        sys.stdout.flush()

    try:
        run(words.count, words.seed, directory, report)
    except (AssertionError, OSError) as problem:  # a promise broken, or unreadable
        sys.stdout.write(f"\nBROKEN: {problem}\nseed {words.seed}; files in {directory}\n")
        raise SystemExit(1) from problem
    shutil.rmtree(directory)
    sys.stdout.write(f"\n0 bytes lost, 0 wrong in {words.count} cuts\n")


if __name__ == "__main__":
    main()
