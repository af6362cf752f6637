"""One chunkd as metad knows it: who it is, where, with which disks, and when it was heard.

Made of what it says when it registers, and refreshed by its heartbeats.  servers.py keeps all of
them; whether it is up is told there.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from dfswire.hosts import DiskFigures, HostFigures, Register

State = Literal["up", "suspect", "down"]


@dataclass
class Server:
    """One chunkd.  `disks` are those of its last registration or heartbeat."""

    server_id: str
    incarnation: int
    address: str
    software: str = ""
    zone: str = ""
    rack: str = ""
    labels: list[str] = field(default_factory=list)
    host: HostFigures = field(default_factory=HostFigures)
    disks: dict[str, DiskFigures] = field(default_factory=dict)
    last_heartbeat_s: float = 0.0  # or when metad started, for a server not heard since
    heard: bool = False  # since metad started
    process: str = ""  # what its present start is known by
    up_since_s: float = 0.0  # its process has not been silent for long since then

    @classmethod
    def registered(cls, message: Register, now: float, *, heard: bool) -> Server:
        """A server as it introduced itself, now or (`heard` False) to an earlier metad."""
        return cls(
            server_id=message.server_id,
            incarnation=message.incarnation,
            address=message.address,
            software=message.software,
            zone=message.zone,
            rack=message.rack,
            labels=message.labels,
            host=message.host,
            disks={each.disk: each for each in message.disks},
            last_heartbeat_s=now,
            process=message.process,
            heard=heard,
            up_since_s=now,
        )
