"""Thousands of damaged chunk files, in a whole cluster with real chunk stores on real directories.

Metad, chunkds and clients run in one trio process under a virtual clock.  In each round many files
are damaged, each in another way, so that every chunk keeps one good copy; a client reads what was
damaged while it is; scrubbers, inventories and readers find it, repair mends it.  Then every file
on every disk is looked at by this module's own means.  What counts: found, repaired, and whether a
reader ever got a wrong byte, or an error though a good copy existed.
"""

from __future__ import annotations

import os
import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import trio

from chunkd.store import ChunkStore
from dfsmount.client import FileSystem
from dfswire.chunks import CHECKSUM_BYTES, block_checksums, block_count, chunk_digest
from tests.corruptions.kinds import KINDS
from tests.t3_cluster.cluster import Cluster, fully_replicated, running_cluster
from tests.t3_cluster.files import find, write_file

SERVERS = 5
REPLICAS = 3
CHUNK_SIZE_BYTES = 256 << 10
FILES = 60
FILE_MAX_BYTES = 700 << 10
PER_ROUND = 100
HEALED_WITHIN_S = 600.0  # of virtual time: a scrub pass, an inventory, and the copying
LOOK_EVERY_S = 20.0


class Violation(AssertionError):
    """Something that must never happen."""


@dataclass
class Figures:
    """What a run has seen."""

    injected: Counter[str] = field(default_factory=Counter)
    reads: int = 0
    bytes_read: int = 0
    heal_s: list[float] = field(default_factory=list)
    took_s: float = 0.0

    def lines(self) -> list[str]:
        """For people."""
        slowest = max(self.heal_s, default=0.0)
        return [
            f"corruptions: {self.injected.total()} of {len(self.injected)} kinds, all found and "
            "repaired, none served",
            *(f"  {kind:24} {count}" for kind, count in sorted(self.injected.items())),
            f"reads of damaged files meanwhile: {self.reads} ({self.bytes_read >> 20} MiB), "
            "wrong or failed: 0",
            f"whole again after at most {slowest:.0f} s of virtual time; {self.took_s:.0f} s real",
        ]


async def run(
    root: Path, count: int, seed: int, tell: Callable[[str], None] = lambda line: None
) -> Figures:
    """Inject `count` corruptions.  Raises Violation."""
    rng = random.Random(seed)
    began = time.monotonic()
    figures = Figures()
    async with running_cluster(
        rng,
        servers=SERVERS,
        replicas=REPLICAS,
        chunk_size_bytes=CHUNK_SIZE_BYTES,
        # All of a disk each minute, where it would be a week.
        chunkd_settings={"scrub_period_s": 60.0, "inventory_interval_s": 60.0},
        make_store=lambda number, cluster: _open_store(root / f"disk{number}", number, cluster),
    ) as cluster:
        disks = [root / f"disk{number}" for number in range(SERVERS)]
        work = _Run(cluster, disks, rng, figures)
        await work.write_files()
        while figures.injected.total() < count:
            await work.round(min(PER_ROUND, count - figures.injected.total()))
            figures.took_s = time.monotonic() - began
            tell(f"{figures.injected.total()} of {count}, {figures.took_s:.0f} s")
    return figures


def _open_store(root: Path, number: int, cluster: Cluster) -> ChunkStore:
    root.mkdir()
    store = ChunkStore(
        root,
        f"disk{number}",
        monotonic=trio.current_time,
        wall=lambda: cluster.now_ns() / 1e9,
    )
    store.recover()
    return store


class _Run:
    """The files, and what was done to them."""

    def __init__(
        self, cluster: Cluster, disks: list[Path], rng: random.Random, figures: Figures
    ) -> None:
        self._cluster = cluster
        self._disks = disks
        self._rng = rng
        self._figures = figures
        self._contents: dict[str, bytes] = {}
        self._hurt: set[Path] = set()

    async def write_files(self) -> None:
        async with self._cluster.client("writer") as client:
            for number in range(FILES):
                size = self._rng.choice([10_000, 65_536, self._rng.randrange(9000, FILE_MAX_BYTES)])
                data = self._contents[f"f{number}"] = self._rng.randbytes(size)
                await write_file(client.vfs, f"f{number}", data, sync=True)
        await self._cluster.until(fully_replicated, 120)
        if problem := self._problem():
            raise Violation(f"before anything was damaged: {problem}")

    async def round(self, count: int) -> None:
        """Damage, read, wait until everything is whole, look at everything."""
        self._damage(count)
        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            for _ in range(2):
                nursery.start_soon(self._read_everything)
            nursery.start_soon(self._until_whole, began)

    def _damage(self, count: int) -> None:
        done = 0
        hurt: Counter[str] = Counter()  # chunk -> copies that were damaged
        while done < count:
            disk = self._rng.choice(self._disks)
            paths = sorted(set(_chunk_files(disk)) - self._hurt)
            path, other = self._rng.sample(paths, 2)
            kind = self._rng.choice(KINDS)
            # A directory may hold more than one chunk.
            victims = sorted(path.parent.iterdir()) if "directory" in kind.__name__ else [path]
            if any(hurt[each.name] >= REPLICAS - 1 or each in self._hurt for each in victims):
                continue
            kind(path, other, self._rng)
            for each in victims:
                hurt[each.name] += 1
                self._hurt.add(each)
            self._figures.injected[kind.__name__] += 1
            done += 1

    async def _read_everything(self) -> None:
        """A client without caches reads ranges of all files, in the middle of the damage."""
        names = list(self._contents)
        self._rng.shuffle(names)
        async with self._cluster.client(f"reader{self._rng.random()}") as client:
            for name in names:
                await self._read(client, name)

    async def _read(self, client: FileSystem, name: str) -> None:
        data = self._contents[name]
        inode = (await find(client.vfs, name)).inode
        handle = await client.vfs.open(inode, os.O_RDONLY)
        try:
            for _ in range(4):
                offset = self._rng.randrange(len(data))
                length = self._rng.choice([1, 4096, 100_000, len(data)])
                try:
                    got = bytes(await client.vfs.read(handle, offset, length))
                except OSError as problem:
                    raise Violation(f"{name} at {offset}+{length}: {problem}") from problem
                if got != data[offset : offset + length]:
                    raise Violation(f"{name} at {offset}+{length}: wrong bytes were served")
                self._figures.reads += 1
                self._figures.bytes_read += len(got)
        finally:
            await client.vfs.release(handle)

    async def _until_whole(self, began: float) -> None:
        problem = "nothing was looked at"
        with trio.move_on_after(HEALED_WITHIN_S):
            while problem:
                await trio.sleep(LOOK_EVERY_S)
                healthy = fully_replicated(await self._cluster.status())
                problem = self._problem() if healthy else "too few replicas"
        if problem:
            raise Violation(f"not whole after {HEALED_WITHIN_S:.0f} s: {problem}")
        self._figures.heal_s.append(trio.current_time() - began)
        self._hurt.clear()

    def _problem(self) -> str:
        """What is wrong on the disks; nothing is believed but the bytes and metad's digest."""
        database = self._cluster.database
        chunks = {
            bytes(chunk): (length, bytes(digest))
            for chunk, length, digest in database.read(
                "SELECT id, length, digest FROM chunk WHERE state = 'live'"
            )
        }
        good = {
            (bytes(chunk).hex(), disk)
            for chunk, disk in database.read(
                "SELECT chunk, identity FROM replica r JOIN disk ON key = r.disk "
                "WHERE r.state = 'good'"
            )
        }
        copies: Counter[bytes] = Counter()
        for root in self._disks:
            for path in _chunk_files(root):
                chunk = bytes.fromhex(path.name)
                if chunk not in chunks:
                    continue  # of an earlier life of a file: reclaim will come to it
                if not _is_whole(path, chunk, *chunks[chunk]):
                    return f"{path} is damaged, and nobody has noticed"
                copies[chunk] += 1
                good.discard((path.name, root.name))
        if good:
            return f"{len(good)} copies that metad believes in do not exist"
        poor = [chunk.hex() for chunk in chunks if copies[chunk] < REPLICAS]
        return f"{len(poor)} chunks with too few copies: {poor[0]}" if poor else ""


def _chunk_files(root: Path) -> list[Path]:
    return [path for path in root.glob("chunks/*/*/*") if "." not in path.name]


def _is_whole(path: Path, chunk: bytes, length: int, digest: bytes) -> bool:
    data = path.read_bytes()
    payload = data[:length]
    checksums = data[length : length + block_count(length) * CHECKSUM_BYTES]
    return (
        len(payload) == length
        and block_checksums(chunk, payload) == checksums
        and chunk_digest(chunk, length, checksums) == digest
        and len(data) == length + len(checksums) + 72
    )
