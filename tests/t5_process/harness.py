"""A cluster of real processes on this host that can be treated badly.

Daemons and mounts are started as `dfs up` starts them (dfsmount/cli does the work), with short
timers, and can be killed, stopped and started again one by one.  Questions go through the `dfs`
command itself or through the same calls.  `close` leaves no process, no mount and no session file
behind, whatever happened.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from chunkd.chunkfile import TAIL_MAX_BYTES, check_blocks, parse_tail
from chunkd.layout import Layout
from dfsmount.cli.app import main as dfs_main
from dfsmount.cli.cluster import ask
from dfsmount.cli.launch import Launch
from dfsmount.cli.lifecycle import mount_command
from dfsmount.cli.localcluster import Daemon, LocalCluster, Settings, choose_ports
from dfsmount.cli.mounts import mount_at, mounts_now
from dfsmount.cli.processes import handle_of, identity_of, recall, remember, stop, wait_end
from dfsmount.runtime import dead_sessions, default_directory
from dfswire.cluster import (
    ChunkInfo,
    ClusterStatus,
    FsckReport,
    FsckRequest,
    InfoReply,
    InfoRequest,
    ServerStatus,
)
from dfswire.errors import CorruptChunk, Unavailable
from dfswire.messages import Empty

T = TypeVar("T")

NODES = 3
REPLICAS = 2
READY_S = 30.0
HEAL_S = 40.0
POLL_S = 0.05
ROOT = Path(__file__).resolve().parents[2]

# Faults are noticed and repaired in seconds.  Leases stay as long as in production: nothing below
# may depend on a lease running out.
METAD_TIMERS: dict[str, float] = {
    "heartbeat_s": 0.25,
    "suspect_s": 1.0,
    "down_s": 2.0,
    "repair_after_s": 3.0,
    "maintenance_s": 0.25,
    "order_timeout_s": 10.0,
    "reclaim_grace_s": 5.0,
}
CHUNKD_TIMERS: dict[str, float] = {"sync_interval_s": 1.0}


def wait_for(
    condition: Callable[[], T], what: str, timeout_s: float = HEAL_S, *, poll_s: float = POLL_S
) -> T:
    """The first true value of `condition`, asked again and again.  Fails after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {timeout_s:g} s in vain: {what}; last seen: {value!r}")
        time.sleep(poll_s)
    return value


def sha256_of(path: Path) -> str:
    """The digest of a file's content, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def copying(source: Path, target: Path) -> Iterator[subprocess.Popen[bytes]]:
    """`cp source target`, running inside of `with`; ended at its end, if need be."""
    copy = subprocess.Popen(["cp", str(source), str(target)])
    try:
        yield copy
    finally:
        copy.kill()
        copy.wait()


def run_dfs(*words: str) -> tuple[int, str]:
    """The `dfs` command, in this process: (exit status, what it printed)."""
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        status = dfs_main(words)
    return status, output.getvalue()


class Cluster:
    """metad, three chunkds and mounts, below one directory."""

    def __init__(self, directory: Path) -> None:
        first, *others = choose_ports(NODES + 1)
        settings = Settings(replicas=REPLICAS, metad_port=first, chunkd_ports=others)
        self.local = LocalCluster(directory, settings)
        self.directory = self.local.directory
        self.address = self.local.metad_address
        self.mount_point = self.directory / "mnt"
        self._children: dict[int, subprocess.Popen[bytes]] = {}
        self._logs_read: dict[Path, int] = {}

    # -- starting

    def write_files(self) -> None:
        """Directories and configurations, with short timers."""
        self.local.write_files()
        for daemon, timers in [
            (self.local.metad, METAD_TIMERS),
            *((chunkd, CHUNKD_TIMERS) for chunkd in self.local.chunkds),
        ]:
            with daemon.config.open("a") as file:
                file.writelines(f"{name} = {value}\n" for name, value in timers.items())

    def up(self) -> None:
        """Start all daemons."""
        self.start("metad", *self.chunkd_names)

    @property
    def chunkd_names(self) -> list[str]:
        return [daemon.name for daemon in self.local.chunkds]

    def daemon(self, name: str) -> Daemon:
        """One of the daemons, by name ("metad", "chunkd1", ...)."""
        return next(daemon for daemon in self.local.daemons if daemon.name == name)

    def data(self, name: str) -> Path:
        """The data directory of a chunkd."""
        return self.daemon(name).config.parent / "data"

    def start(self, *names: str) -> None:
        """Start daemons together; returns when all are ready."""
        with contextlib.ExitStack() as cleanup:
            started = []
            for daemon in map(self.daemon, names):
                launch = cleanup.enter_context(Launch(daemon.command, daemon.log))
                self._adopt(launch, daemon.pid_file)
                started.append((daemon, launch))
            for daemon, launch in started:
                problem = launch.wait_ready(READY_S)
                assert not problem, f"{daemon.name} did not start: {problem}"

    def _adopt(self, launch: Launch, pid_file: Path, mount_point: str = "") -> None:
        self._children[launch.process.pid] = launch.process
        if identity := launch.identity(mount_point):
            remember(identity, pid_file)

    def mount(self, point: Path | None = None, options: str = "") -> Path:
        """Mount the cluster on `point` (the usual directory if none is given)."""
        point = point or self.mount_point
        point.mkdir(exist_ok=True)
        command = mount_command(self.address, point, options)
        with Launch(command, self.directory / "log" / f"{point.name}.log") as launch:
            self._adopt(launch, self.local.mount_pid_file(point), str(point))
            problem = launch.wait_ready(READY_S)
        assert not problem, f"not mounted: {problem}"
        return point

    def unmount(self, point: Path | None = None) -> None:
        """Unmount and wait until the mount process has stored everything and ended."""
        point = point or self.mount_point
        identity = recall(self.local.mount_pid_file(point))
        assert identity is not None, f"nothing serves {point}"
        with handle_of(identity) as handle:
            subprocess.run(["fusermount3", "-u", str(point)], check=True)
            assert handle is None or wait_end(handle, READY_S), "the mount process does not end"
        self._reap(identity.pid)

    def restore(self) -> None:
        """Start what an earlier test has left dead."""
        dead = [daemon.name for daemon in self.local.daemons if not daemon.running()]
        self.start(*(name for name in dead if name == "metad"))
        self.start(*(name for name in dead if name != "metad"))
        if recall(self.local.mount_pid_file(self.mount_point)) is None:
            if mount_at(self.mount_point):
                self.clear_dead_mount()
            self.mount()

    def remount(self, options: str = "") -> None:
        """Unmount and mount again: no cache of the kernel or the client survives that."""
        self.unmount()
        self.mount(options=options)

    # -- ending, politely or not

    def pid(self, name: str) -> int:
        """The process of a daemon, or of the mount ("mnt")."""
        file = (
            self.local.mount_pid_file(self.mount_point)
            if name == self.mount_point.name
            else self.daemon(name).pid_file
        )
        identity = recall(file)
        assert identity is not None, f"{name} does not run"
        return identity.pid

    def kill(self, *names: str) -> None:
        """SIGKILL, to all of them at once; returns when they are gone."""
        identities = [identity_of(self.pid(name)) for name in names]
        with contextlib.ExitStack() as cleanup:
            handles = [
                cleanup.enter_context(handle_of(identity)) for identity in identities if identity
            ]
            for handle in handles:
                if handle is not None:
                    signal.pidfd_send_signal(handle, signal.SIGKILL)
            for handle in handles:
                assert handle is None or wait_end(handle, READY_S), "survives SIGKILL"
        for identity in filter(None, identities):
            self._reap(identity.pid)

    @contextlib.contextmanager
    def stopped(self, *names: str) -> Iterator[None]:
        """The processes are stopped (SIGSTOP) inside of `with`."""
        pids = [self.pid(name) for name in names]
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in pids:
                os.kill(pid, signal.SIGCONT)

    def clear_dead_mount(self) -> None:
        """What an operator does after a mount process died."""
        subprocess.run(["fusermount3", "-uz", str(self.mount_point)], check=True)

    def _reap(self, pid: int) -> None:
        child = self._children.pop(pid, None)
        if child is not None:
            child.wait()

    def abort_mounts(self) -> None:
        """Whatever hangs in a mount of this cluster gets an error now.

        SIGKILL is not enough: a thread of the mount that tells the kernel to forget a page waits,
        unkillable, for a read of that page, which waits for the mount.
        """
        for mount in mounts_now():
            if mount.metad == self.address:
                subprocess.run(["umount", "-f", str(mount.point)], capture_output=True)
        for _, identity in self.local.mounts():
            os.kill(identity.pid, signal.SIGKILL)

    def close(self) -> None:
        """End everything that belongs to this cluster, without a question."""
        self.abort_mounts()
        for mount in mounts_now():
            if mount.metad == self.address:
                subprocess.run(["fusermount3", "-uz", str(mount.point)], check=True)
        for daemon in self.local.daemons:
            if identity := daemon.running():
                os.kill(identity.pid, signal.SIGCONT)
                stop(identity, grace_s=10.0)
        for child in self._children.values():
            child.kill()
            child.wait()
        self._children.clear()
        dead_sessions(default_directory(), self.address)  # removes the files of killed mounts

    # -- asking

    def status(self) -> ClusterStatus:
        """What `dfs status` shows."""
        reply: ClusterStatus = ask(self.address, "cluster.status", Empty())
        return reply

    def server(self, name: str) -> ServerStatus:
        """What metad knows of one chunkd."""
        port = self.daemon(name).port
        return next(
            server for server in self.status().servers if server.address.endswith(f":{port}")
        )

    def info(self, path: Path) -> InfoReply:
        """Where the bytes of a file on the mount are."""
        reply: InfoReply = ask(self.address, "cluster.info", InfoRequest(inode=path.stat().st_ino))
        return reply

    def orphans(self) -> int:
        """Files without a name that are still kept for somebody who has them open."""
        report: FsckReport = ask(self.address, "cluster.fsck", FsckRequest())
        return report.orphans

    def healthy(self) -> bool:
        """All servers up, every chunk with its full number of replicas."""
        try:
            status = self.status()
        except Unavailable:
            return False
        return (
            len(status.servers) == NODES
            and all(server.state == "up" for server in status.servers)
            and status.chunks.under_replicated == 0
        )

    def wait_healthy(self, timeout_s: float = HEAL_S) -> float:
        """Wait for `healthy`; how long it took, in seconds."""
        started = time.monotonic()
        wait_for(self.healthy, "full redundancy again", timeout_s)
        return time.monotonic() - started

    def log_text(self, name: str) -> str:
        """All that a daemon or mount has logged."""
        return (self.directory / "log" / f"{name}.log").read_text("utf-8", "replace")

    # -- judging

    def check_fsck(self) -> None:
        """`dfs fsck` has no findings."""
        status, output = run_dfs("fsck", "--json", "--url", self.address)
        assert status == 0, output

    def check_files(self, digests: dict[str, str]) -> None:
        """Every file, by its path below the mount, has the content that was acknowledged."""
        for name, digest in digests.items():
            assert sha256_of(self.mount_point / name) == digest, f"{name} has wrong bytes"

    def wait_sound(self, *paths: Path, timeout_s: float = HEAL_S) -> None:
        """Wait until every chunk of these files has its replicas, and they are what metad says.

        The disks themselves are looked at, and nothing is changed by that.
        """
        deadline = time.monotonic() + timeout_s
        for path in paths:
            while True:
                try:
                    for chunk in self.info(path).chunks:
                        self.check_chunk(chunk)
                    break
                except (AssertionError, CorruptChunk, FileNotFoundError):
                    if time.monotonic() > deadline:
                        raise
                time.sleep(POLL_S)

    def check_chunk(self, chunk: ChunkInfo) -> None:
        """Raises AssertionError, CorruptChunk or FileNotFoundError.  Changes nothing."""
        good = [each for each in chunk.replicas if each.state == "good"]
        assert len(good) >= REPLICAS, f"too few replicas: {chunk}"
        for replica in good:
            data = Layout(self._root_of(replica.address)).file(chunk.chunk).read_bytes()
            index = parse_tail(chunk.chunk, len(data), data[-TAIL_MAX_BYTES:])
            check_blocks(chunk.chunk, data[: index.length], index.checksums)

    def _root_of(self, address: str) -> Path:
        port = int(address.rpartition(":")[2])
        return next(self.data(each.name) for each in self.local.chunkds if each.port == port)

    def check_logs(self) -> None:
        """Bad weather makes warnings, but never a traceback.  Each line is looked at once."""
        for log in (self.directory / "log").glob("*.log"):
            with log.open("rb") as file:
                file.seek(self._logs_read.get(log, 0))
                text = file.read().decode("utf-8", "replace")
                self._logs_read[log] = file.tell()
            assert "Traceback" not in text, f"{log.name}:\n{text[text.index('Traceback') :][:4000]}"


class Worker:
    """A program that uses the mount (workload.py), with its record of what was acknowledged."""

    def __init__(self, what: str, directory: Path, record: Path, *words: str) -> None:
        self.record = record
        record.touch()
        command = [sys.executable, "-m", "tests.t5_process.workload", what]
        self.process = subprocess.Popen(
            [*command, str(directory), str(record), *words],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def entries(self) -> list[dict[str, Any]]:
        """What it has recorded so far, oldest first."""
        lines = self.record.read_text().split("\n")
        return [json.loads(line) for line in lines[:-1]]  # the last one may be half-written

    def wait_progress(self, more: int, timeout_s: float = HEAL_S) -> None:
        """Wait until it has recorded `more` entries than now."""
        wanted = len(self.entries()) + more
        wait_for(
            lambda: len(self.entries()) >= wanted or self.process.poll() is not None,
            f"{more} more operations",
            timeout_s,
        )
        assert self.process.poll() is None, f"ended early: {self._errors()}"

    def finish(self, timeout_s: float = HEAL_S) -> list[dict[str, Any]]:
        """Tell it to stop and check that it met no error; all that it recorded."""
        assert self.end(timeout_s) == 0, self._errors()
        return self.entries()

    def end(self, timeout_s: float = HEAL_S) -> int:
        """Tell it to stop; its exit status."""
        if self.process.stdin:
            with contextlib.suppress(BrokenPipeError):
                self.process.stdin.close()
        return self.process.wait(timeout_s)

    def _errors(self) -> str:
        return self.process.stderr.read() if self.process.stderr else ""

    def close(self) -> None:
        """End it in any case."""
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stderr):
            if stream:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()
