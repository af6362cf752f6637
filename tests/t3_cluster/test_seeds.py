"""Random work under random faults, by seed: nothing acknowledged is lost, nothing wrong is read.

Two clients write, copy, punch, rename, truncate and remove files, each in its own directory (copies
are made of the other's files too, as they are at that moment), while a nemesis kills and restarts
daemons, cuts their power, spoils replicas and disturbs the network.  What each client was told is
kept in a plain dictionary.  After the faults have stopped the cluster must heal by itself: full
redundancy, no findings of fsck, and every file as the dictionary says, read by a client without
caches.  What several clients do to the same files is in test_seeds_shared.py.

Data is checked after fsync, because power cuts may take what was only closed.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from contextlib import suppress

import pytest
import trio
from trio.testing import MockClock

from dfsmount.client import FileSystem
from dfswire.errors import NoEntry
from dfswire.messages import ROOT_INODE
from dfswire.operations import FALLOC_KEEP_SIZE, FALLOC_PUNCH_HOLE, SetAttr
from tests.fakes import Faults
from tests.t3_cluster.cluster import (
    CHUNK_SIZE_BYTES,
    Cluster,
    fully_replicated,
    running_cluster,
)
from tests.t3_cluster.files import find, names, opened, read_file, write_file
from tests.t3_cluster.nemesis import EXPECTED_LOGS, HEAL_WITHIN_S, Nemesis, seeds

STEPS = 40


class Worker:
    """One client at work; `model` is what it was told."""

    def __init__(self, name: str, client: FileSystem, rng: random.Random) -> None:
        self.name = name
        self.model: dict[str, bytes] = {}
        self.neighbour = self
        self._vfs = client.vfs
        self._rng = rng

    async def run(self) -> None:
        await self._vfs.mkdir(ROOT_INODE, self.name.encode(), 0o755, 0, 0)
        for _ in range(STEPS):
            await self._rng.choice(
                [
                    self.write,
                    self.write,
                    self.patch,
                    self.truncate,
                    self.punch,
                    self.copy,
                    self.borrow,
                    self.link_unnamed,
                    self.rename,
                    self.remove,
                    self.read,
                ]
            )()
            await trio.sleep(self._rng.uniform(0.0, 2.0))

    def _path(self) -> str:
        return f"{self.name}/f{self._rng.randrange(8)}"

    def _known(self) -> str | None:
        return self._rng.choice(sorted(self.model)) if self.model else None

    async def write(self) -> None:
        path = self._path()
        size = self._rng.choice([0, 100, 8192, CHUNK_SIZE_BYTES, 3 * CHUNK_SIZE_BYTES + 77])
        data = self._rng.randbytes(size)
        await write_file(self._vfs, path, data, sync=True)
        self.model[path] = data

    async def patch(self) -> None:
        if (path := self._known()) is None:
            return
        old = self.model[path]
        offset = self._rng.randrange(len(old) + 1000)
        data = self._rng.randbytes(self._rng.randrange(1, 70_000))
        handle = await self._vfs.open((await find(self._vfs, path)).inode, os.O_RDWR)
        await self._vfs.write(handle, offset, data)
        await self._vfs.fsync(handle)
        await self._vfs.release(handle)
        padded = old.ljust(offset, b"\0")
        self.model[path] = padded[:offset] + data + padded[offset + len(data) :]

    async def truncate(self) -> None:
        if (path := self._known()) is None:
            return
        old = self.model[path]
        size = self._rng.randrange(2 * len(old) + 2)
        inode = (await find(self._vfs, path)).inode
        await self._vfs.setattr(SetAttr(inode=inode, size=size))
        self.model[path] = old[:size].ljust(size, b"\0")

    async def punch(self) -> None:
        if (path := self._known()) is None:
            return
        old = self.model[path]
        offset, length = self._rng.randrange(len(old) + 1), self._rng.randrange(1, 100_000)
        async with opened(self._vfs, path) as handle:
            mode = FALLOC_PUNCH_HOLE | FALLOC_KEEP_SIZE
            await self._vfs.fallocate(handle, mode, offset, length)
        end = min(offset + length, len(old))
        self.model[path] = old[:offset] + bytes(end - offset) + old[end:]

    async def copy(self) -> None:
        """A part of a file goes into another one, or elsewhere into itself."""
        path, target = self._known(), self._known()
        if path is None or target is None:
            return
        data, old = self.model[path], self.model[target]
        start, offset = self._rng.randrange(len(data) + 1), self._rng.randrange(len(old) + 1000)
        length = min(self._rng.randrange(1, 200_000), len(data) - start)
        if path == target and abs(start - offset) < length:
            return
        async with opened(self._vfs, path) as source, opened(self._vfs, target) as handle:
            done = 0
            while done < length:
                done += await self._vfs.copy_range(
                    source, start + done, handle, offset + done, length - done
                )
            await self._vfs.fsync(handle)
        if length:
            padded = old.ljust(offset, b"\0")
            copied = data[start : start + length]
            self.model[target] = padded[:offset] + copied + padded[offset + length :]

    async def borrow(self) -> None:
        """A clone of a file of the other client, who may be changing it."""
        if (path := self.neighbour._known()) is None:
            return
        target = self._path()
        await write_file(self._vfs, target, b"", sync=True)
        self.model[target] = b""
        with suppress(NoEntry):  # removed or renamed meanwhile
            async with opened(self._vfs, path) as source, opened(self._vfs, target) as handle:
                await self._vfs.copy_range(source, 0, handle, 0, 1 << 40)
                await self._vfs.fsync(handle)
        self.model[target] = await read_file(self._vfs, target)

    async def link_unnamed(self) -> None:
        path = self._path()
        if path in self.model:
            return
        directory = (await find(self._vfs, self.name)).inode
        data = self._rng.randbytes(self._rng.choice([0, 100, 100_000]))
        handle, attr = await self._vfs.tmpfile(directory, 0o600, os.O_RDWR, 0, 0, 0)
        await self._vfs.write(handle, 0, data)
        await self._vfs.fsync(handle)
        if self._rng.random() < 0.7:
            await self._vfs.link(attr.inode, directory, path.rpartition("/")[2].encode())
            self.model[path] = data
        await self._vfs.release(handle)

    async def rename(self) -> None:
        path, target = self._known(), self._path()
        if path is None or path == target:
            return
        directory = (await find(self._vfs, self.name)).inode
        old, new = (each.rpartition("/")[2].encode() for each in (path, target))
        await self._vfs.rename(directory, old, directory, new, 0)
        self.model[target] = self.model.pop(path)

    async def remove(self) -> None:
        if (path := self._known()) is None:
            return
        directory = (await find(self._vfs, self.name)).inode
        await self._vfs.unlink(directory, path.rpartition("/")[2].encode())
        del self.model[path]

    async def read(self) -> None:
        if (path := self._known()) is not None:
            assert await read_file(self._vfs, path) == self.model[path], path


@pytest.mark.parametrize("seed", seeds(25))
async def test_seed(
    autojump_clock: MockClock, tolerate_log: Callable[[str], None], seed: int
) -> None:
    for pattern in EXPECTED_LOGS:
        tolerate_log(pattern)
    rng = random.Random(seed)
    async with running_cluster(rng) as cluster:
        nemesis = Nemesis(cluster, random.Random(f"nemesis {seed}"))
        async with cluster.client("a") as one, cluster.client("b") as other:
            workers = [
                Worker("a", one, random.Random(f"a {seed}")),
                Worker("b", other, random.Random(f"b {seed}")),
            ]
            workers[0].neighbour, workers[1].neighbour = workers[1], workers[0]
            async with trio.open_nursery() as nursery:
                nursery.start_soon(nemesis.run)
                async with trio.open_nursery() as work:
                    for worker in workers:
                        work.start_soon(worker.run)
                nursery.cancel_scope.cancel()
            cluster.set_faults(Faults())
            await _check(cluster, {**workers[0].model, **workers[1].model})


async def _check(cluster: Cluster, files: dict[str, bytes]) -> None:
    await cluster.until(fully_replicated, HEAL_WITHIN_S)
    async with cluster.client("checker") as checker:
        found = {
            f"{directory}/{name.decode()}"
            for directory in ("a", "b")
            for name in await names(checker.vfs, directory)
        }
        assert found == set(files)
        for path, data in files.items():
            assert await read_file(checker.vfs, path) == data, path
    assert (await cluster.fsck()).findings == []
