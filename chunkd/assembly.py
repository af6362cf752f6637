"""A chunkd put together, without its sockets.

`create_service` makes the parts and connects them; `Service` has the handlers for a Dispatcher and
runs the background tasks: heartbeat, orders, inventory, group sync, scrub.  The daemon uses it with
threads; simulations inline, with a store in memory.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence

import trio

from chunkd.config import ChunkdConfig
from chunkd.emptying import Emptier
from chunkd.figures import host_figures
from chunkd.follower import FollowerTask
from chunkd.groupsync import Syncer
from chunkd.guard import Guard
from chunkd.heartbeat import Description, HeartbeatTask
from chunkd.identity import ServerIdentity
from chunkd.inventory import InventorySender
from chunkd.journal import Journal
from chunkd.journalcalls import JournalCalls
from chunkd.metrics import ChunkdMetrics, DiskWatch, look_in_thread
from chunkd.orders import OrderRunner
from chunkd.peers import Peers
from chunkd.scrub import Scrubber
from chunkd.service import ChunkCalls
from chunkd.storage import Runner, Store, Stores, run_in_thread, run_inline
from dfswire.client import Client
from dfswire.daemon import software_version
from dfswire.hosts import HostFigures
from dfswire.metrics import Metrics


class Service:
    """A running chunkd without its sockets."""

    def __init__(
        self,
        calls: ChunkCalls,
        heartbeat: HeartbeatTask,
        orders: OrderRunner,
        inventory: InventorySender,
        syncer: Syncer,
        scrubbers: Sequence[Scrubber],
        metrics: Metrics,
        emptier: Emptier,
        journal_calls: JournalCalls,
        follower: FollowerTask | None,
    ) -> None:
        self.calls = calls
        self.handlers = {**calls.handlers, **journal_calls.handlers}
        self.follower = follower
        self.heartbeat = heartbeat
        self.orders = orders
        self.inventory = inventory
        self.syncer = syncer
        self.scrubbers = list(scrubbers)
        self.metrics = metrics
        self.emptier = emptier

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """The background tasks, until cancelled; started once metad was asked the first time.

        Raises Removed or AlreadyRunning (in an exception group) when metad insists.
        """
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.heartbeat.run_forever)
            if self.follower is not None:
                nursery.start_soon(self.follower.run_forever)
            nursery.start_soon(self.orders.run_forever)
            nursery.start_soon(self.inventory.run_forever)
            nursery.start_soon(self.syncer.run_forever)
            nursery.start_soon(self.emptier.run_forever)
            for scrubber in self.scrubbers:
                nursery.start_soon(scrubber.run_forever)
            await self.heartbeat.tried.wait()
            task_status.started()

    async def stop(self) -> None:
        """Finish the writes under way and make everything durable; `run` is cancelled after."""
        await self.calls.finish_writes()
        await self.syncer.run_once()


def create_service(
    stores: Sequence[Store],
    client: Client,
    config: ChunkdConfig,
    identity: ServerIdentity,
    *,
    address: str = "",
    inline: bool = False,
    run: Runner | None = None,
    host: Callable[[], HostFigures] = host_figures,
    rng: random.Random | None = None,
    watch: DiskWatch | None = None,
    journal: Journal | None = None,
    now_ns: Callable[[], int] = time.time_ns,
    guarded: bool = False,
) -> Service:
    """Put a chunkd together.  `address` is where it really listens; `inline` means no threads.
    Simulations whose disks take time give a `run` of their own.  Without a `journal` this server
    does not follow metad's.  `guarded`: it answers nobody before metad has said who may do what."""
    run = run or (run_inline if inline else run_in_thread)
    disks = Stores(stores)
    peers = Peers()
    guard = Guard(closed=guarded)
    orders = OrderRunner(disks, client, run, config.order_workers, peers)
    inventory = InventorySender(
        disks,
        client,
        run,
        config.metad_address,
        identity,
        interval_s=config.inventory_interval_s,
        changes_s=config.inventory_changes_s,
        unknown_min_age_s=config.unknown_min_age_s,
        unknown_kept_s=config.unknown_kept_s,
    )
    description = Description(
        address=config.advertise or address or config.listen,
        software=software_version(),
        zone=config.zone,
        rack=config.rack,
        labels=config.labels,
    )
    heartbeat = HeartbeatTask(
        identity,
        description,
        disks,
        orders,
        inventory,
        client,
        run,
        config.metad_address,
        peers=peers,
        host_figures=host,
        rng=rng or random.Random(),
        guard=guard,
    )
    scrubbers = [
        Scrubber(
            store,
            run,
            period_s=config.scrub_period_s,
            min_bytes_per_s=config.scrub_min_bytes_per_s,
            busy=lambda: calls.is_busy,
            wall=time.time if run is run_in_thread else _virtual_wall,
        )
        for store in stores
        if config.scrub
    ]
    syncer = Syncer(disks, run, config.sync_interval_s)
    calls = ChunkCalls(disks, client, identity, syncer, run, config.receive_buffers, guard)
    metrics = Metrics("chunkd")
    ChunkdMetrics(metrics, disks, run_inline if inline else look_in_thread, watch, journal)
    emptier = Emptier(
        disks,
        client,
        run,
        config.metad_address,
        identity.server_id,
        identity.incarnation,
        interval_s=config.inventory_interval_s,
        kept_s=config.quarantine_kept_s,
        share=config.quarantine_share,
    )
    follower = None
    if journal is not None:
        follower = FollowerTask(
            journal,
            client,
            config.metad_address,
            identity,
            run,
            rng or random.Random(),
            now_ns=now_ns,
        )
    return Service(
        calls,
        heartbeat,
        orders,
        inventory,
        syncer,
        scrubbers,
        metrics,
        emptier,
        JournalCalls(journal, identity, run),
        follower,
    )


def _virtual_wall() -> float:
    """The time of day of a simulation."""
    return 1_000_000_000 + trio.current_time()
