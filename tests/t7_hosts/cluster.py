"""The cluster of these tests: one metad, three storage hosts, one client, and a host to add.

`Deployment` knows how to ask it things: on a host, over SSH, with the dfs command that the
playbooks have installed there.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.t7_hosts import fsxload, load
from tests.t7_hosts.archives import archives, release
from tests.t7_hosts.lab import Lab
from tests.t7_hosts.load import Load
from tests.t7_hosts.playbooks import Playbooks, Variables

METAD = "meta1"
STORES = ("store1", "store2", "store3")
NEW = "store4"
CLIENT = "client1"
MOUNT = "/mnt/dfs"
UNIT = "dfsmount@mnt-dfs.service"
EVERYTHING = f"{MOUNT}/everything"
EVERYTHING_SIZES = (0, 1, 4096, 65_537, 1_000_000, 4_194_304, 20_000_000)
OPERATOR_TLS = "/etc/dfs/operator"
CREDENTIALS = "/var/lib/dfs/tls"
DISKS = ("/srv/dfs/disk1", "/srv/dfs/disk2")
REBUILT = f"{release()}+rebuilt"
WHOLE_S = 180.0
# Repairs begin soon; all else is as in production.
METAD_SETTINGS = {"repair_after_s": 5.0}
PLACES: dict[str, Variables] = {
    "store1": {"dfs_zone": "north", "dfs_rack": "n1", "dfs_labels": ["ssd"]},
    "store2": {"dfs_zone": "north", "dfs_rack": "n2"},
    "store3": {"dfs_zone": "south", "dfs_rack": "s1"},
    "store4": {"dfs_zone": "south", "dfs_rack": "s2"},
}


class Deployment:
    """Booted hosts and the playbooks for them.  Nothing is installed yet."""

    def __init__(self) -> None:
        stores = dict.fromkeys((*STORES, NEW), DISKS)
        self.lab = Lab({METAD: (), **stores, CLIENT: ()})
        self._loads = 0
        try:
            (self.lab.directory / "dist").mkdir()
            archives(self.lab.directory / "dist", release())
            self.playbooks = Playbooks(
                self.lab,
                {
                    "metad": {METAD: {}},
                    "chunkd": {name: PLACES[name] for name in STORES},
                    "dfsmount": {CLIENT: {}},
                },
                {
                    "dfs_archives": str(self.lab.directory / "dist"),
                    "dfs_disks": list(DISKS),
                    "dfs_metad_settings": METAD_SETTINGS,
                    "dfs_networks": [f"{self.lab[METAD].address.rpartition('.')[0]}.0/24"],
                    "dfs_wait_s": 180,
                },
            )
            self.lab.boot(*self.lab.machines)
        except BaseException:
            self.lab.close()
            raise

    def close(self) -> None:
        self.lab.close()

    # -- asking

    def services(self) -> dict[str, str]:
        """Host -> its service, of the present inventory."""
        stores = dict.fromkeys(self.playbooks.groups["chunkd"], "chunkd.service")
        return {METAD: "metad.service", **stores, CLIENT: UNIT}

    def pids(self) -> dict[str, int]:
        return {host: self.lab[host].main_pid(unit) for host, unit in self.services().items()}

    def dfs(self, command: str, *, check: bool = True) -> str:
        """Run the dfs command on metad's host, as the operator there."""
        operator = f"sudo env DFS_TLS={OPERATOR_TLS} dfs"
        return self.lab[METAD].ssh(f"{operator} {command} --url {self.metad}", check=check)

    @property
    def metad(self) -> str:
        return f"{self.lab[METAD].address}:9400"

    def chunkd(self, name: str) -> str:
        return f"{self.lab[name].address}:9500"

    def status(self) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(self.dfs("status --json", check=False) or "{}")
        return answer

    def servers(self) -> list[dict[str, Any]]:
        """Those that were not removed."""
        return [each for each in self.status()["servers"] if each["admin"] != "removed"]

    def chunks_of(self, name: str) -> int:
        """How many copies metad knows on a server."""
        counts = [
            int(each["chunks"]) for each in self.servers() if each["address"] == self.chunkd(name)
        ]
        return sum(counts)

    def wait(self, what: str, holds: Callable[[], bool], within_s: float = WHOLE_S) -> None:
        """Until it holds; asks about once a second."""
        deadline = time.monotonic() + within_s
        while not holds():
            assert time.monotonic() < deadline, f"{what}: not within {within_s:g} s: " + json.dumps(
                self.status().get("health")
            )
            time.sleep(0.5)

    def wait_whole(self) -> None:
        """Until metad says that nothing needs attention."""
        self.wait("health is ok", lambda: self.status().get("health", {}).get("state") == "ok")

    def wait_served(self) -> None:
        """Until metad answers."""
        self.wait("metad answers", lambda: "servers" in self.status())

    def state_of(self, name: str) -> str:
        """up, suspect or down, as metad sees a server."""
        states = [
            str(each["state"]) for each in self.servers() if each["address"] == self.chunkd(name)
        ]
        return states[0]

    def wait_repaired(self) -> None:
        """Until every chunk has all its copies, on whatever servers there are."""

        def repaired() -> bool:
            chunks = self.status()["chunks"]
            return not chunks["under_replicated"] and not chunks["lost"]

        self.wait("all chunks are repaired", repaired)

    def fsck(self) -> None:
        """Metadata and every copy of every chunk are right."""
        assert "no findings" in self.dfs("fsck")
        deep = json.loads(self.dfs("fsck --deep --json"))["deep"]
        assert deep["job"]["state"] == "done"
        assert deep["job"]["figures"]["bad"] == 0
        assert not deep["lost"]["count"]

    def check_everything(self) -> None:
        """What `write_everything` has written is there, from the servers and not from a cache."""
        client = self.lab[CLIENT]
        client.ssh(f"sudo systemctl restart {UNIT}")
        client.ssh(f"cd {EVERYTHING} && sha256sum --check --quiet --strict ~/everything")
        self.fsck()

    # -- doing

    def write_everything(self) -> None:
        """Files that stay to the end, whatever is done to the cluster; their sums are beside it."""
        sizes = " ".join(str(each) for each in EVERYTHING_SIZES)
        self.lab[CLIENT].ssh(
            f"sudo mkdir -m 1777 {EVERYTHING}; cd {EVERYTHING};"
            f" for size in {sizes}; do head -c $size /dev/urandom >$size; done;"
            " sync; sha256sum * >~/everything"
        )

    def load(self) -> Load:
        """Start a program on the client that writes and reads in a directory of its own."""
        self._loads += 1
        directory = f"{MOUNT}/load-{self._loads}"
        client = self.lab[CLIENT]
        client.ssh(f"sudo mkdir -m 1777 {directory}")
        client.ssh("cat > /tmp/load.py", stdin=Path(load.__file__).read_text())
        return Load(client.ssh_command(f"exec python3 /tmp/load.py {directory}"), directory)

    def fsx(self) -> Load:
        """Start fsx there, likewise."""
        self._loads += 1
        directory = f"{MOUNT}/fsx-{self._loads}"
        client = self.lab[CLIENT]
        client.ssh(f"sudo mkdir -m 1777 {directory}; mkdir -p {fsxload.PLACE}/tests/fsx")
        for path, text in fsxload.files().items():
            client.ssh(f"cat > {path}", stdin=text)
        command = f"exec python3 {fsxload.PLACE}/fsxload.py {directory}"
        return Load(client.ssh_command(command), directory)

    def remove(self, name: str) -> None:
        """Drain a storage host and take it out of the cluster and the inventory."""
        if any(each["address"] == self.chunkd(name) for each in self.servers()):
            self.playbooks.play("drain-node.yml", extra={"node": name})
        self.playbooks.play("remove-node.yml", extra={"node": name})
        del self.playbooks.groups["chunkd"][name]
        self.lab[name].ssh(f"sudo find {' '.join(DISKS)} -mindepth 1 -delete")  # as new ones
