"""A real cluster and real mounts for tests: processes on loopback, everything in one directory.

`LiveCluster` is `dfs up` and `dfs down` with what a test wants to ask on top; `LiveMount` is one
mount process that can be ended and started again.  Both only signal processes that they started.
A test that hangs in a system call is freed by `Watchdog`, which kills the mounts it waits for.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from dfsmount.cli.launch import Launch
from dfsmount.cli.lifecycle import mount_command
from dfsmount.cli.localcluster import LocalCluster
from dfsmount.cli.mounts import mount_at, unmount
from dfswire.errors import UsageError
from dfswire.fsck import FsckReport

REPOSITORY = Path(__file__).parents[2]
DFS = [sys.executable, "-P", "-m", "dfsmount.cli"]
START_TIMEOUT_S = 30.0
UNMOUNT_TIMEOUT_S = 30.0
LAST_LINES = 15


def dfs(*arguments: str | Path, timeout_s: float = 60.0) -> subprocess.CompletedProcess[str]:
    """Run the `dfs` command to its end."""
    command = [*DFS, *(str(argument) for argument in arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout_s)


def run(
    *command: str | Path, cwd: Path, env: dict[str, str] | None = None, timeout_s: float = 60.0
) -> str:
    """Run an application that must succeed; what it printed."""
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env={**os.environ, **(env or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout_s,
    )
    assert done.returncode == 0, f"{command} ended with {done.returncode}:\n{done.stderr}"
    return done.stdout


def eventually(condition: Callable[[], bool], timeout_s: float = 10.0) -> None:
    """Wait for what nobody can announce to a test: the cluster's work in the background."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"not so after {timeout_s:g} s: {condition}"
        time.sleep(0.02)


STOOD_STILL = "the event loop stood still"
"""A warning that may come at any time: by a machine with too much to do, or a test that stops a
process."""


def last_lines(log: Path, count: int = LAST_LINES) -> str:
    """The end of a log, for a failure's text."""
    lines = log.read_text("utf-8", "replace").splitlines() if log.exists() else ["(no log)"]
    return "\n".join(f"  {log.name}: {line}" for line in lines[-count:])


class LiveMount:
    """One mount process of a cluster.  `point` is where it is mounted, `log` what it prints.

    `command` can be another program than `python -m dfsmount`, for tests of tests.
    """

    def __init__(
        self, metad: str, point: Path, log: Path, options: str, command: Sequence[str] = ()
    ) -> None:
        self.point = point
        self.log = log
        self._command = list(command) or mount_command(metad, point, options)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Mount.  Fails with the last lines of the log when that is not possible."""
        self.point.mkdir(exist_ok=True)
        with Launch(self._command, self.log) as launch:
            self._process = launch.process
            reason = launch.wait_ready(START_TIMEOUT_S)
        assert not reason, f"cannot mount: {reason}\n{last_lines(self.log)}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def stop(self) -> None:
        """Unmount, and wait until the process has stored everything and ended."""
        if self._process is None:
            return
        process, self._process = self._process, None
        try:
            self._unmount(process)
            status = process.wait(UNMOUNT_TIMEOUT_S)
            assert status == 0, f"the mount ended with {status}\n{last_lines(self.log)}"
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
            while (left := mount_at(self.point)) is not None:
                unmount(left, lazy=True)

    def _unmount(self, process: subprocess.Popen[bytes]) -> None:
        if (mounted := mount_at(self.point)) is None:
            return
        try:
            unmount(mounted)
        except UsageError:  # a failed test left something open
            unmount(mounted, lazy=True)
            process.terminate()

    def kill(self) -> None:
        """SIGKILL: every system call that waits for this mount returns with an error."""
        if self._process is not None:
            self._process.kill()

    def clear(self) -> None:
        """After `kill`: wait for the process, and take the dead mount away."""
        process, self._process = self._process, None
        if process is not None:
            process.wait()
        while (left := mount_at(self.point)) is not None:
            unmount(left, lazy=True)

    def restart(self) -> None:
        """Unmount and mount again: nothing stays cached, everything dirty is stored."""
        self.stop()
        self.start()


class LiveCluster:
    """metad and three chunkds, started by `dfs up` in a directory of their own."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.mounts: list[LiveMount] = []
        done = dfs("up", "--dir", directory, "--nodes", "3", "--replicas", "2", "--json")
        if done.returncode:
            self.down()
        assert done.returncode == 0, f"dfs up failed: {done.stderr}\n{self.last_words()}"
        self.files = LocalCluster.open(directory)
        self.metad = self.files.metad_address

    def mount(self, name: str, options: str = "", command: Sequence[str] = ()) -> LiveMount:
        """Mount the cluster on the directory NAME beside its own."""
        point = self.directory.parent / name
        log = self.directory / "log" / f"mount-{name}.log"
        mount = LiveMount(self.metad, point, log, options, command)
        self.mounts.append(mount)
        mount.start()
        return mount

    def unmount(self, mount: LiveMount) -> None:
        """It is not one of this cluster's any more, also when it ends badly."""
        try:
            mount.stop()
        finally:
            self.mounts.remove(mount)

    def last_words(self) -> str:
        """The ends of all logs."""
        return "\n".join(last_lines(log) for log in sorted(self.directory.glob("log/*.log")))

    def check_alive(self) -> None:
        """Fail when a daemon has ended, with what it said last."""
        dead = [daemon for daemon in self.files.daemons if daemon.running() is None]
        words = "\n".join(last_lines(daemon.log) for daemon in dead)
        assert not dead, f"{', '.join(daemon.name for daemon in dead)} ended:\n{words}"

    def fsck(self) -> FsckReport:
        """What `dfs fsck --json` finds."""
        done = dfs("fsck", "--dir", self.directory, "--json")
        assert done.returncode in (0, 1), f"dfs fsck: {done.stderr}\n{self.last_words()}"
        return msgspec.json.decode(done.stdout, type=FsckReport)

    def info(self, path: Path) -> dict[str, Any]:
        """What `dfs info --json` tells of a file on a mount."""
        done = dfs("info", path, "--json")
        assert done.returncode == 0, f"dfs info: {done.stderr}"
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer

    def alarming_lines(self) -> list[str]:
        """Warnings, errors and tracebacks in all logs, STOOD_STILL excepted."""
        found = []
        for log in sorted(self.directory.glob("log/*.log")):
            for line in log.read_text("utf-8", "replace").splitlines():
                alarming = re.search(r"\b(WARNING|ERROR|CRITICAL|Traceback|\w+Warning:)", line)
                if alarming and STOOD_STILL not in line:
                    found.append(f"{log.name}: {line}")
        return found

    def down(self) -> None:
        """Unmount everything and end all daemons; what fails does not keep the rest alive."""
        with contextlib.ExitStack() as cleanup:
            cleanup.callback(self._stop_daemons)
            for mount in self.mounts:
                cleanup.callback(mount.stop)

    def _stop_daemons(self) -> None:
        if LocalCluster.is_at(self.directory):
            done = dfs("down", "--dir", self.directory, "--force")
            assert done.returncode == 0, f"dfs down: {done.stderr}"


class Watchdog:
    """Kills the mounts when a test takes too long: a hanging system call then returns."""

    def __init__(self, cluster: LiveCluster) -> None:
        self._cluster = cluster
        self.barked = False

    @contextlib.contextmanager
    def watch(self, limit_s: float) -> Iterator[None]:
        timer = threading.Timer(limit_s, self._bark)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
            timer.join()

    def _bark(self) -> None:
        self.barked = True
        for mount in self._cluster.mounts:
            mount.kill()


@contextlib.contextmanager
def acting_as(uid: int, gid: int, directory: Path, groups: Sequence[int] = ()) -> Iterator[None]:
    """This process with the rights of another user, standing in `directory`.

    Use relative paths inside: the temporary directories above are closed to other users.
    """
    before = Path.cwd()
    own_groups = os.getgroups()
    os.chdir(directory)
    os.setgroups(list(groups))
    os.setegid(gid)
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(own_groups)
        os.chdir(before)


def missing_for_mounts() -> str:
    """Why nothing can be mounted here; "" when it can."""
    if os.geteuid() != 0:
        return "mounting needs root"
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        return "there is no usable /dev/fuse"
    if shutil.which("fusermount3") is None:
        return "fusermount3 is missing (package fuse3)"
    return ""
