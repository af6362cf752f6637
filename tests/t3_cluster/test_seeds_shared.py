"""Several clients on the same file, under random faults, by seed; nobody flushes unless he likes.

Three clients write ranges of one file, or append records to one, and read what the others have
written, while daemons are killed, the network is disturbed, replicas are spoilt, and one client is
cut off until it may have lost its session.  slots.py and records.py say what may be read.  In the
end everything is read once more by a client without caches.
"""

from __future__ import annotations

import os
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
import trio
from trio.testing import MockClock

from dfsmount.files.writer import WHOLE_SHARE
from dfswire.errors import InputOutput
from tests.fakes import Faults
from tests.t3_cluster.cluster import CHUNK_SIZE_BYTES, Cluster, fully_replicated, running_cluster
from tests.t3_cluster.files import read_file, write_file
from tests.t3_cluster.nemesis import EXPECTED_LOGS, HEAL_WITHIN_S, Nemesis, seeds
from tests.t3_cluster.records import HEAD, Log
from tests.t3_cluster.sharers import Sharer
from tests.t3_cluster.slots import Slot

STEPS = 50
LOGS = (*EXPECTED_LOGS, "session", "lost", "event stream")
WHOLE_BYTES = CHUNK_SIZE_BYTES // WHOLE_SHARE  # longer writes may be lost in part
BURST = 20  # so many whole writes fill a pack, which is stored without being asked for
SLOTS = [(number * 5000, length) for number, length in enumerate([100, 1] + 20 * [WHOLE_BYTES])]

Act = Callable[[], Awaitable[None]]


class Work:
    """What one client does until it has done enough.  `acts` are drawn from."""

    def __init__(self, sharer: Sharer, rng: random.Random) -> None:
        self.sharer = sharer
        self.rng = rng
        self.acts: list[Act] = []

    async def run(self) -> None:
        for _ in range(STEPS):
            await self.rng.choice(self.acts)()
            await trio.sleep(self.rng.choice([0.0, 0.1, 1.0, 3.0]))


class Writing(Work):
    """Ranges of one file."""

    def __init__(self, sharer: Sharer, rng: random.Random, slots: list[Slot]) -> None:
        super().__init__(sharer, rng)
        self._slots = slots
        self.acts = [self.write, self.write, self.burst, *4 * [self.read], self.sync]
        sharer.on_cut.append(self._was_cut)

    def _was_cut(self) -> None:
        for slot in self._slots:
            slot.was_cut(self.sharer.name)

    async def burst(self) -> None:
        for _ in range(BURST):
            await self.write()

    async def write(self) -> None:
        slot, sharer = self.rng.choice(self._slots), self.sharer
        async with slot.writing:
            handle = await sharer.handle()
            cuts = sharer.cuts
            version = slot.begin(sharer.name)
            try:
                await sharer.vfs.write(handle, slot.offset, slot.content(version))
            except InputOutput:
                await sharer.failed()
            else:
                slot.written(version, may_be_lost=sharer.is_cut or sharer.cuts != cuts)

    async def read(self) -> None:
        slot, sharer = self.rng.choice(self._slots), self.sharer
        handle = await sharer.handle()
        reading = slot.begin_reading()
        data = bytes(await sharer.vfs.read(handle, slot.offset, slot.length))
        slot.read(reading, sharer.name, data, is_cut=sharer.is_cut)

    async def sync(self) -> None:
        if await self.sharer.sync(close=self.rng.random() < 0.3):
            for slot in self._slots:
                slot.synced(self.sharer.name)


class Appending(Work):
    """Records, to one file."""

    def __init__(self, sharer: Sharer, rng: random.Random, log: Log) -> None:
        super().__init__(sharer, rng)
        self._log = log
        self.acts = [*3 * [self.append], self.burst, self.read, self.read, self.sync]
        sharer.flags |= os.O_APPEND
        sharer.on_cut.append(lambda: log.was_cut(sharer.name))

    async def burst(self) -> None:
        for _ in range(BURST):
            await self.append()

    async def append(self) -> None:
        sharer = self.sharer
        handle = await sharer.handle()
        cuts = sharer.cuts
        length = self.rng.choice([0, 10, 1000, WHOLE_BYTES - HEAD.size])
        record = self._log.begin(sharer.name, length)
        # The kernel names an offset, too, that may be an old one.
        offset = self.rng.randrange(100_000)
        try:
            await sharer.vfs.write(handle, offset, self._log.content(record))
        except InputOutput:
            await sharer.failed()
        else:
            self._log.appended(record, may_be_lost=sharer.is_cut or sharer.cuts != cuts)

    async def read(self) -> None:
        sharer = self.sharer
        handle = await sharer.handle()
        reading = self._log.begin_reading()
        self._log.read(reading, sharer.name, await sharer.read_all(handle))

    async def sync(self) -> None:
        if await self.sharer.sync(close=self.rng.random() < 0.3):
            self._log.synced(self.sharer.name)


@asynccontextmanager
async def sharing(seed: int, path: str) -> AsyncIterator[tuple[Cluster, list[Sharer]]]:
    """A cluster with three clients and a file; in the end everything is in order again."""
    rng = random.Random(seed)
    async with running_cluster(rng) as cluster:
        async with AsyncExitStack() as stack:
            sharers = []
            for name in "abc":
                client = await stack.enter_async_context(cluster.client(name))
                sharers.append(Sharer(name, client, cluster, path))
            await write_file(sharers[0].vfs, path, b"", sync=True)
            yield cluster, sharers
        await cluster.until(fully_replicated, HEAL_WITHIN_S)
        assert (await cluster.fsck()).findings == []


async def work(cluster: Cluster, seed: int, works: list[Work]) -> None:
    """All at once, and a nemesis; then everybody closes, so that all is committed."""
    rng = random.Random(f"nemesis {seed}")

    async def cut() -> None:
        with trio.CancelScope(shield=True):
            await rng.choice(works).sharer.cut(rng.choice([1.0, 10.0, 24.0, 45.0]))

    nemesis = Nemesis(cluster, rng, power_cuts=False, more=[cut])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(nemesis.run)
        async with trio.open_nursery() as working:
            for each in works:
                working.start_soon(each.run)
        nursery.cancel_scope.cancel()
    cluster.set_faults(Faults())
    for each in works:
        await each.sharer.close()


@pytest.fixture
def patient(tolerate_log: Callable[[str], None]) -> None:
    for pattern in LOGS:
        tolerate_log(pattern)


@pytest.mark.parametrize("seed", seeds(10))
async def test_a_write_is_seen_by_whatever_starts_later(
    autojump_clock: MockClock, patient: None, seed: int
) -> None:
    slots = [Slot(offset, length) for offset, length in SLOTS]
    async with sharing(seed, "f") as (cluster, sharers):
        rngs = [random.Random(f"{each.name} {seed}") for each in sharers]
        works = [Writing(each, rng, slots) for each, rng in zip(sharers, rngs, strict=True)]
        await work(cluster, seed, list(works))
        async with cluster.client("checker", options="nocache") as checker:
            data = await read_file(checker.vfs, "f")
        for slot in slots:
            reading = slot.begin_reading()
            slot.read(reading, "checker", data[slot.offset :][: slot.length], is_cut=False)


@pytest.mark.parametrize("seed", seeds(10))
async def test_appended_records_are_whole_and_single_and_none_is_lost(
    autojump_clock: MockClock, patient: None, seed: int
) -> None:
    log = Log()
    async with sharing(seed, "log") as (cluster, sharers):
        rngs = [random.Random(f"{each.name} {seed}") for each in sharers]
        works = [Appending(each, rng, log) for each, rng in zip(sharers, rngs, strict=True)]
        await work(cluster, seed, list(works))
        reading = log.begin_reading()
        async with cluster.client("checker", options="nocache") as checker:
            log.read(reading, "checker", await read_file(checker.vfs, "log"))
