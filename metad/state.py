"""What the parts of a running metad share: the database, what is only in memory, and the clocks.

A Service has one State, made by `load_state` of what the database remembers; the classes of all
packages above take it.  Nothing here decides anything.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from dfswire.batches import BATCH_MAX_OPERATIONS
from dfswire.daemon import software_version
from dfswire.metrics import Metrics
from metad.config import MetadConfig
from metad.copies import policies
from metad.copies.policies import Policies, Policy
from metad.hosts import machines
from metad.hosts.orders import OrderQueue
from metad.hosts.owners import Owners
from metad.hosts.server import Server
from metad.hosts.servers import Servers
from metad.hosts.tokenkeys import TokenKeys
from metad.hosts.traffic import TrafficMeter
from metad.journal.followers import Followers
from metad.leases.table import Leases
from metad.names import rows
from metad.names.orphans import Orphans
from metad.observe.eventlog import EventLog
from metad.sessions.events import EventStreams
from metad.storage.database import Database, setting

INSTANCE_BYTES = 8
ORDER_ID_BITS = 48  # random start: a result meant for an order of an earlier metad fits no other


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
    instance: str  # names this start of metad
    software: str
    clock: Callable[[], float]
    now_ns: Callable[[], int]
    wall_ns: Callable[[], int]
    rng: random.Random  # ids too: the system's source unless a simulation wants to repeat itself
    leases: Leases
    orphans: Orphans
    streams: EventStreams
    servers: Servers
    owners: Owners
    tokens: TokenKeys
    event_log: EventLog
    followers: Followers
    metrics: Metrics
    traffic: TrafficMeter

    @property
    def policy(self) -> Policy:
        """The cluster's default."""
        return self.policies.default


def load_state(
    db: Database,
    config: MetadConfig,
    *,
    clock: Callable[[], float],
    now_ns: Callable[[], int],
    rng: random.Random | None = None,
) -> State:
    """The state of a metad that starts on an open database; see service.create_service."""
    rng = rng if rng is not None else random.SystemRandom()
    cluster_id = setting(db, "cluster_id")
    orders = OrderQueue(rng.getrandbits(ORDER_ID_BITS), config.order_timeout_s)
    servers = Servers(cluster_id, orders, suspect_s=config.suspect_s, down_s=config.down_s)
    for registration in machines.load_servers(db):
        servers.load(registration, clock())
    servers.administer(*machines.load_admin(db))
    event_log = EventLog(db, clock=clock, wall_ns=now_ns)
    followers = db.followers = Followers(
        db.new_term(),
        cluster_id,
        copies=config.journal_copies,
        wait_s=config.journal_wait_s,
        sign_of_life_s=config.sign_of_life_s,
        clock=clock,
        tell=event_log.add,
        first_stream=rng.getrandbits(ORDER_ID_BITS),
        expected=any(True for _server in servers),
    )
    file_clock = FileClock(now_ns, rows.last_ctime_ns(db))
    # Numbers of leases begin with the time, so they are larger than those of an earlier metad.
    leases = Leases(config.fence_s, config.held_inodes_max, file_clock())
    state = State(
        db=db,
        config=config,
        policies=policies.settle(db, Policy(config.replicas, config.chunk_size_bytes)),
        cluster_id=cluster_id,
        instance=rng.randbytes(INSTANCE_BYTES).hex(),
        software=software_version(),
        clock=clock,
        now_ns=file_clock,
        wall_ns=now_ns,
        rng=rng,
        leases=leases,
        orphans=Orphans(leases),
        streams=EventStreams(config.sign_of_life_s),
        servers=servers,
        owners=Owners(db),
        tokens=TokenKeys(
            rng,
            int(setting(db, "epoch")),
            on=config.uses_tokens,
            clock=clock,
            wall_ns=now_ns,
            server_of=lambda disk: _id_of(servers.server_of(disk)),
        ),
        event_log=event_log,
        followers=followers,
        metrics=Metrics("metad"),
        traffic=TrafficMeter(),
    )
    state.event_log.add("metad.started", cluster_id, f"metad {state.software} started")
    return state


def _id_of(server: Server | None) -> str:
    return "" if server is None else server.server_id
