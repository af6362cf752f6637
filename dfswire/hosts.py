"""Who answers at an address, and what chunkds tell metad of themselves when they start.

Every daemon says Hello; a chunkd registers with its host and its disks.  metad keeps these records,
and operators are shown them.  Figures come from psutil; sizes are bytes.
"""

from __future__ import annotations

from typing import Literal

from dfswire.messages import Message, Natural

Admin = Literal["enabled", "draining", "drained", "removed"]
"""What an operator wants of a server or disk; copies on one that is not enabled are readable, but
are not counted on."""


class Hello(Message, frozen=True, kw_only=True):
    """Who answers at this address.  Needs no session; the first call to any unknown address."""

    service: str
    protocol: int
    software: str
    cluster_id: str
    server_id: str = ""


class NetworkAddress(Message, frozen=True, kw_only=True):
    """One interface of a host."""

    interface: str
    ip: list[str] = []
    mac: str = ""


class HostFigures(Message, frozen=True, kw_only=True):
    """psutil's view of a host, taken at a heartbeat."""

    hostname: str = ""
    cpu_count: int = 0
    cpu_percent: float = 0.0
    load_1m: float = 0.0
    memory_total_bytes: int = 0
    memory_available_bytes: int = 0
    network_sent_bytes: int = 0  # since boot, as are the next three
    network_received_bytes: int = 0
    disk_read_bytes: int = 0
    disk_written_bytes: int = 0
    addresses: list[NetworkAddress] = []


class DiskFigures(Message, frozen=True, kw_only=True):
    """One data directory: its identity, capacity, contents and traffic since the daemon started.

    `filesystem` is the same for directories that share their capacity; empty when unknown.
    """

    disk: str
    path: str
    total_bytes: Natural
    free_bytes: Natural
    chunks: Natural
    used_bytes: Natural  # by chunks
    read_bytes: Natural = 0
    written_bytes: Natural = 0
    reads: Natural = 0
    writes: Natural = 0
    scrub_fraction: float = 0.0  # how far the present pass is; 0 between passes
    scrub_finished_s: float = 0.0  # when the last one ended, since the epoch; 0: none yet
    quarantined: Natural = 0
    failed: bool = False
    filesystem: str = ""


class TokenKey(Message, frozen=True, kw_only=True):
    """What a server checks tokens with from now on (tokens.py).  `now_s`: metad's time of day."""

    key_id: Natural
    secret: bytes
    epoch: Natural
    now_s: float


class Register(Message, frozen=True, kw_only=True):
    """A chunkd starts (or metad has forgotten it).  `cluster_id` is empty for a fresh server.

    `incarnation` grows with each start of the same server; an older one is refused while a newer
    one is known, and a second process with the same identity is refused while the first is up.
    `process` is drawn at each start: two starts may count up to the same incarnation (copied data
    directories).  `first`: this process was not registered before; only then may its incarnation be
    too small because its disk was set back to an older state.  `tokens`: it can check them.
    """

    server_id: str
    incarnation: int
    address: str
    software: str
    cluster_id: str = ""
    zone: str = ""
    rack: str = ""
    labels: list[str] = []
    host: HostFigures
    disks: list[DiskFigures]
    process: str = ""
    first: bool = False
    tokens: bool = False


class Registered(Message, frozen=True, kw_only=True):
    """`incarnation`: 0, or the one that the server has from now on, as its own was used before.
    `token_key`: without one it is to ask nobody for tokens."""

    cluster_id: str
    heartbeat_s: float
    incarnation: int = 0
    token_key: TokenKey | None = None
