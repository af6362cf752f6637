"""A cluster of real processes on this host that can be treated badly.

Daemons and mounts are started as `dfs up` starts them (dfsmount/cli does the work), with short
timers, and can be killed, stopped and started again one by one.  `close` leaves no process, no
mount and no session file behind, whatever happened.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

from dfsmount.cli.launch import Launch
from dfsmount.cli.lifecycle import mount_command
from dfsmount.cli.localcluster import LocalCluster, Settings, choose_ports
from dfsmount.cli.mounts import mount_at, mounts_now
from dfsmount.cli.processes import (
    handle_of,
    identity_of,
    read_pid_file,
    recall,
    remember,
    stop,
    wait_end,
)
from dfsmount.runtime import dead_sessions, default_directory
from tests.t5_process.observed import NODES, REPLICAS, Observed

READY_S = 30.0

# Faults are noticed and repaired in seconds.  Leases stay as long as in production: nothing below
# may depend on a lease running out.
METAD_TIMERS: dict[str, float] = {
    "heartbeat_s": 0.25,
    "suspect_s": 1.0,
    "down_s": 2.0,
    "repair_after_s": 5.0,  # time enough to ask for the status a few times
    "maintenance_s": 0.25,
    "order_timeout_s": 10.0,
    "reclaim_grace_s": 5.0,
    "restore_window_s": 0.0,
}
CHUNKD_TIMERS: dict[str, float] = {"sync_interval_s": 1.0}


def chosen_settings(chunkds: int = NODES) -> Settings:
    """So many chunkds, on ports that are free."""
    first, *others = choose_ports(chunkds + 1)
    return Settings(replicas=REPLICAS, metad_port=first, chunkd_ports=others)


class Cluster(Observed):
    """metad, three chunkds and mounts, below one directory."""

    def __init__(self, directory: Path, local: LocalCluster | None = None) -> None:
        super().__init__(local or LocalCluster(directory, chosen_settings()))
        self._children: dict[int, subprocess.Popen[bytes]] = {}

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

    def start(self, *names: str) -> None:
        """Start daemons together; returns when all are ready."""
        with contextlib.ExitStack() as cleanup:
            started = []
            for daemon in map(self.daemon, names):
                launch = cleanup.enter_context(self.launch(daemon.command, daemon.log))
                self._adopt(launch, daemon.pid_file)
                started.append((daemon, launch))
            for daemon, launch in started:
                problem = launch.wait_ready(READY_S)
                assert not problem, f"{daemon.name} did not start: {problem}"

    def launch(self, command: list[str], log: Path) -> Launch:
        """Start one process."""
        return Launch(command, log)

    def _adopt(self, launch: Launch, pid_file: Path, mount_point: str = "") -> None:
        self._children[launch.process.pid] = launch.process
        if identity := launch.identity(mount_point):
            remember(identity, pid_file)

    def mount(self, point: Path | None = None, options: str = "") -> Path:
        """Mount the cluster on `point` (the usual directory if none is given)."""
        point = point or self.mount_point
        point.mkdir(exist_ok=True)
        command = self.mount_command(point, options)
        with self.launch(command, self.directory / "log" / f"{point.name}.log") as launch:
            self._adopt(launch, self.local.mount_pid_file(point), str(point))
            problem = launch.wait_ready(READY_S)
        assert not problem, f"not mounted: {problem}"
        return point

    def mount_command(self, point: Path, options: str) -> list[str]:
        """How a mount is started."""
        return mount_command(self.address, point, options)

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

    def exit_status(self, name: str) -> int:
        """Of a daemon that ends by itself; waits for that."""
        known = read_pid_file(self.daemon(name).pid_file)
        assert known is not None, f"{name} was never started"
        return self._children.pop(known.pid).wait(READY_S)

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
