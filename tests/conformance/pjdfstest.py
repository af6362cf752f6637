"""Runs pjdfstest, the public suite of POSIX system calls, on a cluster of our own in four modes.

    python -m tests.conformance.pjdfstest SOURCES [MODE...]     (make pjdfstest SRC=SOURCES)

SOURCES is a folder of pjdfstest with the program built in it; nothing of it is part of this
project.  Modes: `default`; `nocache`, which asks metad for everything; `two-mounts`, where each
command of a test runs on the other one of two mounts than the command before; `chunkd-killed`, one
chunkd after the other every 5 s.  Prints a table and ends with 1 when anything failed.
"""

from __future__ import annotations

import argparse
import contextlib
import shlex
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from itertools import cycle
from pathlib import Path

from tests.conformance.tap import Outcome, judge, table
from tests.t5_process.harness import Cluster

MODES = ("default", "nocache", "two-mounts", "chunkd-killed")
OPTIONS = "allow_other,suid,dev"
FILE_LIMIT_S = 900.0
KILL_EVERY_S = 5.0

ALTERNATE = """#!/bin/sh
# Runs the command in the same directory of the other mount than the command before.
if rm {turn} 2>/dev/null; then
    case $PWD in
        {here}|{here}/*) cd {there}"${{PWD#{here}}}" || exit 1 ;;
    esac
else
    : >{turn}
fi
exec {program} "$@"
"""


def run_files(sources: Path, point: Path) -> Iterator[Outcome]:
    """Every test file, each in a fresh directory on the mount."""
    files = sorted(sources.glob("tests/*/*.t"))
    assert files, f"no tests below {sources}"
    for file in files:
        place = point / f"{file.parent.name}-{file.stem}"
        place.mkdir()
        started = time.monotonic()
        done = subprocess.run(
            ["sh", str(file)],
            cwd=place,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=FILE_LIMIT_S,
        )
        output = done.stdout.decode("utf-8", "replace")
        seconds = time.monotonic() - started
        yield judge(file.parent.name, file.name, output, done.returncode, seconds)


@contextlib.contextmanager
def killing_chunkds(cluster: Cluster) -> Iterator[None]:
    """Inside of `with` a chunkd is killed every KILL_EVERY_S, and started again."""
    over = threading.Event()
    problems: list[BaseException] = []

    def kill() -> None:
        names = cycle(cluster.chunkd_names)
        try:
            while not over.wait(KILL_EVERY_S):
                name = next(names)
                cluster.kill(name)
                cluster.start(name)
        except BaseException as problem:  # noqa: BLE001 - raised by the thread that waits
            problems.append(problem)

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
    if problems:
        raise problems[0]


def alternating(sources: Path, farm: Path, here: Path, there: Path) -> Path:
    """The same sources with a program in front that goes from mount to mount."""
    farm.mkdir()
    (farm / "tests").symlink_to(sources / "tests")
    words = {
        "turn": shlex.quote(str(farm / "turn")),
        "here": shlex.quote(str(here)),
        "there": shlex.quote(str(there)),
        "program": shlex.quote(str(sources / "pjdfstest")),
    }
    (farm / "pjdfstest").write_text(ALTERNATE.format(**words))
    (farm / "pjdfstest").chmod(0o755)
    return farm


def run_mode(mode: str, sources: Path, directory: Path) -> Iterator[Outcome]:
    """All files on a new cluster, which must be whole in the end."""
    cluster = Cluster(directory)
    with contextlib.ExitStack() as cleanup:
        cleanup.callback(cluster.close)
        cluster.write_files()
        cluster.up()
        point = cluster.mount(options=OPTIONS + (",nocache" if mode == "nocache" else ""))
        if mode == "two-mounts":
            other = cluster.mount(directory / "mnt2", options=OPTIONS)
            sources = alternating(sources, directory / "farm", point, other)
        with killing_chunkds(cluster) if mode == "chunkd-killed" else contextlib.nullcontext():
            yield from run_files(sources, point)
        cluster.wait_healthy()
        cluster.check_fsck()
        cluster.check_logs()


def report(outcomes: Iterable[Outcome]) -> list[Outcome]:
    """Prints failures as they come and the table at the end; all outcomes."""
    seen = []
    for outcome in outcomes:
        seen.append(outcome)
        for failure in outcome.failures:
            print(f"{outcome.directory}/{outcome.name}: {failure}", flush=True)
    print(table(seen), flush=True)
    return seen


def main(arguments: list[str]) -> int:
    """0 when every test of every mode succeeded."""
    parser = argparse.ArgumentParser(prog="pjdfstest", description="Runs pjdfstest on dfs.")
    parser.add_argument("sources", type=Path, help="its folder, with the program built")
    parser.add_argument("mode", nargs="*", help=f"{', '.join(MODES)} (all)")
    given = parser.parse_args(arguments)
    sources = given.sources.resolve()
    if unknown := set(given.mode) - set(MODES):
        parser.error(f"no such mode: {', '.join(sorted(unknown))}")
    if not (sources / "pjdfstest").is_file() or not (sources / "tests").is_dir():
        parser.error(f"{sources} has no program pjdfstest and tests: build it there first")
    failed = False
    for mode in given.mode or MODES:
        print(f"\nmode {mode}", flush=True)
        with tempfile.TemporaryDirectory(prefix="pjdfstest-") as directory:
            Path(directory).chmod(0o755)  # the tests act as other users
            started = time.monotonic()
            outcomes = report(run_mode(mode, sources, Path(directory) / "cluster"))
            print(f"{time.monotonic() - started:.0f} s with starting and checking", flush=True)
        failed |= any(outcome.failures for outcome in outcomes)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
