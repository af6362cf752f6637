"""Logs: followed while they are written, also from another mount, rotated in both ways, locked.

inotify tells nothing of what other hosts do, on no FUSE file system; tail(1) knows that and polls.
"""

from __future__ import annotations

import gzip
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Timer

import pytest

from tests.t4_mount.conftest import TwoViews
from tests.t4_mount.harness import eventually, run
from tests.t6_apps.programs import find_program, started

LINES = 40
PATIENCE_S = 30.0


def following(tail: subprocess.Popen[str]) -> Iterator[str]:
    """What tail prints, line by line; it is ended when nothing comes for long."""
    assert tail.stdout is not None
    with_limit = Timer(PATIENCE_S, tail.kill)
    with_limit.start()
    try:
        for line in tail.stdout:
            yield line.rstrip("\n")
    finally:
        with_limit.cancel()


@pytest.mark.parametrize("words", ["-f", "-F", "-F ---disable-inotify"])
def test_tail_follows_a_log_that_is_written_elsewhere(views: TwoViews, words: str) -> None:
    (views.a / "log").write_text("first\n")
    with started("tail", *words.split(), "-n", "+1", "-s", "0.02", views.b / "log") as tail:
        lines = following(tail)
        assert next(lines) == "first"
        for number in range(LINES):
            with (views.a / "log").open("a") as log:
                log.write(f"line {number}\n")
            if number % 10 == 0:
                assert [next(lines) for _ in range(10 if number else 1)][-1] == f"line {number}"
        if words != "-f":
            (views.a / "log").rename(views.a / "log.1")
            (views.a / "log").write_text("rotated\n")
            assert "rotated" in lines


def test_tail_follows_what_is_written_through_an_open_file(views: TwoViews) -> None:
    """No close, no fsync: what write() has returned for is seen by the follower."""
    with (
        (views.a / "log").open("ab", buffering=0) as log,
        started("tail", "-f", "-s", "0.02", views.b / "log") as tail,
    ):
        lines = following(tail)
        for number in range(LINES):
            log.write(b"line %d\n" % number)
            assert next(lines) == f"line {number}"


@pytest.mark.needs("logrotate")
@pytest.mark.parametrize("way", ["create", "copytruncate"])
def test_a_log_is_rotated_while_it_is_written(views: TwoViews, tmp_path: Path, way: str) -> None:
    """logrotate runs on another mount than the writer, which opens the file for each line.

    `delaycompress` is for writers that have opened the log before its rotation and write after it.
    """
    script = "import sys\nfor n in range(10**6):\n  open(sys.argv[1], 'a').write(f'{n}\\n')\n"
    rules = tmp_path / "rules"
    rules.write_text(f'"{views.b}/log" {{\n  rotate 20\n  {way}\n  compress\n  delaycompress\n}}\n')
    rules.chmod(0o644)
    views.b.chmod(0o755)
    logrotate = find_program("logrotate")
    assert logrotate is not None
    with started(sys.executable, "-c", script, views.a / "log") as writer:
        for number in range(1, 5):
            eventually(lambda: has_lines(views.b / "log"), PATIENCE_S)
            run(logrotate, "-f", "-s", tmp_path / "state", rules, cwd=views.b)
            assert (views.b / f"log.{number}{'.gz' if number > 1 else ''}").exists()
        assert writer.poll() is None
        writer.kill()
        writer.wait()
    logs = sorted(views.a.glob("log.*"), key=lambda path: -int(path.name.split(".")[1]))
    texts = [text_of(path) for path in [*logs, views.a / "log"] if path.exists()]
    numbers = [int(line) for text in texts for line in text.split()]
    assert numbers == sorted(set(numbers))
    if way == "create":  # copytruncate loses what is written between its copy and its truncate
        assert numbers == list(range(len(numbers)))


def text_of(log: Path) -> str:
    content = log.read_bytes()
    return (gzip.decompress(content) if log.suffix == ".gz" else content).decode()


def has_lines(log: Path) -> bool:
    return log.exists() and log.stat().st_size > 100


def test_flock_runs_one_at_a_time(here: Path) -> None:
    """flock(1), as it is used in crontabs and scripts."""
    count = 8
    add = "n=$(cat count); echo $((n + 1)) >count.new; mv count.new count"
    (here / "count").write_text("0\n")
    command = ["flock", "lock", "sh", "-c", add]
    processes = [subprocess.Popen(command, cwd=here) for _ in range(count)]
    assert [process.wait(PATIENCE_S) for process in processes] == [0] * count
    assert (here / "count").read_text() == f"{count}\n"
    with started("flock", here / "lock", "sh", "-c", "echo locked; cat") as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "locked\n"
        refused = subprocess.run(["flock", "-n", "lock", "true"], cwd=here)
        assert refused.returncode == 1
        began = time.monotonic()
        waited = subprocess.run(["flock", "-w", "0.2", "lock", "true"], cwd=here)
        assert waited.returncode == 1
        assert time.monotonic() - began >= 0.2
        # The lock belongs to the open file, which sh and cat have inherited: to kill flock(1) alone
        # would leave it to them.  Without input they end, and flock(1) after them.
        holder.communicate(timeout=PATIENCE_S)
        assert holder.returncode == 0
    run("flock", "-n", "lock", "true", cwd=here)
