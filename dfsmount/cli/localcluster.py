"""The cluster that `dfs up` keeps in one directory: its settings, its files and its daemons.

    DIR/cluster.toml            ports, replicas and number of nodes, remembered between starts
    DIR/metad/                  metad.toml, metad.db
    DIR/chunkd1/ chunkd2/ ...   chunkd.toml, data/
    DIR/tls/                    with --tls: the authority, and what each party shows
    DIR/log/                    what each daemon prints
    DIR/run/                    who runs (pid files), and the lock against a second `dfs up`

It promises that ports stay the same as long as nobody else takes them.  Starting and stopping is in
lifecycle.py.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import random
import socket
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from dfsmount.cli.processes import Identity, recall
from dfswire.daemon import load_config
from dfswire.errors import AlreadyRunning, UsageError

DEFAULT_DIRECTORY = Path("dfs-data")
DEMO_DIRECTORY = Path(".demo")
HOST = "127.0.0.1"
# Below the range from which the kernel takes ports for outgoing connections (32768 and up), so that
# a remembered port is not borrowed by some connection while the cluster is down.
PORTS = range(20_000, 32_000)


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What cluster.toml holds."""

    replicas: int
    metad_port: int
    chunkd_ports: list[int]
    tls: bool = False
    cluster_id: str = ""  # known after the first start: what is lost is not replaced by a new one


@dataclass(frozen=True)
class Daemon:
    """One process of the cluster: its name, its module, and the files that belong to it."""

    name: str
    module: str
    port: int
    config: Path
    log: Path
    pid_file: Path

    @property
    def command(self) -> list[str]:
        """How it is started.  -P: the directory where somebody stands is no place for modules."""
        return [sys.executable, "-P", "-m", self.module, "--config", str(self.config)]

    def running(self) -> Identity | None:
        """Its process, when it runs."""
        return recall(self.pid_file)


class LocalCluster:
    """The files of one cluster on this host."""

    def __init__(self, directory: Path, settings: Settings) -> None:
        self.directory = directory.resolve()
        self.settings = settings

    @staticmethod
    def is_at(directory: Path) -> bool:
        """Whether `dfs up` ever kept a cluster there."""
        return (directory / "cluster.toml").is_file()

    @classmethod
    def open(cls, directory: Path) -> LocalCluster:
        """The cluster kept in `directory`.  Raises UsageError when there is none."""
        if not cls.is_at(directory):
            raise UsageError(f"no cluster in {directory}: 'dfs up --dir {directory}' makes one")
        return cls(directory, load_config(Settings, directory / "cluster.toml"))

    @property
    def metad_address(self) -> str:
        return f"{HOST}:{self.settings.metad_port}"

    @property
    def metad(self) -> Daemon:
        return self._daemon("metad", "metad", self.settings.metad_port)

    @property
    def chunkds(self) -> list[Daemon]:
        return [
            self._daemon(f"chunkd{number}", "chunkd", port)
            for number, port in enumerate(self.settings.chunkd_ports, start=1)
        ]

    @property
    def daemons(self) -> list[Daemon]:
        """All of them, in the order of starting."""
        return [self.metad, *self.chunkds]

    def _daemon(self, name: str, module: str, port: int) -> Daemon:
        return Daemon(
            name=name,
            module=module,
            port=port,
            config=self.directory / name / f"{module}.toml",
            log=self.directory / "log" / f"{name}.log",
            pid_file=self.directory / "run" / f"{name}.pid",
        )

    def tls_of(self, party: str) -> str:
        """Where the credentials of "metad", "chunkd1", "client" or "operator" are; empty: without
        TLS."""
        return str(self.directory / "tls" / party) if self.settings.tls else ""

    @property
    def operator_tls(self) -> str:
        """Where the credentials of the `dfs` command are; empty: without TLS."""
        return self.tls_of("operator")

    def mounts(self) -> list[tuple[Path, Identity]]:
        """The mounts that `dfs up` made and that still run: (pid file, who serves it)."""
        files = sorted((self.directory / "run").glob("mount-*.pid"))
        found = [(file, recall(file)) for file in files]
        return [(file, identity) for file, identity in found if identity is not None]

    def mount_pid_file(self, point: Path) -> Path:
        """Where the process that serves a mount on `point` is remembered."""
        name = str(point).strip("/").replace("%", "%25").replace("/", "%2F")
        return self.directory / "run" / f"mount-{name[-200:]}.pid"  # NAME_MAX is 255

    def write_files(self) -> None:
        """Write cluster.toml and the configuration of every daemon, and make the directories."""
        for place in ("run", "log", "metad", *(daemon.name for daemon in self.chunkds)):
            (self.directory / place).mkdir(parents=True, exist_ok=True)
        settings = self.settings
        _write(
            self.metad.config,
            url=f"sqlite:///{self.directory / 'metad' / 'metad.db'}",
            listen=self.metad_address,
            replicas=settings.replicas,
            cluster_id=settings.cluster_id,
            tls=self.tls_of("metad"),
            authority=self.tls_of("authority"),
        )
        for daemon in self.chunkds:
            data = daemon.config.parent / "data"
            data.mkdir(exist_ok=True)
            _write(
                daemon.config,
                metad=self.metad_address,
                listen=f"{HOST}:{daemon.port}",
                data=[str(data)],
                tls=self.tls_of(daemon.name),
            )
        _write(
            self.directory / "cluster.toml",
            replicas=settings.replicas,
            metad_port=settings.metad_port,
            chunkd_ports=settings.chunkd_ports,
            tls=settings.tls,
            cluster_id=settings.cluster_id,
        )

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Keep a second `dfs up` or `dfs down` away.  Raises AlreadyRunning."""
        (self.directory / "run").mkdir(parents=True, exist_ok=True)
        with (self.directory / "run" / "lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as problem:
                raise AlreadyRunning(
                    f"another 'dfs up' or 'dfs down' is at work in {self.directory}"
                ) from problem
            yield


def port_is_free(port: int) -> bool:
    """Whether a daemon could listen there now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the daemons do
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


def choose_ports(count: int, taken: Iterable[int] = ()) -> list[int]:
    """`count` ports on which nobody listens, none of them in `taken`.  Raises UsageError."""
    refused = set(taken)
    chosen: list[int] = []
    for port in random.sample(PORTS, len(PORTS)):
        if len(chosen) == count:
            break
        if port not in refused and port_is_free(port):
            chosen.append(port)
    if len(chosen) < count:
        raise UsageError(f"no {count} free ports from {PORTS.start} to {PORTS.stop}")
    return chosen


def _write(path: Path, **settings: str | int | bool | list[str] | list[int]) -> None:
    # Strings, whole numbers, truth values and lists look the same in JSON and in TOML.
    lines = [
        f"{name} = {json.dumps(value, ensure_ascii=False)}\n" for name, value in settings.items()
    ]
    fresh = path.with_suffix(".new")
    fresh.write_text("# Written by `dfs up`; it will be written again.\n" + "".join(lines))
    fresh.replace(path)
