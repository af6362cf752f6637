"""A cluster whose every host and every disk can fail: see network.py and disks.py.

metad, three chunkds and mounts, each in a network namespace of its own, each daemon's data on a
small file system of its own (one of them xfs).  Otherwise it is the cluster of t5_process, with the
same ways to start, kill, ask and judge.  `power_cut` is what happens to hosts without electricity.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pytest

from dfsmount.cli.launch import Launch
from dfsmount.cli.localcluster import HOST, Daemon, LocalCluster, Settings
from dfsmount.cli.mounts import mount_at
from dfsmount.cli.processes import Identity, handle_of, recall, wait_end
from tests.t5_faults.disks import MIB, Disk
from tests.t5_faults.network import Network
from tests.t5_faults.nursery import Nursery
from tests.t5_process.harness import CHUNKD_TIMERS, METAD_TIMERS, READY_S, Cluster, chosen_settings
from tests.t5_process.observed import REPLICAS

NIGHTLY = os.environ.get("DFS_TEST_SIZE") == "nightly"
METAD_PORT = 9400
CHUNK_BYTES = MIB
DISK_BYTES = 480 * MIB  # the programs write 100 MiB a minute, and a slow machine needs many
METAD_DISK_BYTES = 64 * MIB
KINDS = ["ext4", "ext4", "xfs"]

T = TypeVar("T")
Changes = dict[str, float]

METAD: Changes = {**METAD_TIMERS, "repair_after_s": 3.0, "chunk_size_bytes": CHUNK_BYTES}
# Scrub and inventories come round while a test waits for them.
CHUNKD: Changes = {
    **CHUNKD_TIMERS,
    "inventory_interval_s": 3.0,
    "unknown_min_age_s": 2.0,
    "scrub_period_s": 5.0,
    "scrub_min_bytes_per_s": 64 * MIB,
}
# A client that is silent is given up soon.
SHORT_LEASES: Changes = {"renew_s": 0.5, "sign_of_life_s": 0.5, "lease_s": 3.0, "fence_s": 5.0}


long_run = pytest.mark.skipif(not NIGHTLY, reason="only with DFS_TEST_SIZE=nightly")


def nightly(*values: T) -> list[T]:
    """Parameters of a test that only the long run has."""
    return list(values) if NIGHTLY else []


@dataclass(frozen=True)
class Placed(Daemon):
    """A daemon on a host of its own: `inside` is what its command begins with."""

    inside: tuple[str, ...] = ()

    @property
    def command(self) -> list[str]:
        return [*self.inside, *super().command]


class PlacedCluster(LocalCluster):
    """The same files as `dfs up` makes, but daemons on other hosts and data on disks.

    Without a network all of them are on this host, but may believe that they are on others
    (`hostnames`).
    """

    def __init__(
        self,
        directory: Path,
        network: Network | None,
        chunkds: Sequence[str],
        hostnames: Mapping[str, str],
    ) -> None:
        settings = chosen_settings(len(chunkds))
        if network is not None:
            ports = [METAD_PORT + number for number, _ in enumerate(chunkds, start=1)]
            settings = Settings(replicas=REPLICAS, metad_port=METAD_PORT, chunkd_ports=ports)
        super().__init__(directory, settings)
        self._network = network
        self._hostnames = hostnames

    def host(self, name: str) -> str:
        """The address of a daemon's host."""
        return HOST if self._network is None else self._network.address(name)

    @property
    def metad_address(self) -> str:
        return f"{self.host('metad')}:{self.settings.metad_port}"

    def _daemon(self, name: str, module: str, port: int) -> Daemon:
        return Placed(
            name=name,
            module=module,
            port=port,
            config=self.directory / name / f"{module}.toml",
            log=self.directory / "log" / f"{name}.log",
            pid_file=self.directory / "run" / f"{name}.pid",
            inside=tuple(self._inside(name)),
        )

    def _inside(self, name: str) -> list[str]:
        words = [] if self._network is None else self._network.inside(name)
        if hostname := self._hostnames.get(name):
            words += ["unshare", "--uts", "sh", "-c", 'hostname "$0" && exec "$@"', hostname]
        return words

    def data(self, name: str) -> Path:
        """Where a daemon's disk is mounted."""
        return self.directory / name / "data"

    def write_configs(self, metad: Changes, chunkd: Changes) -> None:
        """Directories and configurations."""
        for place in ("run", "log", *(daemon.name for daemon in self.daemons)):
            (self.directory / place).mkdir(parents=True, exist_ok=True)
        self.configure(
            self.metad,
            url=f"sqlite:///{self.data('metad')}/metad.db",
            listen=self.metad_address,
            plaintext=True,  # in a network of its own
            replicas=REPLICAS,
            **metad,
        )
        for daemon in self.chunkds:
            self.configure(
                daemon,
                metad=self.metad_address,
                listen=f"{self.host(daemon.name)}:{daemon.port}",
                plaintext=True,
                data=[str(self.data(daemon.name))],
                **chunkd,
            )

    def configure(self, daemon: Daemon, **settings: object) -> None:
        """Write a configuration."""
        lines = [f"{name} = {json.dumps(value)}\n" for name, value in settings.items()]
        daemon.config.write_text("".join(lines))


class FaultyCluster(Cluster):
    """The cluster.  `network` and `disks` (by the name of their daemon) are there to be broken.

    Not `isolated`: all on this host.  There is a chunkd for each of `kinds`, which are file
    systems, mounted with `disk_options`; `disk_bytes` 0: no disks but plain directories.
    `hostnames`: what a daemon's host is called, where that is not this host's name.
    """

    def __init__(
        self,
        directory: Path,
        *,
        mounts: Sequence[str] = ("mnt",),
        metad: Changes | None = None,
        chunkd: Changes | None = None,
        isolated: bool = True,
        hostnames: Mapping[str, str] | None = None,
        nursery: Nursery | None = None,
        kinds: Sequence[str] = KINDS,
        disk_bytes: int = DISK_BYTES,
        metad_disk_bytes: int = METAD_DISK_BYTES,
        disk_options: str = "loop",
    ) -> None:
        chunkds = [f"chunkd{number}" for number, _ in enumerate(kinds, start=1)]
        self._network = Network(["metad", *chunkds, *mounts]) if isolated else None
        self._nursery = nursery
        self.disks: dict[str, Disk] = {}
        try:
            placed = PlacedCluster(directory, self._network, chunkds, hostnames or {})
            super().__init__(directory, placed)
            placed.write_configs({**METAD, **(metad or {})}, {**CHUNKD, **(chunkd or {})})
            if disk_bytes:
                self.disks["metad"] = Disk(placed.data("metad"), metad_disk_bytes)
                for name, kind in zip(chunkds, kinds, strict=True):
                    self.disks[name] = Disk(placed.data(name), disk_bytes, kind, disk_options)
            else:
                for daemon in self.local.daemons:
                    placed.data(daemon.name).mkdir()
        except BaseException:
            self._remove_hosts()
            raise

    @property
    def network(self) -> Network:
        assert self._network is not None, "this cluster has no hosts of its own"
        return self._network

    def write_files(self) -> None:
        """Done by the constructor."""

    def mount_command(self, point: Path, options: str) -> list[str]:
        inside = [] if self._network is None else self._network.inside(point.name)
        return [*inside, *super().mount_command(point, options)]

    def launch(self, command: list[str], log: Path) -> Launch:
        return Launch(command, log) if self._nursery is None else self._nursery.launch(command, log)

    def restore(self) -> None:
        """Everything is in its place again and runs."""
        if self._network is not None:
            self._network.heal()
        for disk in self.disks.values():
            if not disk.mounted:
                disk.mount()
        super().restore()

    # -- power

    def power_cut(self, *names: str) -> None:
        """These hosts lose power, all at one moment; a mount ("mnt") has no disk to lose.

        Afterwards nothing of them runs, and the disks are mounted as a boot would.
        """
        self.lose_power(*names)
        self.boot_disks(*(name for name in names if name in self.disks))

    def lose_power(self, *names: str) -> None:
        """The first half: processes end, disks forget.

        In this order.  An fsync that is under way when ext4 is shut down may return 0 though its
        data is lost (Linux 6.18: 25 of 900 appends to plain ext4); a killed process tells nobody.
        """
        found = [self.identity(name) for name in names]
        identities = [identity for identity in found if identity is not None]
        for identity in identities:
            os.kill(identity.pid, signal.SIGKILL)
        for name in names:
            if name in self.disks:
                self.disks[name].cut()
        if self.mount_point.name in names:
            # A killed mount may wait, unkillable, for a page that itself should read; a host
            # without power does not.
            subprocess.run(["umount", "-f", str(self.mount_point)], capture_output=True)
            if mount_at(self.mount_point):
                self.clear_dead_mount()
        for identity in identities:
            with handle_of(identity) as handle:
                assert handle is None or wait_end(handle, READY_S), "survives SIGKILL"
            self._reap(identity.pid)

    def identity(self, name: str) -> Identity | None:
        """The process of a daemon or of the mount, if it runs."""
        if name == self.mount_point.name:
            return recall(self.local.mount_pid_file(self.mount_point))
        return self.daemon(name).running()

    def boot_disks(self, *names: str) -> None:
        """The second half: file systems recover."""
        with ThreadPoolExecutor(len(names) or 1) as pool:
            list(pool.map(lambda name: self.disks[name].return_after_cut(), names))

    # -- the end

    def close(self, *, keep_disks: bool = False) -> None:
        """End everything.  `keep_disks`: the images stay, for whoever looks for a mistake."""
        try:
            if self._network is not None:
                self._network.heal()
            super().close()
        finally:
            self._remove_hosts(keep_disks=keep_disks)

    def _remove_hosts(self, *, keep_disks: bool = False) -> None:
        with contextlib.ExitStack() as cleanup:
            if self._network is not None:
                cleanup.callback(self._network.close)
            for disk in self.disks.values():
                cleanup.callback(disk.close, keep=keep_disks)
