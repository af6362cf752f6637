"""Control groups of test hosts: each host is one, and ends with it.

Names hold the pid of the test run that owns them, so that what a killed run left can be ended by
the next one, and by nobody else.
"""

from __future__ import annotations

import re
import select
import time
from pathlib import Path

OWNED = re.compile(r"dfshost(\d+)")
EMPTY_S = 30.0


def groups_root() -> Path:
    """Where version 2 of control groups is mounted."""
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, point, kind, *_ = line.split()
        if kind == "cgroup2":
            return Path(point)
    raise AssertionError("no control groups of version 2 are mounted")


def end_group(group: Path) -> None:
    """SIGKILL to everything in a group; returns when the group is gone."""
    if not group.exists():
        return
    (group / "cgroup.kill").write_text("1")
    _wait_empty(group)
    for inner in sorted((each for each in group.rglob("*") if each.is_dir()), reverse=True):
        inner.rmdir()
    group.rmdir()


def _wait_empty(group: Path) -> None:
    deadline = time.monotonic() + EMPTY_S
    poll = select.poll()
    with (group / "cgroup.events").open() as events:
        poll.register(events, select.POLLPRI)  # tells of changes
        while "populated 1" in events.read():
            assert time.monotonic() < deadline, f"{group} does not end"
            poll.poll(1000 * (deadline - time.monotonic()))
            events.seek(0)


def sweep_groups() -> list[int]:
    """End the hosts of runs that are gone; the pids of those runs."""
    gone = []
    for entry in groups_root().iterdir():
        owner = OWNED.fullmatch(entry.name)
        if owner and not Path(f"/proc/{owner[1]}").exists():
            for host in [each for each in entry.iterdir() if each.is_dir()]:
                end_group(host)
            entry.rmdir()
            gone.append(int(owner[1]))
    return gone
