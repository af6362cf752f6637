"""A filled cluster whose servers come and go while programs use it, and what is measured of that.

Four disks of their own, of which three are in use at first.  `fill` writes the content, small and
large files.  Each `phase` runs programs on the mount (load.py) that must not meet an error, and
looks at the disks all the time: how many copies of each chunk of the content are there on servers
that count, and which copies were made.  Used by loss.py.
"""

from __future__ import annotations

import contextlib
import random
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from chunkd.layout import Layout
from tests.t5_faults.harness import Changes, FaultyCluster
from tests.t5_faults.load import KINDS, Load
from tests.t5_process.observed import REPLICAS, sha256_of, wait_for
from tests.t5_process.programs import ROOT

MIB = 1 << 20
LARGE_BYTES = 128 * MIB
SMALL_BYTES = 100_000
SMALL_SHARE = 0.1  # of all bytes
SPARE_BYTES = 768 * MIB  # on each disk, for what the programs write
HOLDS = 1.3  # times the content: two servers must be able to hold all of it, and repair's reserve
SERVERS, SPARE = ("chunkd1", "chunkd2", "chunkd3"), "chunkd4"
PAUSE_S = 0.2  # of each program after each operation: the disks must not fill up in an hour
PAUSE = 9.0  # times the duration of a look at the disks
LONGEST_S = 7200.0

Report = Callable[[str], None]


@dataclass
class Phase:
    """One upheaval: seconds from its beginning (None: has not happened), and bytes of copies.

    `fewest` copies of a chunk of the content were there at any moment.
    """

    name: str
    noticed_s: float | None = None
    begun_s: float | None = None
    finished_s: float | None = None
    moved_bytes: int = 0
    fewest: int = 0
    operations: int = 0
    slowest_s: dict[str, float] = field(default_factory=dict)

    def line(self) -> str:
        """For people."""
        times = ", ".join(
            f"{name} {value:.1f} s"
            for name, value in (
                ("noticed", self.noticed_s),
                ("begun", self.begun_s),
                ("finished", self.finished_s),
            )
            if value is not None
        )
        slowest = ", ".join(f"{kind} {value:.1f} s" for kind, value in self.slowest_s.items())
        return (
            f"{self.name}: {times}; {self.moved_bytes / 1e6:.0f} MB moved; never fewer than "
            f"{self.fewest} copies; {self.operations} operations, 0 errors; slowest {slowest}"
        )


class Upheaval:
    """The cluster.  `members` are the servers whose copies count."""

    def __init__(
        self,
        directory: Path,
        size_bytes: int,
        metad: Changes,
        report: Report,
        spare_bytes: int = SPARE_BYTES,
    ) -> None:
        self.size_bytes = size_bytes
        self.members = set(SERVERS)
        self.phases: list[Phase] = []
        self._report = report
        self._chunks: dict[bytes, int] = {}  # of the content, with their lengths
        self._digests: dict[Path, str] = {}
        self.cluster = FaultyCluster(
            directory,
            isolated=False,
            metad={**metad, "compaction_interval_s": 86400.0},
            chunkd={"scrub_period_s": 86400.0},
            kinds=["ext4"] * (len(SERVERS) + 1),
            disk_bytes=int(size_bytes * HOLDS) + spare_bytes,
            metad_disk_bytes=max(128 * MIB, size_bytes // 20),
            disk_options="loop,discard",  # what is deleted needs no room in the image either
        )
        self._records = directory / "records"
        self._records.mkdir()

    # -- content

    def fill(self) -> None:
        """Files of random bytes, and everything mounted anew."""
        place = self.cluster.mount_point / "content"
        place.mkdir()
        piece = random.Random(1).randbytes(LARGE_BYTES + SMALL_BYTES)
        small_bytes = int(self.size_bytes * SMALL_SHARE)
        large_bytes = min(LARGE_BYTES, self.size_bytes - small_bytes)
        started = time.monotonic()
        paths = []
        for number in range(small_bytes // SMALL_BYTES):
            path = place / str(number // 1000) / f"small-{number}"
            if number % 1000 == 0:
                path.parent.mkdir()
            path.write_bytes(number.to_bytes(8, "big") + piece[: SMALL_BYTES - 8])
            paths.append(path)
            if number % 100 == 0:
                self._digests[path] = sha256_of(path)
        for number in range(max(1, (self.size_bytes - small_bytes) // LARGE_BYTES)):
            path = place / f"large-{number}"
            path.write_bytes(number.to_bytes(8, "big") + piece[:large_bytes])
            paths.append(path)
            self._digests[path] = sha256_of(path)
        self.cluster.remount()
        for info in self.cluster.infos(paths):
            self._chunks.update((each.chunk, each.length) for each in info.chunks)
        self._report(
            f"{sum(self._chunks.values()) / 1e6:.0f} MB in {len(self._chunks)} chunks of "
            f"{len(paths)} files, filled in {time.monotonic() - started:.0f} s"
        )

    def check_content(self) -> None:
        """Large files whole, of the small ones some."""
        for path, digest in self._digests.items():
            assert sha256_of(path) == digest, f"wrong bytes in {path}"

    def check_disks(self) -> None:
        """Every copy that metad calls good is verified on its disk, of the files looked at."""
        self.cluster.wait_sound(*self._digests)

    # -- measuring

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[Clock]:
        """Inside, programs work and the disks are watched; afterwards everything is compared."""
        place = self.cluster.mount_point / f"load-{name}"
        records = self._records / name
        place.mkdir()
        records.mkdir()
        phase = Phase(name)
        with Load(self.cluster, place, records, (*KINDS, "large"), PAUSE_S) as load:
            load.wait_progress()
            load.slowest_s()
            watch = Watch(self)
            with watch.running():
                yield Clock(phase, watch, self._report)
                load.wait_progress(1)
            load.finish()
            phase.slowest_s = load.slowest_s()
            phase.operations = load.operations()
            phase.moved_bytes, phase.fewest = watch.moved_bytes, watch.fewest
            self.cluster.remount()
            load.check()
        shutil.rmtree(place)
        self.check_content()
        self.phases.append(phase)
        self._report(phase.line())

    def copies(self, *, of_others_too: bool = False) -> dict[bytes, set[str]]:
        """On which members' disks each chunk of the content is, as the disks themselves say."""
        found: dict[bytes, set[str]] = {chunk: set() for chunk in self._chunks}
        for name in self.cluster.chunkd_names if of_others_too else sorted(self.members):
            for chunk, _ in Layout(self.cluster.data(name)).walk():
                if chunk in found:
                    found[chunk].add(name)
        return found

    def copies_of(self, chunk: bytes) -> set[str]:
        """The same of one chunk, at one moment."""
        return {
            name
            for name in sorted(self.members)
            if Layout(self.cluster.data(name)).file(chunk).exists()
        }

    def length_of(self, chunk: bytes) -> int:
        """Of a chunk of the content, in bytes."""
        return self._chunks[chunk]

    # -- asking and ordering

    def is_up(self, name: str) -> bool:
        """Whether metad says so of this server."""
        port = self.cluster.daemon(name).port
        return any(
            server.state == "up" and server.address.endswith(f":{port}")
            for server in self.cluster.status().servers
        )

    def is_whole(self) -> bool:
        """Every member is up, and every chunk has its copies."""
        return (
            all(map(self.is_up, self.members)) and not self.cluster.status().chunks.under_replicated
        )

    def wait_whole(self) -> None:
        """Until that is so."""
        wait_for(self.is_whole, "full redundancy", LONGEST_S, poll_s=0.5)

    def copies_ordered(self) -> int:
        """How often repair has ordered copies, as metad's log says."""
        return self.cluster.log_text("metad").count("copies ordered")

    @contextlib.contextmanager
    def commanded(self, *words: str) -> Iterator[subprocess.Popen[str]]:
        """A command of an operator, which must work, while the block runs."""
        command = [sys.executable, "-m", "dfsmount.cli", *words, "--url", self.cluster.address]
        pipe = subprocess.PIPE
        with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, cwd=ROOT) as program:
            try:
                yield program
                output, errors = program.communicate(timeout=LONGEST_S)
            finally:
                program.kill()
        assert program.returncode == 0, f"dfs {' '.join(words)}: {output} {errors}"

    def command(self, *words: str) -> None:
        """The same, waited for."""
        with self.commanded(*words):
            pass


class Clock:
    """Seconds since the beginning of a phase; `start` begins again."""

    def __init__(self, phase: Phase, watch: Watch, report: Report) -> None:
        self.phase = phase
        self.watch = watch
        self._report = report
        self.start()

    def start(self) -> None:
        """Now something happens to the cluster."""
        self._started = time.monotonic()

    def say(self, what: str) -> float:
        """It is so now."""
        now_s = time.monotonic() - self._started
        self._report(f"  {self.phase.name}: {what} after {now_s:.1f} s")
        return now_s

    def wait(self, condition: Callable[[], bool], what: str) -> float:
        """Wait until it is so."""
        wait_for(condition, what, LONGEST_S, poll_s=0.1)
        return self.say(what)


class Watch:
    """Looks at the disks again and again, in a thread."""

    def __init__(self, upheaval: Upheaval) -> None:
        self._upheaval = upheaval
        self._ended = threading.Event()
        self._made: set[tuple[bytes, str]] = set()
        self._begin = upheaval.copies(of_others_too=True)
        self.fewest = min(map(len, upheaval.copies().values()), default=0)

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Inside, it looks; once more at the end."""
        with ThreadPoolExecutor(1) as pool:
            done = pool.submit(self._work)
            try:
                yield
            finally:
                self._ended.set()
            done.result()
        self.look()

    def _work(self) -> None:
        pause_s = 0.0
        while not self._ended.wait(pause_s):
            started = time.monotonic()
            self.look()
            pause_s = max(0.5, PAUSE * (time.monotonic() - started))

    def look(self) -> None:
        """One look at all disks."""
        for chunk, servers in self._upheaval.copies().items():
            self._made.update((chunk, name) for name in servers - self._begin[chunk])
            if len(servers) < REPLICAS:
                # One may have been made here after, and another removed there before the look.
                servers = self._upheaval.copies_of(chunk)
            self.fewest = min(self.fewest, len(servers))

    @property
    def moved_bytes(self) -> int:
        """Of all copies that were made."""
        return sum(self._upheaval.length_of(chunk) for chunk, _ in self._made)

    @property
    def any_made(self) -> bool:
        """Whether a look has seen one."""
        return bool(self._made)
