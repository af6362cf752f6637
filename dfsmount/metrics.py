"""What a mount tells Prometheus, where the option `metrics_listen` says; docs/metrics.md lists it.

Only on a loopback address: the numbers are for an agent on the same host.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

from dfsmount.client import FileSystem
from dfswire.daemon import parse_address
from dfswire.errors import UsageError
from dfswire.metrics import Durations, Metric, Metrics, counter, gauge


def check_loopback(address: str) -> None:
    """Raises UsageError for an address that others could reach."""
    host, _ = parse_address(address)
    try:
        is_loopback = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        is_loopback = False
    if not is_loopback:
        raise UsageError(f"metrics_listen={address}: must be a loopback address")


class MountMetrics:
    """The metrics of one mount process; `operations` is there from the start."""

    def __init__(self) -> None:
        self.metrics = Metrics("mount")
        self.operations = Durations(
            "dfs_operation_duration_seconds",
            "Operations of the kernel, by kind and outcome (ok, or the errno).",
            ("operation", "outcome"),
        )
        self.metrics.registry.register(self.operations)

    def attach(self, file_system: FileSystem) -> None:
        """Tell of this client from now on."""
        self._file_system = file_system
        self.metrics.read(self._collect)

    def _collect(self) -> Iterator[Metric]:
        data, session = self._file_system.data, self._file_system.session
        cache, health = data.cache, data.health
        yield counter("dfs_cache_hits_total", "Reads from the block cache.", [((), cache.hits)])
        yield counter(
            "dfs_cache_misses_total", "Fetches for the block cache.", [((), cache.misses)]
        )
        yield gauge("dfs_cache_bytes", "What the block cache holds.", [((), cache.held_bytes)])
        yield gauge("dfs_dirty_bytes", "Written, but not stored yet.", [((), data.dirty_bytes)])
        yield counter(
            "dfs_fetched_bytes_total",
            "Bytes read from chunk servers.",
            [((server,), count) for server, count in sorted(health.fetched_bytes.items())],
            ("server",),
        )
        yield counter(
            "dfs_failures_total",
            "Calls to chunk servers that were not reached, or not able to.",
            [((server,), count) for server, count in sorted(health.failures.items())],
            ("server",),
        )
        yield counter(
            "dfs_hedged_reads_total",
            "Reads for which a second server was asked, as the first was slow.",
            [((), data.chunks.hedged)],
        )
        yield counter(
            "dfs_sessions_lost_total", "Sessions that metad ended.", [((), session.losses)]
        )
        yield counter(
            "dfs_reconnects_total",
            "How often the event stream from metad was opened again.",
            [((), max(session.stream.count - 1, 0))],
        )
