"""What chunkd tells Prometheus about its disks and the journal; docs/metrics.md lists it.

The figures are those of heartbeats, taken anew for each scrape.  A disk that hangs does not hold up
the scrape: its last figures are told again.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TypeVar

import trio

from chunkd.journal import Journal
from chunkd.storage import Runner, Store, Stores
from dfswire.errors import DFSError
from dfswire.hosts import DiskFigures
from dfswire.metrics import Durations, Metric, Metrics, counter, gauge

log = logging.getLogger(__name__)

T = TypeVar("T")

JOURNAL = "journal"  # among disks, whose identities are hexadecimal

FIGURES_S = 2.0

_GAUGES = (
    ("dfs_disk_total_bytes", "Size of the file system.", "total_bytes"),
    ("dfs_disk_free_bytes", "Free space in it.", "free_bytes"),
    ("dfs_disk_chunks", "Chunks on the disk.", "chunks"),
    ("dfs_disk_used_bytes", "Bytes of the chunk files.", "used_bytes"),
    ("dfs_disk_quarantined_chunks", "Chunks found bad and set aside.", "quarantined"),
    ("dfs_disk_scrub_ratio", "How far the present scrub pass is, 0 to 1.", "scrub_fraction"),
    (
        "dfs_disk_scrub_finished_seconds",
        "When the last scrub pass ended, since the epoch; 0: none has yet.",
        "scrub_finished_s",
    ),
    ("dfs_disk_failed", "1 when the disk counts as failed.", "failed"),
)
_COUNTERS = (
    ("dfs_disk_read_bytes_total", "Bytes of chunks read.", "read_bytes"),
    ("dfs_disk_written_bytes_total", "Bytes of chunk files written.", "written_bytes"),
    ("dfs_disk_reads_total", "Reads of chunks and parts of them.", "reads"),
    ("dfs_disk_writes_total", "Chunks written.", "writes"),
)


async def look_in_thread(work: Callable[[], T]) -> T:
    """Run something that only looks, and may hang: it is left alone when it takes too long."""
    return await trio.to_thread.run_sync(work, abandon_on_cancel=True)


class DiskWatch:
    """Durations and errors of system calls, by disk and operation; made before the stores are."""

    def __init__(self) -> None:
        self.errors: Counter[tuple[str, str]] = Counter()
        self.durations = Durations(
            "dfs_disk_operation_duration_seconds",
            "System calls on the disk: read, write, fsync, fsync_directory.",
            ("path", "operation"),
        )


class ChunkdMetrics:
    """Registers itself with `metrics`."""

    def __init__(
        self,
        metrics: Metrics,
        stores: Stores,
        look_at: Runner,
        watch: DiskWatch | None = None,
        journal: Journal | None = None,
    ) -> None:
        self._stores = stores
        self._journal = journal
        self._journal_bytes = 0
        self._look_at = look_at
        self._looking: set[str] = set()
        self._watch = watch or DiskWatch()
        self._figures: dict[str, DiskFigures] = {}
        metrics.registry.register(self._watch.durations)
        metrics.read(self._collect, self._look)

    async def _look(self) -> None:
        async with trio.open_nursery() as nursery:
            for store in self._stores:
                if store.disk not in self._looking:
                    nursery.start_soon(self._look_at_one, store)
            if self._journal is not None and JOURNAL not in self._looking:
                nursery.start_soon(self._look_at_journal, self._journal)

    async def _look_at_one(self, store: Store) -> None:
        def look() -> None:
            try:
                self._figures[store.disk] = store.figures()
            finally:
                self._looking.discard(store.disk)

        # A thread that hangs in here is left behind; there is never a second one for its disk.
        self._looking.add(store.disk)
        with trio.move_on_after(FIGURES_S):
            await self._look_at(look)

    async def _look_at_journal(self, journal: Journal) -> None:
        def look() -> None:
            try:
                files, _damaged = journal.list_files()
                self._journal_bytes = sum(each.size_bytes for each in files)
            except DFSError as problem:
                log.debug("the journal cannot be looked at: %s", problem)
            finally:
                self._looking.discard(JOURNAL)

        self._looking.add(JOURNAL)
        with trio.move_on_after(FIGURES_S):
            await self._look_at(look)

    def _collect(self) -> Iterator[Metric]:
        yield from self._of_disks()
        yield from self._of_journal()

    def _of_journal(self) -> Iterator[Metric]:
        journal = self._journal
        for name, documentation, number in (
            (
                "dfs_kept_journal_entry",
                "Number of the last entry of metad's journal that this server keeps.",
                journal.position.number if journal else 0,
            ),
            (
                "dfs_kept_journal_snapshot",
                "Up to which entry the newest snapshot goes; -1: there is none to go on from.",
                journal.newest_snapshot if journal else 0,
            ),
            (
                "dfs_kept_journal_bytes",
                "Bytes of entries and snapshots on its disk.",
                self._journal_bytes,
            ),
        ):
            yield gauge(name, documentation, [((), number)] if journal else [])

    def _of_disks(self) -> Iterator[Metric]:
        disks = [self._figures[disk] for disk in sorted(self._figures)]
        for name, documentation, field in _GAUGES:
            yield gauge(name, documentation, *_samples(disks, field))
        for name, documentation, field in _COUNTERS:
            yield counter(name, documentation, *_samples(disks, field))
        yield gauge(
            "dfs_disk_unsynced_chunks",
            "Chunks that wait for the next group sync.",
            [((each.disk, self._path(each.disk)), each.backlog) for each in self._stores],
            ("disk", "path"),
        )
        yield counter(
            "dfs_disk_errors_total",
            "System calls that failed, by operation.",
            _sorted(self._watch.errors),
            ("path", "operation"),
        )

    def _path(self, disk: str) -> str:
        figures = self._figures.get(disk)
        return figures.path if figures is not None else ""


def _sorted(counts: Mapping[tuple[str, str], int]) -> list[tuple[tuple[str, ...], float]]:
    return [(labels, counts[labels]) for labels in sorted(counts)]


def _samples(
    disks: Iterable[DiskFigures], field: str
) -> tuple[list[tuple[tuple[str, ...], float]], tuple[str, ...]]:
    samples: list[tuple[tuple[str, ...], float]] = [
        ((each.disk, each.path), float(getattr(each, field))) for each in disks
    ]
    return samples, ("disk", "path")
