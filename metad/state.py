"""What the parts of a running metad share: the database, what is only in memory, and the clocks.

service.py makes one State; the handlers in clients, mutations, reads, reports and status take it.
Nothing here decides anything.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from metad.config import MetadConfig
from metad.database import Database
from metad.events import EventStreams
from metad.leases import Leases
from metad.servers import Servers


@dataclass(frozen=True)
class State:
    """`clock` gives monotonic seconds (leases, timeouts), `now_ns` the time of day (file times)."""

    db: Database
    config: MetadConfig
    cluster_id: str
    software: str
    clock: Callable[[], float]
    now_ns: Callable[[], int]
    rng: random.Random  # ids too: the system's source unless a simulation wants to repeat itself
    leases: Leases
    streams: EventStreams
    servers: Servers
