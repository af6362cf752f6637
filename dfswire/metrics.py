"""Counting what a daemon does, in the form that Prometheus reads.

Each daemon, or mount, makes one `Metrics`: a registry of its own, because tests run whole clusters
in one process.  What happens often counts in `Durations`, which costs well under a microsecond;
what the daemon knows anyway is only read when somebody asks (`Reading`).  Whoever has something of
his own to count registers it at `registry`.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Awaitable, Callable, Iterable, Iterator
from itertools import accumulate

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from dfswire.daemon import software_version
from dfswire.looplag import LoopLag

__all__ = ["Durations", "Metric", "Metrics", "counter", "gauge"]

BOUNDS_S = (
    *(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025),
    *(0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0),
)
_LABELS = [*map(floatToGoString, BOUNDS_S), "+Inf"]


class _Timings:
    """How long one thing took, every time."""

    __slots__ = ("counts", "sum_s")

    def __init__(self) -> None:
        self.counts = [0] * len(_LABELS)
        self.sum_s = 0.0


class Durations(Collector):
    """A histogram of durations by labels.

    Threads may add too: then one in a great many may be missed, for there is no lock.
    """

    def __init__(self, name: str, documentation: str, labels: tuple[str, ...]) -> None:
        self._name = name
        self._documentation = documentation
        self._labels = labels
        self._timings: dict[tuple[str, ...], _Timings] = {}

    def add(self, labels: tuple[str, ...], duration_s: float) -> None:
        """Something happened that took so long."""
        timings = self._timings.get(labels)
        if timings is None:
            timings = self._timings.setdefault(labels, _Timings())
        timings.counts[bisect_left(BOUNDS_S, duration_s)] += 1
        timings.sum_s += duration_s

    def collect(self) -> Iterator[Metric]:
        family = HistogramMetricFamily(self._name, self._documentation, labels=self._labels)
        for labels, timings in sorted(self._timings.items()):
            buckets = list(zip(_LABELS, map(float, accumulate(timings.counts)), strict=True))
            family.add_metric(labels, buckets, timings.sum_s)
        yield family


class Reading(Collector):
    """What is known anyway, made into metrics when somebody asks."""

    def __init__(self, read: Callable[[], Iterable[Metric]]) -> None:
        self._read = read

    def collect(self) -> Iterable[Metric]:
        return self._read()


class Metrics:
    """All metrics of one daemon.  `calls` are those that it answers; whoever runs the daemon runs
    `loop` with it."""

    def __init__(self, service: str, loop: LoopLag | None = None) -> None:
        self._service = service
        self.loop = loop or LoopLag()
        self._preparations: list[Callable[[], Awaitable[None]]] = []
        self.registry = CollectorRegistry(auto_describe=False)
        self.calls = Durations(
            "dfs_call_duration_seconds",
            "Calls answered, by name and outcome (ok, or the code of the error).",
            ("call", "outcome"),
        )
        self.registry.register(self.calls)
        self.registry.register(Reading(self._lag))
        self.registry.register(Reading(self._build))
        ProcessCollector(registry=self.registry)

    def read(
        self,
        families: Callable[[], Iterable[Metric]],
        prepare: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """Offer what `families` yields; `prepare` is awaited before, for what needs waiting."""
        self.registry.register(Reading(families))
        if prepare is not None:
            self._preparations.append(prepare)

    async def page(self) -> bytes:
        """The text that is served at /metrics."""
        for prepare in self._preparations:
            await prepare()
        return generate_latest(self.registry)

    def _lag(self) -> Iterator[Metric]:
        yield gauge(
            "dfs_loop_lag_seconds",
            "How long the event loop stood still, at worst in the last minute.",
            [((), self.loop.worst_s())],
        )

    def _build(self) -> Iterator[Metric]:
        family = GaugeMetricFamily("dfs_build_info", "Always 1.", labels=("service", "version"))
        family.add_metric((self._service, software_version()), 1.0)
        yield family


def gauge(
    name: str,
    documentation: str,
    samples: Iterable[tuple[tuple[str, ...], float]],
    labels: tuple[str, ...] = (),
) -> Metric:
    """A family of numbers that go up and down."""
    family = GaugeMetricFamily(name, documentation, labels=labels)
    for values, number in samples:
        family.add_metric(values, number)
    return family


def counter(
    name: str,
    documentation: str,
    samples: Iterable[tuple[tuple[str, ...], float]],
    labels: tuple[str, ...] = (),
) -> Metric:
    """A family of numbers that only grow until the daemon starts anew; ends with _total."""
    family = CounterMetricFamily(name, documentation, labels=labels)
    for values, number in samples:
        family.add_metric(values, number)
    return family
