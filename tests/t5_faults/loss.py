"""Servers are lost, drained, removed and added under load, and copies rebalanced.

    python -m tests.t5_faults.loss --gib 10 --directory /where/there/is/room

fills a cluster of three servers (two copies of everything) with small and large files.  Then, while
programs write, rename and read: a server is killed and stays dead until everything is redundant
again; another one is drained and removed; a new one is added; copies are rebalanced; the removed
one is taken back.  What each of these took and moved is printed, and how many copies of each chunk
were on the disks at the worst moment.  Any error of a program and any wrong byte ends it with 1.
The directory (a temporary one of its own is made in it) needs four times the size, and the run has
metad's usual timers: a server is down after 8 s, and repair begins 30 s later.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from dfsmount.cli.localcluster import HOST
from metad.config import MetadConfig
from tests.t5_faults import disks
from tests.t5_faults.harness import Changes
from tests.t5_faults.upheaval import SERVERS, SPARE, SPARE_BYTES, Phase, Upheaval
from tests.t5_process.observed import REPLICAS, wait_for

LOST, DRAINED, _ = SERVERS
USUAL = MetadConfig(url="sqlite:////unused")
USUAL_TIMERS: Changes = {
    name: getattr(USUAL, name)
    for name in (
        *("heartbeat_s", "suspect_s", "down_s", "repair_after_s", "maintenance_s"),
        *("order_timeout_s", "trim_after_s", "chunk_size_bytes", "rebalance_band"),
    )
} | {
    # The programs replace large files all the time: with more the disks would fill up.
    "reclaim_grace_s": 10.0,
    "restore_window_s": 0.0,
}


def lose(upheaval: Upheaval) -> None:
    """Kill a server, and watch until everything has its copies on the others."""
    cluster = upheaval.cluster
    with upheaval.phase("loss") as clock:
        orders = upheaval.copies_ordered()
        cluster.kill(LOST)
        clock.start()
        upheaval.members.remove(LOST)
        clock.phase.noticed_s = clock.wait(
            lambda: cluster.server(LOST).state == "down", "shown as down"
        )
        assert cluster.status().chunks.under_replicated > 0
        clock.phase.begun_s = clock.wait(lambda: upheaval.copies_ordered() > orders, "repair begun")
        clock.phase.finished_s = clock.wait(upheaval.is_whole, "redundant")
        assert all(len(servers) >= REPLICAS for servers in upheaval.copies().values())
    cluster.start(LOST)
    upheaval.members.add(LOST)
    upheaval.wait_whole()


def drain(upheaval: Upheaval) -> None:
    """Empty a living server, and forget it."""
    cluster = upheaval.cluster
    address = f"{HOST}:{cluster.daemon(DRAINED).port}"
    with upheaval.phase("drain and removal") as clock:
        clock.start()
        with upheaval.commanded("node", "drain", address, "--wait"):
            clock.phase.noticed_s = clock.wait(
                lambda: cluster.server(DRAINED).admin != "enabled", "shown as draining"
            )
            clock.phase.begun_s = clock.wait(lambda: clock.watch.any_made, "first copy seen")
        clock.say("drained")
        upheaval.members.remove(DRAINED)
        upheaval.command("node", "remove", address, "--wait")
        clock.phase.finished_s = clock.say("removed")
        # A chunkd that is told of its removal ends.
        wait_for(lambda: cluster.daemon(DRAINED).running() is None, "its end")
        assert upheaval.is_whole()


def add(upheaval: Upheaval) -> None:
    """A new server: it is known and gets its share of what is written."""
    cluster = upheaval.cluster
    with upheaval.phase("addition") as clock:
        clock.start()
        cluster.start(SPARE)
        upheaval.members.add(SPARE)
        clock.phase.noticed_s = clock.wait(lambda: upheaval.is_up(SPARE), "shown as up")
        clock.phase.finished_s = clock.wait(lambda: cluster.server(SPARE).chunks > 0, "has chunks")


def rebalance(upheaval: Upheaval) -> None:
    """Copies move to the new server until all disks are about equally full."""
    before = unevenness(upheaval)
    with upheaval.phase("rebalancing") as clock:
        clock.start()
        with upheaval.commanded("rebalance", "--now", "--wait") as program:
            clock.phase.begun_s = clock.wait(
                lambda: clock.watch.any_made or program.poll() is not None, "first copy seen"
            )
        clock.phase.finished_s = clock.say("finished")
        after = unevenness(upheaval)
        clock.say(f"{before:.1%} between the fullest and the emptiest disk became {after:.1%};")
        assert after < before


def unevenness(upheaval: Upheaval) -> float:
    """How much fuller the fullest disk is than the emptiest one."""
    shares = [
        1 - disk.free_bytes / disk.total_bytes
        for server in upheaval.cluster.status().servers
        if server.admin == "enabled"
        for disk in server.disks
    ]
    return max(shares) - min(shares)


def take_back(upheaval: Upheaval) -> None:
    """The removed server is wanted again, with everything that it had."""
    cluster = upheaval.cluster
    with upheaval.phase("return") as clock:
        clock.start()
        upheaval.command("node", "enable", f"{HOST}:{cluster.daemon(DRAINED).port}")
        cluster.start(DRAINED)
        upheaval.members.add(DRAINED)
        clock.phase.noticed_s = clock.wait(lambda: upheaval.is_up(DRAINED), "shown as up")
        clock.phase.finished_s = clock.wait(upheaval.is_whole, "whole")


STEPS: tuple[Callable[[Upheaval], None], ...] = (lose, drain, add, rebalance, take_back)


def run(
    size_bytes: int,
    directory: Path,
    metad: Changes,
    report: Callable[[str], None],
    spare_bytes: int = SPARE_BYTES,
) -> list[Phase]:
    """All of it.  Nothing runs afterwards; the directory stays."""
    upheaval = Upheaval(directory, size_bytes, metad, report, spare_bytes)
    cluster = upheaval.cluster
    try:
        cluster.start("metad", *SERVERS)
        cluster.mount()
        upheaval.fill()
        for step in STEPS:
            step(upheaval)
        upheaval.check_disks()
        cluster.check_fsck()
        cluster.check_logs()
        return upheaval.phases
    finally:
        cluster.close()


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--gib", type=float, default=10)
    parser.add_argument("--directory", type=Path, default=Path(tempfile.gettempdir()))
    words = parser.parse_args()
    disks.sweep()
    directory = Path(tempfile.mkdtemp(prefix="dfs-loss-", dir=words.directory))

    def report(line: str) -> None:
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()

    try:
        phases = run(int(words.gib * (1 << 30)), directory, USUAL_TIMERS, report)
        report("")
        for phase in phases:
            report(phase.line())
    except (AssertionError, OSError) as problem:  # an error of a program, or a wrong byte
        logs = Path(tempfile.mkdtemp(prefix="dfs-loss-log-"))
        shutil.copytree(directory / "log", logs, dirs_exist_ok=True)
        report(f"FAILED: {problem}; the logs are in {logs}")
        raise SystemExit(1) from problem
    finally:
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    main()
