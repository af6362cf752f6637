"""metad's disk is destroyed under load, and the database made again from what the chunkds hold.

    python -m tests.t5_faults.drill --rounds 10 --seed 0 [--back 20]

Each round: writers (promises.py) work on two mounts; metad's directory is removed while it runs,
and its process killed; `dfs metad restore` makes a database in a new directory; metad is started
there; the writers go on, and all that they were promised is looked at through both mounts.  With
`--back` it is restored to a moment up to so many seconds before, and what was true then must be
true again.  It prints how long each recovery took, ends with status 1 at the first promise that was
broken, and leaves the directory as it is.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from dfsmount.cli.localcluster import HOST
from tests.t5_faults.harness import Changes, FaultyCluster
from tests.t5_faults.nursery import Nursery
from tests.t5_faults.promises import Writer, writers
from tests.t5_process.observed import run_dfs, wait_for
from tests.t5_process.programs import ROOT

BEFORE_S = 2.0  # at most, from the first promises to the loss
AFTER_S = 1.0  # at most, from the going on of all writers to the end of the round
GRACE_S = 1.0  # readers are not what this is about
RELEASED = 0.5  # of the restores; else the next loss comes before anybody has confirmed the last
WINDOW_MORE = 2.0  # times `--back`, and a minute: removing and restoring take time, too
WINDOW_MORE_S = 60.0
TIMERS: Changes = {
    # A busy machine may not make metad go on without its followers: then something may be lost.
    "journal_wait_s": 20.0,
    "snapshot_journal_bytes": 1 << 20,
    "reclaim_grace_s": GRACE_S,
}


@dataclass
class Recovery:
    """Seconds from the death of metad."""

    restored_s: float
    serving_s: float
    going_on_s: float  # every writer has been promised something since
    replayed: int


@dataclass
class Totals:
    """What the rounds have shown."""

    rounds: int = 0
    promises: int = 0
    slowest_s: float = 0.0


class Drill:
    """The cluster, and rounds of it."""

    def __init__(self, directory: Path, seed: int, nursery: Nursery, back_s: float = 0.0) -> None:
        self.cluster = FaultyCluster(
            directory,
            isolated=False,
            nursery=nursery,
            disk_bytes=0,
            metad={
                **TIMERS,
                **({"restore_window_s": WINDOW_MORE * back_s + WINDOW_MORE_S} if back_s else {}),
            },
        )
        self._mounts = [self.cluster.mount_point, directory / "other"]
        self._records = directory / "records"
        self._seed = seed
        self._back_s = back_s
        self._metadata = directory / "metad" / "data"
        self._moments: dict[int, int] = {}  # to which a round has gone back
        self.totals = Totals()

    def start(self) -> None:
        """Everything runs."""
        self.cluster.up()
        for point in self._mounts:
            self.cluster.mount(point)
        self._wait_copies()

    def round(self, number: int) -> Recovery:
        """One loss.  Raises AssertionError when something promised is not there."""
        rng = random.Random(f"{self._seed}:{number}")
        recovery = self._go_back(number, rng) if self._back_s else self._go_on(number, rng)
        self.totals.promises += self._check(number)
        self.totals.rounds += 1
        self.totals.slowest_s = max(self.totals.slowest_s, recovery.going_on_s)
        self.cluster.check_fsck()
        self._check_backup()
        if rng.random() < RELEASED:
            self._dfs("release")
        self._forget(number - 1)
        return recovery

    def check_deeply(self) -> None:
        """Full redundancy comes back, the disks have what metad says, and nobody crashed."""
        self._dfs("release")
        self.cluster.wait_healthy()
        self.cluster.check_logs()
        for point in self._mounts:
            self.cluster.unmount(point)
            self.cluster.mount(point)
        self._check(self.totals.rounds)
        root = self.cluster.mount_point
        self.cluster.wait_sound(*(path for path in root.rglob("*") if path.is_file()))

    # -- what happens

    def _go_on(self, number: int, rng: random.Random) -> Recovery:
        with self._writing(number):
            self._disturb(rng)
            self._wait_copies()
            time.sleep(rng.uniform(0, BEFORE_S))
            died_s = self._destroy(rng)
            recovery = self._restore(died_s)
            for writer in self._writers(number):
                wait_for_more(writer)
            recovery.going_on_s = time.monotonic() - died_s
            time.sleep(rng.uniform(0, AFTER_S))
        return recovery

    def _go_back(self, number: int, rng: random.Random) -> Recovery:
        with self._writing(number):
            time.sleep(rng.uniform(0.5, BEFORE_S))
            self._moments[number] = time.time_ns()
            self._disturb(rng)
            time.sleep(rng.uniform(0.3, 1) * self._back_s)
        for writer in self._writers(number)[::2]:  # deleted since, besides what was overwritten
            remove(writer.path)
        time.sleep(2 * GRACE_S)
        self._wait_copies()
        died_s = self._destroy(rng)
        recovery = self._restore(died_s, self._moments[number])
        for point in self._mounts:
            wait_for_change(point / f"{number}-changed-on-{point.name}")
        recovery.going_on_s = time.monotonic() - died_s
        return recovery

    @contextlib.contextmanager
    def _writing(self, number: int) -> Iterator[None]:
        """Inside, one program works on each mount; at the end they are killed."""
        programs = []
        try:
            for point in self._mounts:
                place, records = self._places(number, point, point)
                records.mkdir(parents=True)
                place.mkdir()
                words = [sys.executable, "-m", "tests.t5_faults.promises"]
                words += [str(place), str(records), str(number)]
                programs.append(subprocess.Popen(words, cwd=ROOT))
            for writer in self._writers(number):
                wait_for_more(writer)
            yield
        finally:
            for program in programs:
                program.kill()
                program.wait()

    def _disturb(self, rng: random.Random) -> None:
        """Sometimes a daemon dies shortly before, and is back."""
        victim = rng.choice(["", "", "metad", *self.cluster.chunkd_names])
        if victim:
            self.cluster.kill(victim)
            time.sleep(rng.uniform(0, 0.5))
            self.cluster.start(victim)

    def _destroy(self, rng: random.Random) -> float:
        """metad's directory goes while it runs, then the process; when that was."""
        shutil.rmtree(self._metadata)
        time.sleep(rng.choice([0.0, 0.02, 0.3]))
        died_s = time.monotonic()
        self.cluster.lose_power("metad")
        return died_s

    def _restore(self, died_s: float, at_ns: int | None = None) -> Recovery:
        """What an operator does."""
        before = self._database
        self._metadata = self._metadata.with_name(f"data-{self.totals.rounds + 1}")
        self._metadata.mkdir()
        config = self.cluster.local.metad.config
        config.write_text(config.read_text().replace(before, self._database))
        words = ["restore", "--to", self._database, "--json"]
        for port in self.cluster.local.settings.chunkd_ports:
            words += ["--from", f"{HOST}:{port}"]
        if at_ns is not None:
            words += ["--at", datetime.datetime.fromtimestamp(at_ns / 1e9).isoformat()]
        done = json.loads(self._dfs(*words))
        assert done["warnings"] == [], done
        restored_s = time.monotonic() - died_s
        self.cluster.start("metad")
        return Recovery(restored_s, time.monotonic() - died_s, 0.0, done["replayed"])

    @property
    def _database(self) -> str:
        """metad's setting `url`."""
        return f"sqlite:///{self._metadata}/metad.db"

    def _dfs(self, *words: str) -> str:
        """A command about metadata, which must work; what it printed."""
        where = () if words[0] in ("restore", "check") else ("--url", self.cluster.address)
        status, text = run_dfs("metad", *words, *where)
        assert status == 0, f"dfs metad {' '.join(words)}: {text}"
        return text

    # -- judging

    def _wait_copies(self) -> None:
        def copies() -> bool:
            status, text = run_dfs("metad", "journal", "--url", self.cluster.address, "--json")
            return status == 0 and json.loads(text)["copies"] >= 1

        wait_for(copies, "a copy of the journal")

    def _check(self, number: int) -> int:
        """The promises of a round, and of the one before; how many there were."""
        made = 0
        for judged in (number - 1, number):
            if (self._records / str(judged)).exists():
                for point in self._mounts:
                    made = sum(writer.check() for writer in self._writers(judged, point))
        return made

    def _check_backup(self) -> None:
        copy = self.cluster.directory / "copy.db"
        copy.unlink(missing_ok=True)
        self._dfs("backup", str(copy))
        self._dfs("check", str(copy))

    def _writers(self, number: int, through: Path | None = None) -> list[Writer]:
        """Those of both mounts, as they are seen through one of them."""
        at_ns = self._moments.get(number)
        return [
            writer
            for point in self._mounts
            for writer in writers(
                *self._places(number, point, through or point),
                number,
                at_ns=at_ns,
                is_mounted=at_ns is None,
            )
        ]

    def _places(self, number: int, point: Path, through: Path) -> tuple[Path, Path]:
        """Of the program on mount `point`: its directory, seen through a mount, and its records."""
        name = f"{number}-{point.name}"
        return through / name, self._records / str(number) / name

    def _forget(self, number: int) -> None:
        if (self._records / str(number)).exists():
            for point in self._mounts:
                shutil.rmtree(self._places(number, point, point)[0])
            shutil.rmtree(self._records / str(number))


def wait_for_more(writer: Writer) -> None:
    """Until it has got one promise more than now; unless it has all it wants."""
    had = writer.promises()
    wait_for(lambda: writer.is_over or writer.promises() > had, f"{writer.path} goes on")


def wait_for_change(path: Path) -> None:
    """Until a mount takes changes.  It may need a moment to hear that its session is no more."""

    def changed() -> bool:
        try:
            path.write_bytes(b"changed")
        except OSError:
            return False
        return path.read_bytes() == b"changed"

    wait_for(changed, f"{path} is written")


def remove(path: Path) -> None:
    """A file or a directory."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()


def run(
    rounds: int, seed: int, directory: Path, report: Callable[[str], None], back_s: float = 0.0
) -> Totals:
    """So many rounds.  Nothing runs afterwards."""
    nursery = Nursery()
    drill = Drill(directory, seed, nursery, back_s)
    try:
        drill.start()
        for number in range(1, rounds + 1):
            took = drill.round(number)
            report(
                f"{number} of {rounds}: {took.replayed} entries replayed after "
                f"{took.restored_s:.1f} s, serving after {took.serving_s:.1f} s, everybody goes on "
                f"after {took.going_on_s:.1f} s; {drill.totals.promises} promises kept"
            )
        drill.check_deeply()
    finally:
        drill.cluster.close()
        nursery.close()
    return drill.totals


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--back", type=float, default=0.0, metavar="SECONDS")
    words = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="dfs-drill-"))

    def report(line: str) -> None:
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()

    try:
        totals = run(words.rounds, words.seed, directory, report, words.back)
    except (AssertionError, OSError) as problem:  # a promise broken, or unreadable
        report(f"BROKEN: {problem}\nseed {words.seed}; files in {directory}")
        raise SystemExit(1) from problem
    shutil.rmtree(directory)
    report(f"{totals.promises} promises in {totals.rounds} rounds: 0 lost, 0 wrong")


if __name__ == "__main__":
    main()
