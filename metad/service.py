"""metad as a service: each remote call of the table, and the function that answers it.

`create_service` puts the parts together on an open database; `handlers` go into a Dispatcher, and
`run` does what happens without being asked: sessions expire, chunks are repaired, garbage goes.
Everything runs in one trio process, under a MockClock in simulations.
"""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

import trio

from dfswire.dispatch import BodySource, Handler, Reply
from dfswire.hosts import Hello
from dfswire.journal import SnapshotRequest
from dfswire.messages import PROTOCOL_VERSION, Empty
from metad.admission.calls import Admission
from metad.clients.executions import Executions
from metad.clients.leasecalls import LeaseCalls
from metad.clients.locking import Locking
from metad.clients.mutations import Mutations
from metad.clients.reads import Reads
from metad.clients.recalls import Recalls
from metad.clients.sessioncalls import Clients
from metad.config import MetadConfig
from metad.copies.verified import Verified
from metad.jobs.runner import Jobs
from metad.metrics import MetadMetrics
from metad.operators.clustercalls import ClusterCalls
from metad.operators.drains import Drains
from metad.operators.fsckcalls import FsckCalls
from metad.operators.journalcalls import JournalCalls
from metad.operators.moving import Moving
from metad.operators.policycalls import PolicyCalls
from metad.operators.totals import Totals
from metad.recovery.snapshots import Snapshots
from metad.state import State, load_state
from metad.storage.database import Database
from metad.storage.verification import check_large, verify_forever
from metad.upkeep.compactor import Compactor
from metad.upkeep.deepcheck import DeepCheck
from metad.upkeep.inventories import Inventories
from metad.upkeep.reclaim import Reclaimer, ReclaimLimits
from metad.upkeep.repair import Repairer
from metad.upkeep.reports import Reports
from metad.upkeep.salvage import Salvager
from metad.upkeep.serverevents import ServerEvents
from metad.upkeep.transfers import RepairLimits
from metad.upkeep.trim import Trimmer

if TYPE_CHECKING:  # the library behind it is not for those without TLS
    from metad.admission.signer import Signer


class Service:
    """A running metad.  Made by create_service."""

    def __init__(self, state: State, signer: Signer | None = None) -> None:
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
        limits = RepairLimits(
            repair_after_s=config.repair_after_s,
            transfers_per_disk=config.transfers_per_disk,
            whole_bytes=config.chunk_size_bytes,
            bytes_per_s=config.repair_bytes_per_s,
            disk_bytes_per_s=config.repair_disk_bytes_per_s,
            reserve_share=config.repair_reserve_percent / 100,
        )
        self.repairer = Repairer(
            state.db,
            state.servers,
            limits,
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
            limits,
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
            limits,
        )
        self.policy_calls = PolicyCalls(state, self.jobs, self.moving)
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
        self.reports.on_registered.append(self.reads.figures.came)
        executions = Executions(
            state, self.clients, recalls, self.reclaimer.purge_soon, self.reports.stored
        )
        self.mutations = Mutations(state, self.clients, recalls, executions)
        self.compactor = Compactor(state, self.jobs, self.mutations.rewrite, self.reports.stored)
        self.reports.on_result.append(self.compactor.book)
        self.reports.on_result.append(self.salvager.ended)
        self.deep_check = DeepCheck(state, self.jobs, self.inventories.want)
        self.reports.on_result.append(self.deep_check.book)
        self.cluster = ClusterCalls(
            state,
            self.clients,
            self.locking,
            self.totals,
            self.repairer,
            self.salvager,
            self.moving,
            self.policy_calls,
            self.drains,
            self.jobs,
        )
        self.leases = LeaseCalls(state, self.clients, recalls)
        self.admission = Admission(state, signer)

    @property
    def handlers(self) -> Mapping[str, Handler]:
        """The handler of every call of service "metad"."""
        clients, reads, reports, cluster = self.clients, self.reads, self.reports, self.cluster
        safely, telling = self.journal.once_safe, clients.telling
        only_itself, admission = self.state.owners.only_itself, self.admission
        calls: dict[str, Callable[[Any], Awaitable[Any]]] = {
            "metad.hello": self._hello,
            "session.open": clients.open,
            "session.renew": clients.renew_call,
            "session.close": clients.close,
            "session.events": clients.follow,
            "session.ack": clients.acknowledge,
            "lease.take": telling(safely(self.leases.take)),
            "lease.give_back": self.leases.give_back,
            "meta.batch": telling(self.mutations.execute),
            "meta.lookup": telling(safely(reads.lookup)),
            "meta.getattr": telling(safely(reads.getattr_)),
            "meta.readlink": telling(safely(reads.readlink)),
            "meta.xattrs": telling(safely(reads.xattrs)),
            "meta.readdir": telling(safely(reads.readdir)),
            "meta.layout": telling(safely(reads.layout)),
            "meta.seek": telling(safely(reads.seek)),
            "meta.statfs": reads.statfs,
            "meta.grant": reads.grant,
            "meta.bad_replica": reports.bad_replica,
            "lock.set": telling(self.locking.set),
            "lock.cancel": telling(self.locking.cancel),
            "lock.get": telling(self.locking.get),
            "server.register": reports.register,
            "server.heartbeat": only_itself(reports.heartbeat),
            "server.inventory": only_itself(self.inventories.inventory),
            "server.changes": only_itself(self.inventories.changes),
            "server.settled": only_itself(self.salvager.settled),
            "journal.follow": only_itself(self.journal.follow),
            "journal.ack": only_itself(self.journal.acknowledge),
            "journal.status": self.journal.status,
            "journal.release": self.journal.release,
            "cluster.status": cluster.status,
            "cluster.info": safely(cluster.info),
            "cluster.fsck": self.checks.fsck,
            "cluster.lost": cluster.lost,
            "cluster.files": cluster.files,
            "cluster.urge": cluster.urge,
            "cluster.events": self.state.event_log.answer,
            "admin.drain": self.drains.drain,
            "admin.enable": self.drains.enable,
            "admin.remove": self.drains.remove,
            "cluster.rebalance_plan": self.moving.plan,
            "policy.show": self.policy_calls.show,
            "policy.set": self.policy_calls.set,
            "policy.clear": self.policy_calls.clear,
            "admission.invite": admission.invite,
            "admission.join": admission.join,
            "admission.renew": admission.renew,
            "admission.revoke": admission.revoke,
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
        with contextlib.closing(self.snapshots):
            await self._run_all(task_status)

    async def _run_all(self, task_status: trio.TaskStatus[None]) -> None:
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
            nursery.start_soon(check_large, self.state.db)
            nursery.start_soon(verify_forever, self.state.db)
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


def create_service(
    db: Database,
    config: MetadConfig,
    *,
    clock: Callable[[], float] = trio.current_time,
    now_ns: Callable[[], int] = time.time_ns,
    rng: random.Random | None = None,
    signer: Signer | None = None,
) -> Service:
    """A service on an open database, with what it remembers of sessions, orphans and servers.

    Inside trio, as `clock` is asked at once.  `rng` gives ids too: leave it out unless a simulation
    must repeat itself.  `signer`: for certificates; without one nobody is invited or renewed.
    """
    return Service(load_state(db, config, clock=clock, now_ns=now_ns, rng=rng), signer)


def _without_body(answer: Callable[[Any], Awaitable[Any]]) -> Handler:
    """No call of metad has a raw body; its handlers take the message alone."""

    async def handler(request: Any, body: BodySource) -> Any:
        return await answer(request)

    return handler
