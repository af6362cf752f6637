"""Several booted hosts on one network, and the operator's access to them.

`close` leaves no process, mount, network, control group or file behind; `sweep`, called before
anything is made, does that for runs that were killed.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.t5_faults import network
from tests.t5_faults.disks import run
from tests.t5_faults.network import Network
from tests.t7_hosts.baseroot import base_root
from tests.t7_hosts.groups import groups_root, sweep_groups
from tests.t7_hosts.machine import Access, Machine

# Beside each other on a file system that can be under an overlay.
PLACE = Path(tempfile.gettempdir())
OWNED = re.compile(r"dfshost(\d+)-\w+")


class Lab:
    """Hosts by name, each with these directories on disks of its own.  None is switched on yet."""

    def __init__(self, hosts: Mapping[str, Sequence[str]]) -> None:
        sweep()
        base = base_root()
        self.directory = Path(tempfile.mkdtemp(prefix=f"dfshost{os.getpid()}-", dir=PLACE))
        self._group = groups_root() / f"dfshost{os.getpid()}"
        self.machines: dict[str, Machine] = {}
        self.network = Network(list(hosts))
        try:
            key = self.directory / "key"
            run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "operator", "-f", key)
            self.access = Access(key, self.directory / "known_hosts")
            for name, disks in hosts.items():
                self.machines[name] = Machine(
                    name,
                    self.directory / name,
                    base,
                    self._group / name,
                    self.network,
                    self.access,
                    disks,
                )
        except BaseException:
            self.close()
            raise

    def __getitem__(self, name: str) -> Machine:
        return self.machines[name]

    def boot(self, *names: str) -> None:
        """Switch these on, all at once."""
        with ThreadPoolExecutor() as pool:
            list(pool.map(lambda name: self.machines[name].boot(), names))

    def close(self) -> None:
        for machine in self.machines.values():
            machine.close()
        if self._group.exists():
            self._group.rmdir()
        self.network.close()
        shutil.rmtree(self.directory)


def sweep() -> None:
    """End and remove what runs have left that were killed."""
    sweep_groups()
    network.sweep()
    for entry in PLACE.iterdir():
        owner = OWNED.fullmatch(entry.name)
        if owner and not Path(f"/proc/{owner[1]}").exists():
            shutil.rmtree(entry)  # their mounts were in namespaces that are gone with them
