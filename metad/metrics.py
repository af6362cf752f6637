"""What metad tells Prometheus about itself and the cluster.

Everything is read from what metad keeps anyway, when somebody scrapes; docs/metrics.md lists it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from dfswire.metrics import Metric, counter, gauge
from metad.clients.room import room
from metad.jobs.runner import Jobs
from metad.locks.table import LockTable
from metad.operators.moving import Moving
from metad.operators.totals import Counted, Totals
from metad.state import State
from metad.upkeep.repair import Repairer


class MetadMetrics:
    """Registers itself with the metrics of `state`."""

    def __init__(
        self,
        state: State,
        totals: Totals,
        locks: LockTable,
        repairer: Repairer,
        moving: Moving,
        jobs: Jobs,
    ) -> None:
        self._state = state
        self._locks = locks
        self._repairer = repairer
        self._moving = moving
        self._jobs = jobs
        self._totals = totals
        self._counted: Counted | None = None
        state.metrics.read(self._collect, self._count)

    async def _count(self) -> None:
        self._counted = await self._totals.get()

    def _collect(self) -> Iterator[Metric]:
        yield from self._clients()
        yield from self._database()
        yield from self._journal()
        yield from self._chunks()
        yield from self._servers()
        yield from self._work()
        yield counter(
            "dfs_events_total",
            "Events by kind, those included that are merged in the event log.",
            [((kind,), count) for kind, count in sorted(self._state.event_log.counts.items())],
            ("kind",),
        )

    def _clients(self) -> Iterator[Metric]:
        leases, streams = self._state.leases, self._state.streams
        connected = Counter(streams.connected(each.session) for each in leases)
        yield gauge(
            "dfs_sessions",
            "Sessions of clients, by whether their event stream is open.",
            [((text,), connected[is_so]) for text, is_so in (("yes", True), ("no", False))],
            ("connected",),
        )
        yield gauge(
            "dfs_held_inodes",
            "Inodes that clients may have cached, summed over the clients.",
            [((), sum(len(each.held) for each in leases))],
        )
        yield gauge(
            "dfs_exclusive_leases",
            "Leases under which clients buffer what they write.",
            [((), leases.exclusive_count)],
        )
        yield gauge("dfs_locks", "Locked ranges and files.", [((), self._locks.held_count)])

    def _database(self) -> Iterator[Metric]:
        db = self._state.db
        yield counter("dfs_commits_total", "Group commits of the database.", [((), db.commits)])
        yield counter(
            "dfs_committed_works_total",
            "Mutations in those commits; divided by them: the size of a group.",
            [((), db.works)],
        )
        yield counter(
            "dfs_commit_seconds_total", "Time spent in commits.", [((), db.commit_seconds)]
        )

    def _journal(self) -> Iterator[Metric]:
        followers = self._state.followers
        entry = followers.offered.number
        yield gauge("dfs_journal_entry", "Number of the last entry of the journal.", [((), entry)])
        yield counter(
            "dfs_journal_bytes_total",
            "Bytes of the entries, as followers get them.",
            [((), followers.offered_bytes)],
        )
        yield gauge(
            "dfs_journal_copies",
            "Chunk servers that are in step with the journal.",
            [((), followers.in_step)],
        )
        yield gauge(
            "dfs_journal_wanted_copies",
            "How many must have a change on disk before it is acknowledged.",
            [((), followers.copies)],
        )
        yield gauge(
            "dfs_journal_lag_entries",
            "Entries that a follower has not confirmed yet; of those that only stand by, none.",
            [
                ((each.server_id, each.state), max(0, entry - each.number))
                for each in followers.status()
                if each.state != "standby"
            ],
            ("server", "state"),
        )
        yield counter(
            "dfs_journal_waits_total",
            "Changes and reads that waited for copies, after metad's own commit.",
            [((), followers.waits)],
        )
        yield counter(
            "dfs_journal_wait_seconds_total",
            "Time spent in those waits, summed over all who waited.",
            [((), followers.wait_seconds)],
        )

    def _chunks(self) -> Iterator[Metric]:
        if self._counted is None:
            return
        inodes, chunks = self._counted.inodes, self._counted.chunks
        yield gauge("dfs_inodes", "Files, directories and all others.", [((), inodes)])
        yield gauge(
            "dfs_chunks",
            "Live chunks by good replicas on live servers.",
            [((str(number),), count) for number, count in enumerate(chunks.by_replicas)],
            ("replicas",),
        )
        for name, documentation, number in (
            ("dfs_chunk_bytes", "Bytes of all live chunks, once each.", chunks.bytes),
            (
                "dfs_under_replicated_chunks",
                "Live chunks with too few replicas, the lost included.",
                chunks.under_replicated,
            ),
            ("dfs_lost_chunks", "Live chunks without a good replica on live servers.", chunks.lost),
            ("dfs_dead_chunks", "Chunks that wait to be deleted.", chunks.pending_delete),
        ):
            yield gauge(name, documentation, [((), number)])

    def _work(self) -> Iterator[Metric]:
        repair = self._repairer.status()
        for name, documentation, number in (
            (
                "dfs_misplaced_chunks",
                "Live chunks with copies in one domain.",
                self._moving.misplaced,
            ),
            ("dfs_endangered_chunks", "Live chunks that repair has to see to.", repair.chunks),
            ("dfs_repair_left_bytes", "Bytes to copy until they are safe.", repair.bytes_left),
            ("dfs_repair_bytes_per_second", "What repair copies now.", repair.bytes_per_s),
        ):
            yield gauge(name, documentation, [((), number)])
        running = self._jobs.running()
        yield gauge(
            "dfs_job_done_ratio",
            "How far each running job is, 0 to 1; 0 while that is not known.",
            [((job.kind, job.name), job.done / job.total if job.total else 0.0) for job in running],
            ("kind", "name"),
        )
        yield gauge(
            "dfs_job_errors",
            "Steps of each running job that failed and were tried again.",
            [((job.kind, job.name), job.errors) for job in running],
            ("kind", "name"),
        )

    def _servers(self) -> Iterator[Metric]:
        state = self._state
        now = state.clock()
        servers = Counter(state.servers.state(each, now) for each in state.servers)
        yield gauge(
            "dfs_servers",
            "Chunk servers by state.",
            [((name,), servers[name]) for name in sorted({"up", "suspect", "down", *servers})],
            ("state",),
        )
        failed = sum(disk.failed for each in state.servers for disk in each.disks.values())
        yield gauge("dfs_failed_disks", "Disks that their servers call failed.", [((), failed)])
        total_bytes, free_bytes = room(state, known_only=True)
        yield gauge("dfs_total_bytes", "Room for user data in all.", [((), total_bytes)])
        yield gauge("dfs_free_bytes", "Room for user data that is left.", [((), free_bytes)])
        copies = state.servers.orders.copies()
        orders = state.servers.orders.counts()
        yield gauge(
            "dfs_orders",
            "Orders to chunk servers that are queued or under way, by kind.",
            [((kind,), orders[kind]) for kind in ("copy", "delete", "verify")],
            ("kind",),
        )
        yield gauge(
            "dfs_repair_queue_bytes",
            "Bytes of the copies that are queued or under way.",
            [((), sum(each.length for each in copies))],
        )
