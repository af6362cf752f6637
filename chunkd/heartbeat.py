"""The line to metad: registration, then a heartbeat every second, orders back in the reply.

metad calls nobody, so everything it must hear goes here: figures, bad and missing replicas, results
of orders.  What was not acknowledged by a successful heartbeat is sent again.  While metad does not
answer, or keeps another cluster (as one that lost its database does), chunkd goes on serving.  Two
answers end the daemon: this server was removed from the cluster, or another process is this server
(fencing of clones and of forgotten processes), at once when that one is known to be alive.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from dataclasses import dataclass

import trio

from chunkd.guard import Guard
from chunkd.identity import ServerIdentity
from chunkd.inventory import InventorySender
from chunkd.orders import OrderRunner
from chunkd.peers import Peers
from chunkd.storage import Runner, Stores
from dfswire.client import Client
from dfswire.errors import (
    AlreadyRunning,
    DFSError,
    Forbidden,
    IdentityTaken,
    Removed,
    WrongCluster,
    WrongVersion,
)
from dfswire.heartbeats import Heartbeat, HeartbeatReply, ReplicaReport
from dfswire.hosts import DiskFigures, HostFigures, Register, Registered

log = logging.getLogger(__name__)

DEADLINE_S = 2.0  # metad suspects a server after 3 s of silence
BACKOFF_MAX_S = 3.0  # metad takes a server for down after 8 s: two attempts before that
REFUSED_MAX_S = 15.0  # a predecessor that was killed stays "up" in metad's eyes for some seconds
ITEMS_MAX = 10_000  # reports or results in one heartbeat; the rest follows with the next


@dataclass(frozen=True)
class Description:
    """What this server says of itself when it registers."""

    address: str
    software: str
    zone: str
    rack: str
    labels: list[str]


class HeartbeatTask:
    """Keeps metad informed; one per server."""

    def __init__(
        self,
        identity: ServerIdentity,
        description: Description,
        stores: Stores,
        orders: OrderRunner,
        inventory: InventorySender,
        client: Client,
        run: Runner,
        metad: str,
        *,
        peers: Peers,
        host_figures: Callable[[], HostFigures],
        rng: random.Random,
        guard: Guard,
    ) -> None:
        self._identity = identity
        self._description = description
        self._stores = stores
        self._orders = orders
        self._inventory = inventory
        self._client = client
        self._run = run
        self._metad = metad
        self._peers = peers
        self._host_figures = host_figures
        self._rng = rng
        self._guard = guard
        self._reports: list[ReplicaReport] = []
        self._interval_s = 1.0
        self._process = f"{rng.getrandbits(64):016x}"
        self._first = True
        self._told = ""  # the code of what was complained of last
        self.registered = False
        self.tried = trio.Event()
        """Set after the first attempt to register, whatever came of it."""

    async def run_forever(self) -> None:
        """Until cancelled.  Raises Removed, and AlreadyRunning when that stays so."""
        failures = 0
        refused_since: float | None = None
        while True:
            try:
                if not self.registered:
                    await self.register()
                await self.beat()
                if failures:
                    log.info("metad at %s answers again", self._metad)
                failures, refused_since, self._told = 0, None, ""
            except (Removed, IdentityTaken):
                raise
            except AlreadyRunning as problem:
                refused_since = refused_since or trio.current_time()
                if trio.current_time() - refused_since > REFUSED_MAX_S:
                    raise
                log.info("metad refuses this server for now: %s", problem)
                # Without back-off: it is news of the predecessor that is waited for.
                await trio.sleep(self._rng.uniform(0.5, 1.5) * self._interval_s)
                continue
            except DFSError as problem:
                failures += 1
                if failures > 1:  # a single lost heartbeat is nothing to report
                    self._complain(problem)
            self.tried.set()
            await trio.sleep(self._pause_s(failures))

    def _complain(self, problem: DFSError) -> None:
        """Once, and again when metad is there but does not want this server, or the reverse."""
        if problem.code != self._told:
            refused = isinstance(problem, WrongVersion | WrongCluster | Forbidden)
            what = "refuses this server" if refused else "does not answer"
            log.warning("metad at %s %s: %s", self._metad, what, problem)
            self._told = problem.code

    async def register(self) -> None:
        """Introduce this server, with its disks.  Raises what metad answers, or Unavailable."""
        registered: Registered = await self._client.call(
            "server.register",
            self._metad,
            Register(
                server_id=self._identity.server_id,
                incarnation=self._identity.incarnation,
                cluster_id=self._identity.cluster_id,
                address=self._description.address,
                software=self._description.software,
                zone=self._description.zone,
                rack=self._description.rack,
                labels=self._description.labels,
                host=self._host_figures(),
                disks=await self._disk_figures(),
                process=self._process,
                first=self._first,
                tokens=True,
            ),
        )
        self._guard.registered(registered.token_key)
        await self._run(lambda: self._identity.adopt(registered.cluster_id, registered.incarnation))
        self._first = False
        self._interval_s = registered.heartbeat_s
        self.registered = True
        self._inventory.request()

    async def beat(self) -> None:
        """One heartbeat; takes the orders of the reply.  Raises what metad answers."""
        self._reports += self._orders.take_reports() + self._inventory.take_reports()
        for store in self._stores:
            self._reports += store.take_reports()
        reports = self._reports[:ITEMS_MAX]
        results = self._orders.results(ITEMS_MAX)
        reply: HeartbeatReply = await self._client.call(
            "server.heartbeat",
            self._metad,
            Heartbeat(
                server_id=self._identity.server_id,
                incarnation=self._identity.incarnation,
                host=self._host_figures(),
                disks=await self._disk_figures(),
                reports=reports,
                results=results,
                process=self._process,
                peers=self._peers.take(),
                token_key=self._guard.newest,
            ),
            deadline_s=DEADLINE_S,
        )
        if reply.register:
            self.registered = False  # metad has used nothing of this heartbeat
            return
        if reply.token_key is not None:
            self._guard.adopt(reply.token_key)
        del self._reports[: len(reports)]
        self._orders.acknowledge(results)
        self._orders.submit(reply.orders)
        self._orders.call_off(reply.called_off)
        if reply.inventory:
            self._inventory.request()

    async def _disk_figures(self) -> list[DiskFigures]:
        return [await self._run(store.figures) for store in self._stores]

    def _pause_s(self, failures: int) -> float:
        if not failures:
            # To register again is urgent; a tenth keeps two confused parties from spinning.
            return self._interval_s if self.registered else self._interval_s / 10
        longest = min(BACKOFF_MAX_S, self._interval_s * 2.0 ** min(failures, 8))
        return self._rng.uniform(self._interval_s / 2, longest)
