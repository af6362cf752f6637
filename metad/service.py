"""metad as a service: each remote call of the table, and the function that answers it.

`create_service` puts the parts together on an open database; `handlers` go into a Dispatcher, and
`run` does what happens without being asked: sessions expire, chunks are repaired, garbage goes.
Everything runs in one trio process, under a MockClock in simulations.
"""

from __future__ import annotations

import random
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec
import trio

from dfswire.daemon import software_version
from dfswire.dispatch import BodySource, Handler, Reply
from dfswire.hosts import Hello
from dfswire.info import InfoReply, InfoRequest
from dfswire.journal import SnapshotRequest
from dfswire.messages import PROTOCOL_VERSION, Empty
from dfswire.metrics import Metrics
from dfswire.status import ClusterStatus
from dfswire.verify import FilesBelow, FilesReply, FindLost, LostReply, Urge
from metad.clients.leasecalls import LeaseCalls
from metad.clients.locking import Locking
from metad.clients.mutations import Mutations
from metad.clients.reads import Reads
from metad.clients.recalls import Recalls
from metad.clients.sessioncalls import Clients
from metad.config import MetadConfig
from metad.copies import policies
from metad.copies.policies import Policy
from metad.copies.verified import Verified
from metad.hosts import machines
from metad.hosts.orders import OrderQueue
from metad.hosts.servers import Servers
from metad.hosts.traffic import TrafficMeter
from metad.jobs.runner import Jobs
from metad.journal.followers import Followers
from metad.leases.table import Leases
from metad.metrics import MetadMetrics
from metad.names import rows
from metad.names.orphans import Orphans
from metad.observe.eventlog import EventLog
from metad.operators import status
from metad.operators.drains import Drains
from metad.operators.fsckcalls import FsckCalls
from metad.operators.journalcalls import JournalCalls
from metad.operators.moving import Moving
from metad.operators.policycalls import PolicyCalls
from metad.operators.totals import Totals
from metad.recovery.snapshots import Snapshots
from metad.sessions.events import EventStreams
from metad.state import FileClock, State
from metad.storage.database import Database, setting
from metad.upkeep.compactor import Compactor
from metad.upkeep.deepcheck import DeepCheck
from metad.upkeep.inventories import Inventories
from metad.upkeep.reclaim import Reclaimer, ReclaimLimits
from metad.upkeep.repair import Repairer
from metad.upkeep.repairplan import RepairLimits
from metad.upkeep.reports import Reports
from metad.upkeep.salvage import Salvager
from metad.upkeep.serverevents import ServerEvents
from metad.upkeep.trim import Trimmer

ORDER_ID_BITS = 48  # random start: a result meant for an order of an earlier metad fits no other


class Service:
    """A running metad.  Made by create_service."""

    def __init__(self, state: State) -> None:
        config = state.config
        self.state = state
        self.reclaimer = Reclaimer(
            state.db,
            state.servers,
            ReclaimLimits(
                config.reclaim_grace_s,
                config.gone_after_s,
                config.restore_window_s,
                config.reclaim_early_percent / 100,
            ),
            tell=lambda message: state.event_log.add("reclaim.early", state.cluster_id, message),
            interval_s=config.maintenance_s,
            clock=state.clock,
            now_ns=state.wall_ns,
        )
        self.repairer = Repairer(
            state.db,
            state.servers,
            RepairLimits(
                config.repair_after_s,
                config.transfers_per_disk,
                config.repair_bytes_per_s,
                config.repair_disk_bytes_per_s,
                config.repair_reserve_percent / 100,
            ),
            state.policies,
            state.rng,
            tell=state.event_log.add,
            interval_s=config.maintenance_s,
            clock=state.clock,
        )
        self.salvager = Salvager(
            state.db,
            state.servers,
            lambda key: state.policies.of(key).replicas,
            state.rng,
            repair_after_s=config.repair_after_s,
            interval_s=config.maintenance_s,
            clock=state.clock,
        )
        self.server_events = ServerEvents(
            state.servers,
            state.event_log,
            interval_s=config.maintenance_s,
            clock=state.clock,
        )
        verified = Verified()
        self.trimmer = Trimmer(
            state.db,
            state.servers,
            state.policies,
            verified,
            settle_s=config.trim_after_s,
            interval_s=config.maintenance_s,
            clock=state.clock,
        )
        self.totals = Totals(state)
        self.metrics = state.metrics
        self.jobs = Jobs(state.db, state.event_log, clock=state.clock, wall_ns=state.wall_ns)
        self.moving = Moving(
            state,
            self.jobs,
            lambda: self.repairer.status().chunks,
            self.trimmer.give_up,
            self.repairer.throttle,
        )
        self.policy_calls = PolicyCalls(state, self.jobs)
        self.drains = Drains(state, self.jobs, self.repairer.wake)
        recalls = Recalls(state)
        self.checks = FsckCalls(state, recalls)
        self.snapshots = Snapshots(
            state.db,
            state.followers,
            state.cluster_id,
            config,
            clock=state.clock,
            tell=state.event_log.add,
        )
        self.journal = JournalCalls(state, state.followers, self.snapshots)
        self.clients = Clients(state, recalls, self.reclaimer.purge_soon)
        self.inventories = Inventories(state, self.repairer.wake)
        self.reports = Reports(
            state, self.clients, self.repairer, self.reclaimer, verified, self.inventories
        )
        self.clients.restore()
        self.locking = Locking(state, self.clients)
        MetadMetrics(state, self.totals, self.locking.table, self.repairer, self.moving, self.jobs)
        self.reads = Reads(state, self.clients, recalls)
        self.mutations = Mutations(
            state, self.clients, recalls, self.reclaimer.purge_soon, self.reports.stored
        )
        self.compactor = Compactor(state, self.jobs, self.mutations.rewrite, self.reports.stored)
        self.reports.on_result.append(self.compactor.book)
        self.deep_check = DeepCheck(state, self.jobs, self.inventories.want)
        self.reports.on_result.append(self.deep_check.book)
        self.leases = LeaseCalls(state, self.clients, recalls, self.mutations.is_changing)

    @property
    def handlers(self) -> Mapping[str, Handler]:
        """The handler of every call of service "metad"."""
        clients, reads, reports = self.clients, self.reads, self.reports
        safely = self.journal.once_safe
        calls: dict[str, Callable[[Any], Awaitable[Any]]] = {
            "metad.hello": self._hello,
            "session.open": clients.open,
            "session.renew": clients.renew_call,
            "session.close": clients.close,
            "session.events": clients.follow,
            "session.ack": clients.acknowledge,
            "lease.take": safely(self.leases.take),
            "lease.give_back": self.leases.give_back,
            "meta.batch": self.mutations.execute,
            "meta.lookup": safely(reads.lookup),
            "meta.getattr": safely(reads.getattr_),
            "meta.readlink": safely(reads.readlink),
            "meta.xattrs": safely(reads.xattrs),
            "meta.readdir": safely(reads.readdir),
            "meta.layout": safely(reads.layout),
            "meta.seek": safely(reads.seek),
            "meta.statfs": reads.statfs,
            "meta.grant": reads.grant,
            "meta.bad_replica": reports.bad_replica,
            "lock.set": self.locking.set,
            "lock.cancel": self.locking.cancel,
            "lock.get": self.locking.get,
            "server.register": reports.register,
            "server.heartbeat": reports.heartbeat,
            "server.inventory": self.inventories.inventory,
            "server.changes": self.inventories.changes,
            "server.settled": self.salvager.settled,
            "journal.follow": self.journal.follow,
            "journal.ack": self.journal.acknowledge,
            "journal.status": self.journal.status,
            "journal.release": self.journal.release,
            "cluster.status": self._status,
            "cluster.info": safely(self._info),
            "cluster.fsck": self.checks.fsck,
            "cluster.lost": self._lost,
            "cluster.files": self._files,
            "cluster.urge": self._urge,
            "cluster.events": self.state.event_log.answer,
            "admin.drain": self.drains.drain,
            "admin.enable": self.drains.enable,
            "admin.remove": self.drains.remove,
            "cluster.rebalance_plan": self.moving.plan,
            "policy.show": self.policy_calls.show,
            "policy.set": self.policy_calls.set,
            "policy.clear": self.policy_calls.clear,
            "job.list": self.jobs.list,
            "job.start": self.jobs.start,
            "job.stop": self.jobs.stop,
            "job.resume": self.jobs.resume,
        }
        handlers = {name: _without_body(answer) for name, answer in calls.items()}
        return {**handlers, "journal.snapshot": self._snapshot}

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """What happens without being asked; until cancelled.

        Raises (in an exception group) UsageError when the database turns out to be an old copy,
        InputOutput when its disk fails.
        """
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.clients.run_forever)
            nursery.start_soon(self.repairer.run_forever)
            nursery.start_soon(self.trimmer.run_forever)
            nursery.start_soon(self.salvager.run_forever)
            nursery.start_soon(self.reclaimer.run_forever)
            nursery.start_soon(self.server_events.run_forever)
            nursery.start_soon(self.state.event_log.run_forever)
            nursery.start_soon(self.jobs.run_forever)
            nursery.start_soon(self.compactor.run_forever)
            nursery.start_soon(self.policy_calls.run_forever)
            nursery.start_soon(self.snapshots.run_forever)
            nursery.start_soon(self.state.followers.until_broken)
            nursery.start_soon(self.state.db.failure.watch, self.state.config.maintenance_s)
            nursery.start_soon(self.moving.run_forever)
            task_status.started()

    async def stop(self) -> None:
        """What is left to write when metad ends by itself; `run` is cancelled after."""
        self.state.event_log.add("metad.stopped", self.state.cluster_id, "metad was asked to stop")
        await self.state.event_log.finish()

    async def _snapshot(self, request: SnapshotRequest, body: BodySource) -> Reply:
        return await self.snapshots.read(request)

    async def _hello(self, request: Empty) -> Hello:
        return Hello(
            service="metad",
            protocol=PROTOCOL_VERSION,
            software=self.state.software,
            cluster_id=self.state.cluster_id,
        )

    async def _status(self, request: Empty) -> ClusterStatus:
        repair = self.repairer.status()
        found = await status.cluster_status(self.state, self.clients, self.totals, repair)
        return msgspec.structs.replace(
            found,
            unsatisfied=self.policy_calls.unsatisfied(),
            chunks=msgspec.structs.replace(found.chunks, misplaced=self.moving.misplaced),
            jobs=list(self.jobs.running()),
        )

    async def _info(self, request: InfoRequest) -> InfoReply:
        found = status.info(self.state, request)
        return msgspec.structs.replace(found, locks=self.locking.of_inode(found.attr.inode))

    async def _lost(self, request: FindLost) -> LostReply:
        return await status.lost(self.state, request)

    async def _urge(self, request: Urge) -> Empty:
        await trio.lowlevel.checkpoint()
        self.repairer.urge(request.chunks)
        self.salvager.urge(request.chunks)
        return Empty()

    async def _files(self, request: FilesBelow) -> FilesReply:
        return await status.files_below(self.state, request)


def create_service(
    db: Database,
    config: MetadConfig,
    *,
    clock: Callable[[], float] = trio.current_time,
    now_ns: Callable[[], int] = time.time_ns,
    rng: random.Random | None = None,
) -> Service:
    """A service on an open database, with what it remembers of sessions, orphans and servers.

    Inside trio, as `clock` is asked at once.  `rng` gives ids too: leave it out unless a simulation
    must repeat itself.
    """
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
        software=software_version(),
        clock=clock,
        now_ns=file_clock,
        wall_ns=now_ns,
        rng=rng,
        leases=leases,
        orphans=Orphans(leases),
        streams=EventStreams(config.sign_of_life_s),
        servers=servers,
        event_log=event_log,
        followers=followers,
        metrics=Metrics("metad"),
        traffic=TrafficMeter(),
    )
    state.event_log.add("metad.started", cluster_id, f"metad {state.software} started")
    return Service(state)


def _without_body(answer: Callable[[Any], Awaitable[Any]]) -> Handler:
    """No call of metad has a raw body; its handlers take the message alone."""

    async def handler(request: Any, body: BodySource) -> Any:
        return await answer(request)

    return handler
