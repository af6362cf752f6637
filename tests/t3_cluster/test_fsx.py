"""fsx below the kernel: random operations of tests/fsx through the vfs of two clients, by seed.

No kernel's cache is between, so what fails here is ours.  With odd seeds the network loses and
repeats requests and replies, and in every second pair of seeds daemons are killed and started
again.  DFS_FSX_SEEDS=first:count runs other seeds.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Sequence

import pytest
import trio
from trio.testing import MockClock

from dfsmount.vfs import Vfs
from dfswire.errors import NoData
from dfswire.messages import ROOT_INODE
from dfswire.operations import SetAttr
from tests.fakes import Faults
from tests.fsx.model import Model
from tests.fsx.operations import SMALL, SPARSE, Chooser, Operation, Shape
from tests.fsx.player import fill_bytes
from tests.fsx.system import MODES
from tests.t3_cluster.cluster import Cluster, fully_replicated, running_cluster

OPERATIONS = 600
FILES = 2
FIRST, _, COUNT = os.environ.get("DFS_FSX_SEEDS", "0:5").partition(":")
SEEDS = range(int(FIRST), int(FIRST) + int(COUNT or 1))
TRACE = 15
TROUBLE = 0.01  # of the operations are followed by some
HEAL_WITHIN_S = 600.0
KINDS = [
    *("read", "write", "append", "truncate", *MODES, "copy", "seek", "look", "sync"),
    *("sync_data", "reopen", "check"),
]


class Player:
    """The operations of fsx on open files of several clients; compares with a model."""

    def __init__(self, clients: Sequence[Vfs], inodes: Sequence[int]) -> None:
        self.models = [Model() for _ in inodes]
        self._clients = clients
        self._inodes = inodes
        self._handles: dict[tuple[int, int, int], int] = {}
        self.trace: list[str] = []

    async def play(self, operation: Operation) -> None:
        number, view, *rest = operation.args
        self.trace.append(str(operation))
        if operation.kind in MODES:
            await self._fallocate(operation.kind, number, view, *rest)
        else:
            await getattr(self, f"_{operation.kind}")(number, view, *rest)

    async def close(self) -> None:
        for (_, view, _), handle in self._handles.items():
            await self._clients[view].flush(handle)
            await self._clients[view].release(handle)
        self._handles.clear()

    async def _handle(self, number: int, view: int, flags: int = os.O_RDWR) -> tuple[Vfs, int]:
        vfs = self._clients[view]
        if (number, view, flags) not in self._handles:
            handle = await vfs.open(self._inodes[number], flags)
            self._handles[number, view, flags] = handle
        return vfs, self._handles[number, view, flags]

    def _must(self, holds: bool, what: str) -> None:
        assert holds, "\n".join([what, *self.trace[-TRACE:]])

    async def _read(self, number: int, view: int, offset: int, length: int) -> None:
        vfs, handle = await self._handle(number, view)
        got = bytes(await vfs.read(handle, offset, length))
        wanted = self.models[number].read(offset, length)
        self._must(len(got) == len(wanted), f"{len(got)} bytes instead of {len(wanted)}")
        if got != wanted:
            place = next(at for at in range(len(got)) if got[at] != wanted[at])
            self._must(False, f"wrong from {offset + place}: {got[place : place + 8].hex()}")

    async def _write(self, number: int, view: int, offset: int, length: int, fill: int) -> None:
        vfs, handle = await self._handle(number, view)
        data = fill_bytes(fill, length)
        self._must(await vfs.write(handle, offset, data) == length, "a short write")
        self.models[number].write(offset, data)

    async def _append(self, number: int, view: int, length: int, fill: int) -> None:
        vfs, handle = await self._handle(number, view, os.O_RDWR | os.O_APPEND)
        data = fill_bytes(fill, length)
        await vfs.write(handle, self.models[number].size, data)
        self.models[number].write(self.models[number].size, data)

    async def _truncate(self, number: int, view: int, size: int) -> None:
        await self._clients[view].setattr(SetAttr(inode=self._inodes[number], size=size))
        self.models[number].truncate(size)

    async def _fallocate(self, kind: str, number: int, view: int, offset: int, length: int) -> None:
        vfs, handle = await self._handle(number, view)
        await vfs.fallocate(handle, MODES[kind], offset, length)
        model = self.models[number]
        if kind in ("allocate", "zero"):
            model.truncate(max(model.size, offset + length))
        if not kind.startswith("allocate"):
            model.zero(offset, length)

    async def _copy(
        self, number: int, view: int, offset: int, target: int, target_offset: int, length: int
    ) -> None:
        data = self.models[number].read(offset, length)
        if number == target and abs(offset - target_offset) < length:
            return
        vfs, source = await self._handle(number, view)
        _, sink = await self._handle(target, view)
        done = 0
        while done < len(data):
            count = await vfs.copy_range(
                source, offset + done, sink, target_offset + done, len(data) - done
            )
            self._must(count > 0, f"{done} of {len(data)} bytes copied")
            done += count
        self._must(done == len(data), f"{done} bytes copied instead of {len(data)}")
        self.models[target].write(target_offset, data)

    async def _seek(self, number: int, view: int, offset: int, hole: int) -> None:
        model = self.models[number]
        found = await self._seek_for(number, view, offset, os.SEEK_HOLE if hole else os.SEEK_DATA)
        if offset >= model.size:
            self._must(found is None, f"{found} found behind the end")
        elif hole:
            self._must(found is not None and offset <= found <= model.size, f"a hole at {found}")
            assert found is not None
            data = await self._seek_for(number, view, found, os.SEEK_DATA)
            self._must(model.is_zero(found, data or model.size), f"no hole: {found} to {data}")
        else:
            self._must(found is None or offset <= found < model.size, f"data at {found}")
            end = model.size if found is None else found
            self._must(model.is_zero(offset, end), f"no hole: {offset} to {found}")

    async def _seek_for(self, number: int, view: int, offset: int, whence: int) -> int | None:
        vfs, handle = await self._handle(number, view)
        try:
            return await vfs.seek(handle, offset, whence)
        except NoData:
            return None

    async def _look(self, number: int, view: int) -> None:
        size = (await self._clients[view].getattr(self._inodes[number])).size
        wanted = self.models[number].size
        self._must(size == wanted, f"the size is {size} instead of {wanted}")

    async def _sync(self, number: int, view: int) -> None:
        vfs, handle = await self._handle(number, view)
        await vfs.fsync(handle)

    _sync_data = _sync

    async def _reopen(self, number: int, view: int) -> None:
        for key in [key for key in self._handles if key[:2] == (number, view)]:
            handle = self._handles.pop(key)
            await self._clients[view].flush(handle)
            await self._clients[view].release(handle)

    async def _check(self, number: int, view: int) -> None:
        await self._look(number, view)
        for start in {*self.models[number].islands(), self.models[number].size}:
            await self._read(number, view, start, 65_536)


async def _trouble(cluster: Cluster, rng: random.Random) -> None:
    """A daemon is killed, and comes back while the operations go on."""
    pause_s = rng.choice([0.0, 1.0, 5.0])
    if rng.random() < 0.5:
        await cluster.kill_metad()
        await trio.sleep(pause_s)
        await cluster.start_metad()
        return
    number = rng.randrange(len(cluster.stores))
    await cluster.until(fully_replicated, HEAL_WITHIN_S)
    if cluster.runs(number):
        await cluster.kill_chunkd(number)
        await trio.sleep(pause_s)
        await cluster.start_chunkd(number)


@pytest.mark.parametrize("clients", [1, 2])
@pytest.mark.parametrize("shape", [SMALL, SPARSE], ids=["small", "sparse"])
@pytest.mark.parametrize("seed", SEEDS)
async def test_seed(
    autojump_clock: MockClock,
    tolerate_log: Callable[[str], None],
    seed: int,
    shape: Shape,
    clients: int,
) -> None:
    tolerate_log("metad at metad:1 does not answer")
    tolerate_log("chunk")
    tolerate_log("replica")
    tolerate_log("the lease ended")  # metad was away for longer
    rng = random.Random(f"fsx {seed}")
    async with (
        running_cluster(random.Random(seed)) as cluster,
        cluster.client("a") as one,
        cluster.client("b") as other,
    ):
        inodes = []
        for number in range(FILES):
            name = b"f%d" % number
            handle, attr = await one.vfs.create(ROOT_INODE, name, 0o644, os.O_RDWR, 0, 0)
            await one.vfs.release(handle)
            inodes.append(attr.inode)
        if seed % 2:
            cluster.set_faults(
                Faults(lost_request=0.01, lost_reply=0.02, duplicate=0.05, delay=0.02)
            )
        player = Player([one.vfs, other.vfs][:clients], inodes)
        chooser = Chooser(rng, shape, KINDS, clients, FILES)
        for _ in range(OPERATIONS):
            await player.play(chooser.draw(player.models))
            if seed % 4 > 1 and rng.random() < TROUBLE:
                await _trouble(cluster, rng)
        for number in range(FILES):
            for view in range(clients):
                await player.play(Operation("check", (number, view)))
        await player.close()
        cluster.set_faults(Faults())
        assert (await cluster.fsck()).findings == []
