"""What the rest of chunkd expects of a chunk store.

`chunkd.store.ChunkStore` keeps chunks in a data directory; the tests have a twin in memory that
forgets what was not synced.  Both pass tests/suites/chunkstore.py.  All methods block: whoever runs
on the event loop calls them through a `Runner`, which uses a thread or, in simulations, does not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

import trio

from chunkd.layout import Leaf
from chunkd.scrubnote import ScrubNote
from dfswire.bodies import FileRange, Octets
from dfswire.errors import UnknownChunk
from dfswire.heartbeats import ReplicaReport
from dfswire.hosts import DiskFigures

T = TypeVar("T")


@dataclass(frozen=True)
class StoredRange:
    """Bytes of a chunk on their way out.  Whoever gets a FileRange closes its descriptor."""

    body: FileRange | Octets
    chunk_length: int
    checksums: bytes


@dataclass(frozen=True)
class SyncOutcome:
    """What `sync` could not make durable: chunks it lost by trying, and chunks it never had."""

    failed: list[bytes] = field(default_factory=list)
    missing: list[bytes] = field(default_factory=list)


class Store(Protocol):
    """The chunks of one disk.

    Every method may raise DiskFailed and InputOutput besides what it names.  A chunk found bad is
    set aside by whoever finds it, and reported through `take_reports`.  From then on only those
    ranges of it are served of which every block was just checked.
    """

    @property
    def disk(self) -> str:
        """The identity of this disk in the cluster."""

    @property
    def failed(self) -> bool:
        """Whether the disk takes no more chunks."""

    @property
    def backlog(self) -> int:
        """How many chunks are stored and not yet synced."""

    def write(
        self, chunk: bytes, data: bytes | bytearray | memoryview, checksums: bytes, durable: bool
    ) -> None:
        """Keep a chunk; if `durable`, it is on disk with its name when this returns.

        The same chunk again is a success.  Raises CorruptChunk (data against checksums), Exists
        (other content under this id), NoSpace.
        """

    def open_range(self, chunk: bytes, offset: int, length: int) -> StoredRange:
        """Bytes to send.  Raises UnknownChunk, CorruptChunk (bad footer, or a bad range of a chunk
        that was set aside), Invalid (range)."""

    def verify(self, chunk: bytes) -> int:
        """Read everything and check it; returns the length.  Raises UnknownChunk, and CorruptChunk
        also for what was set aside before."""

    def remains(self, chunk: bytes) -> list[bytes]:
        """The contents of all files of a chunk here, right or wrong, with zeros for what cannot be
        read; see remains.py."""

    def digest(self, chunk: bytes) -> bytes:
        """The digest that the footer implies.  Raises UnknownChunk, CorruptChunk."""

    def delete(self, chunk: bytes) -> None:
        """Remove a chunk.  Raises UnknownChunk."""

    def quarantine(self, chunk: bytes, reason: str) -> None:
        """Set a bad chunk aside for people to look at, and report it."""

    def set_aside(self, chunk: bytes, min_age_s: float) -> bool:
        """Move a chunk that metad does not know out of the way, unless it is younger."""

    def expire_set_aside(self, max_age_s: float) -> int:
        """Delete what was set aside longer ago than `max_age_s`; how many."""

    def quarantine_due(self, max_age_s: float, max_bytes: int, limit: int) -> list[bytes]:
        """Chunks set aside as bad longer ago than `max_age_s`, or taking more than `max_bytes`."""

    def empty_quarantine(self, chunks: Iterable[bytes]) -> int:
        """Delete what was set aside as bad of these chunks; how many files."""

    def list_chunks(self, after: bytes, limit: int) -> list[bytes]:
        """Up to `limit` ids greater than `after` (b"" for the beginning), sorted."""

    def leaves(self, seen: Mapping[bytes, Leaf]) -> dict[bytes, Leaf]:
        """All chunks, by the first two bytes of their ids; quicker where little has changed since
        they were `seen`."""

    def sync(self, chunks: Iterable[bytes]) -> SyncOutcome:
        """Make these chunks durable.  What cannot be is discarded: an fsync is not repeated."""

    def unsynced(self) -> list[bytes]:
        """The chunks stored since the start and not yet known to be durable."""

    def recording(self) -> AbstractContextManager[set[bytes]]:
        """A set that gets every chunk stored meanwhile; see inventory.py."""

    def take_reports(self) -> list[ReplicaReport]:
        """Changes that metad should hear of, each returned once."""

    def figures(self) -> DiskFigures:
        """Capacity, contents and traffic."""

    def load_scrub(self) -> ScrubNote:
        """What was saved last."""

    def save_scrub(self, note: ScrubNote) -> None:
        """Remember it over restarts, and show it in the figures."""


class Runner(Protocol):
    """How a blocking call is made from the event loop."""

    async def __call__(self, work: Callable[[], T]) -> T:
        """The result of `work()`."""


async def run_in_thread(work: Callable[[], T]) -> T:
    """Run something that blocks without stopping the event loop; never abandoned half-way."""
    return await trio.to_thread.run_sync(work)


async def run_inline(work: Callable[[], T]) -> T:
    """The same in the caller's task: for simulations, and for what takes microseconds."""
    await trio.lowlevel.checkpoint()
    return work()


class Stores:
    """The disks of this server by their identity."""

    def __init__(self, stores: Iterable[Store]) -> None:
        self._by_disk = {store.disk: store for store in stores}

    def __iter__(self) -> Iterator[Store]:
        return iter(self._by_disk.values())

    def on(self, disk: str) -> Store:
        """Raises UnknownChunk: for the caller, a disk that is not here holds nothing."""
        store = self._by_disk.get(disk)
        if store is None:
            raise UnknownChunk(f"no disk {disk} on this server")
        return store
