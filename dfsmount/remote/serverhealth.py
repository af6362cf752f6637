"""What this client has experienced with each chunkd: how fast it answers, and whether it failed.

`ChunkClient` orders replicas by it and decides when a read is slow enough for a second try
elsewhere; `GrantPool` keeps new chunks away from servers that failed or were slow a moment ago.
metad's view of a server (heartbeats) is slower than one's own failed call; it is told with the
renewals of the session, and what it thinks of a server that is unknown here is believed.  Times are
trio's clock.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable

import trio

from dfsmount.remote.experience import Meetings
from dfswire.health import Experience
from dfswire.messages import Replica

FAILED_FOR_S = 10.0  # by then metad knows that the server is down and grants nothing on it
REMEMBERED_S = 30.0
SAMPLES = 64
SAMPLES_MIN = 8  # fewer say nothing about a 95th percentile
NEWEST_WEIGHT = 0.2
LARGE_BYTES = 512 * 1024  # larger reads are transfers, smaller ones round trips: kept apart


class _Latency:
    """Recent answer times of one server for one class of read sizes."""

    def __init__(self) -> None:
        self.mean_s = 0.0
        self.last_s = 0.0
        self._recent: deque[float] = deque(maxlen=SAMPLES)

    def add(self, seconds: float) -> None:
        first = not self._recent
        self._recent.append(seconds)
        self.last_s = trio.current_time()
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
        self._answered_s: dict[str, float] = {}
        self._meetings = Meetings()
        self._silent: list[tuple[float, set[str]]] = []
        self.on_trouble: Callable[[], None] = lambda: None
        """Called when there is something that metad should hear soon."""

    def succeeded(self, address: str, length: int, seconds: float) -> None:
        """A read of `length` bytes was answered after `seconds`."""
        self._failed_until.pop(address, None)
        self.fetched_bytes[address] += length
        self._answered_s[address] = trio.current_time()
        self._read(address, length, seconds)

    def outpaced(self, address: str, length: int, seconds: float) -> None:
        """A read was given up after `seconds`, as another server had answered."""
        self._read(address, length, seconds)

    def stored(self, address: str, length: int, seconds: float) -> None:
        """The server says that it took so long to receive and store a chunk."""
        if self._silent:
            for _at, suspects in self._silent:
                suspects.discard(address)
            self._judge()
        self._met(address, f"store {length > LARGE_BYTES}", seconds)

    def failed(self, address: str) -> None:
        """Not reached, or no answer in time, or not able to."""
        self._failed_until[address] = trio.current_time() + FAILED_FOR_S
        self.failures[address] += 1
        self._answered_s.pop(address, None)
        self._meetings.failed(address)
        self._tell()

    def silent(self, addresses: Iterable[str]) -> None:
        """One of these did not answer in time; which one will turn out, as others of them do."""
        self._silent.append((trio.current_time(), set(addresses)))
        self._judge()

    def _judge(self) -> None:
        since = trio.current_time() - REMEMBERED_S
        guilty = {next(iter(each)) for at, each in self._silent if at > since and len(each) == 1}
        self._silent = [
            (at, each) for at, each in self._silent if at > since and each and not each & guilty
        ]
        for address in sorted(guilty):
            self.failed(address)

    def to_avoid(self) -> list[str]:
        """The addresses where nothing should be stored at the moment."""
        return sorted({*self.recently_failed(), *self._meetings.slow_ones(trio.current_time())})

    def take(self) -> list[Experience]:
        """What metad should hear, once."""
        return self._meetings.take()

    def _read(self, address: str, length: int, seconds: float) -> None:
        self._latencies.setdefault((address, length > LARGE_BYTES), _Latency()).add(seconds)
        self._met(address, f"read {length > LARGE_BYTES}", seconds)

    def _met(self, address: str, kind: str, seconds: float) -> None:
        self._meetings.took(address, kind, seconds, trio.current_time())
        self._tell()

    def _tell(self) -> None:
        if self._meetings.is_trouble:
            self.on_trouble()

    def recently_failed(self) -> list[str]:
        """The addresses that failed a moment ago."""
        now = trio.current_time()
        self._failed_until = {
            one: until for one, until in self._failed_until.items() if until > now
        }
        return sorted(self._failed_until)

    def order(self, replicas: Iterable[Replica], length: int) -> list[Replica]:
        """The best one to read `length` bytes from first: own host, then fast ones, failed last.

        A server without experience counts as fast, so that it gets some, unless metad doubts it;
        so does one that has not been asked for a while, or a slow one would never be found well.
        """
        now = trio.current_time()
        failed = set(self.recently_failed())
        slow = set(self._meetings.slow_ones(now))

        def rank(replica: Replica) -> tuple[bool, bool, bool, float]:
            latency = self._latencies.get((replica.address, length > LARGE_BYTES))
            host = replica.address.rpartition(":")[0]
            known = latency is not None and now - latency.last_s < REMEMBERED_S
            mean_s = latency.mean_s if latency is not None and known else 0.0
            doubtful = replica.address in slow or self._is_doubtful(replica)
            return replica.address in failed, doubtful, host not in self._local_hosts, mean_s

        return sorted(replicas, key=rank)

    def _is_doubtful(self, replica: Replica) -> bool:
        """metad says so (when the layout was asked for), and nothing good was met since."""
        met_s = self._answered_s.get(replica.address)
        lately = met_s is not None and trio.current_time() - met_s < FAILED_FOR_S
        return replica.doubtful and not lately

    def p95_s(self, address: str, length: int) -> float | None:
        """The 95th percentile of recent reads of such a length; None when there were too few."""
        latency = self._latencies.get((address, length > LARGE_BYTES))
        return latency.p95_s() if latency else None
