"""What the parts of a running metad share: the database, what is only in memory, and the clocks.

service.py makes one State; the handlers in clients, mutations, reads, reports and status take it.
Nothing here decides anything.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from dfswire.metrics import Metrics
from dfswire.operations import BATCH_MAX_OPERATIONS
from metad.config import MetadConfig
from metad.copies.policies import Policies, Policy
from metad.hosts.servers import Servers
from metad.hosts.traffic import TrafficMeter
from metad.journal.followers import Followers
from metad.leases.table import Leases
from metad.names.orphans import Orphans
from metad.observe.eventlog import EventLog
from metad.sessions.events import EventStreams
from metad.storage.database import Database


class FileClock:
    """The time of day for files, made to grow: clients take the larger ctime for the newer one.

    Every answer is later than the one before by at least the operations of a batch, each of which
    has its own nanosecond, whatever the system's clock does meanwhile.  `after_ns` is the last time
    that an earlier metad has used.
    """

    def __init__(self, now_ns: Callable[[], int], after_ns: int = 0) -> None:
        self._now_ns = now_ns
        self._last_ns = after_ns

    def __call__(self) -> int:
        self._last_ns = max(self._now_ns(), self._last_ns + BATCH_MAX_OPERATIONS)
        return self._last_ns


@dataclass(frozen=True)
class State:
    """Three clocks: `clock` gives monotonic seconds (leases, timeouts), `now_ns` the time of files
    and grants, which only grows, `wall_ns` the time of day (grace periods).  After the system's
    clock was set back `now_ns` runs ahead of `wall_ns` for a while: graces are longer then, not
    shorter.
    """

    db: Database
    config: MetadConfig
    policies: Policies
    cluster_id: str
    software: str
    clock: Callable[[], float]
    now_ns: Callable[[], int]
    wall_ns: Callable[[], int]
    rng: random.Random  # ids too: the system's source unless a simulation wants to repeat itself
    leases: Leases
    orphans: Orphans
    streams: EventStreams
    servers: Servers
    event_log: EventLog
    followers: Followers
    metrics: Metrics
    traffic: TrafficMeter

    @property
    def policy(self) -> Policy:
        """The cluster's default."""
        return self.policies.default
