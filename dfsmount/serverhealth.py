"""What this client has experienced with each chunkd: how fast it answers, and whether it failed.

`ChunkClient` orders replicas by it and decides when a read is slow enough for a second try
elsewhere; `GrantPool` keeps new chunks away from servers that failed a moment ago.  metad's view of
a server (heartbeats) is slower than one's own failed call.  Times are trio's clock.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable

import trio

from dfswire.messages import Replica

FAILED_FOR_S = 10.0  # by then metad knows that the server is down and grants nothing on it
SAMPLES = 64
SAMPLES_MIN = 8  # fewer say nothing about a 95th percentile
NEWEST_WEIGHT = 0.2
LARGE_BYTES = 512 * 1024  # larger reads are transfers, smaller ones round trips: kept apart


class _Latency:
    """Recent answer times of one server for one class of read sizes."""

    def __init__(self) -> None:
        self.mean_s = 0.0
        self._recent: deque[float] = deque(maxlen=SAMPLES)

    def add(self, seconds: float) -> None:
        first = not self._recent
        self._recent.append(seconds)
        weight = 1.0 if first else NEWEST_WEIGHT
        self.mean_s += weight * (seconds - self.mean_s)

    def p95_s(self) -> float | None:
        if len(self._recent) < SAMPLES_MIN:
            return None
        return sorted(self._recent)[len(self._recent) * 95 // 100]


class ServerHealth:
    """Experience with all servers.  `local_hosts`: the host parts of this machine's addresses."""

    def __init__(self, local_hosts: Iterable[str] = ()) -> None:
        self._local_hosts = frozenset(local_hosts)
        self._latencies: dict[tuple[str, bool], _Latency] = {}
        self._failed_until: dict[str, float] = {}
        self.fetched_bytes: Counter[str] = Counter()
        self.failures: Counter[str] = Counter()

    def succeeded(self, address: str, length: int, seconds: float) -> None:
        """A read of `length` bytes was answered after `seconds`."""
        self._failed_until.pop(address, None)
        self.fetched_bytes[address] += length
        self._latencies.setdefault((address, length > LARGE_BYTES), _Latency()).add(seconds)

    def failed(self, address: str) -> None:
        """Not reached, or no answer in time, or not able to."""
        self._failed_until[address] = trio.current_time() + FAILED_FOR_S
        self.failures[address] += 1

    def recently_failed(self) -> list[str]:
        """The addresses to avoid at the moment."""
        now = trio.current_time()
        self._failed_until = {
            one: until for one, until in self._failed_until.items() if until > now
        }
        return sorted(self._failed_until)

    def order(self, replicas: Iterable[Replica], length: int) -> list[Replica]:
        """The best one to read `length` bytes from first: own host, then fast ones, failed last.

        A server without experience counts as fast, so that it gets some.
        """
        failed = set(self.recently_failed())

        def rank(replica: Replica) -> tuple[bool, bool, float]:
            latency = self._latencies.get((replica.address, length > LARGE_BYTES))
            host = replica.address.rpartition(":")[0]
            mean_s = latency.mean_s if latency else 0.0
            return replica.address in failed, host not in self._local_hosts, mean_s

        return sorted(replicas, key=rank)

    def p95_s(self, address: str, length: int) -> float | None:
        """The 95th percentile of recent reads of such a length; None when there were too few."""
        latency = self._latencies.get((address, length > LARGE_BYTES))
        return latency.p95_s() if latency else None
