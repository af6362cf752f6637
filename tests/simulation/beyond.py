"""Beyond what is promised to survive: every copy of some chunks is damaged, and the rest must hold.

The simulation of simulate.py damages replicas - 1 machines of a run; this mode has no such limit.
Files are written and fsynced, then copies are destroyed, then the cluster is left to notice.  What
can be put together must be whole again, what cannot must be EIO in exactly the blocks that
groundtruth.py calls lost, and the reports must name exactly these.  Then the owner of the files
restores or removes them, and nothing may stay behind.
"""

from __future__ import annotations

import os
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import trio

from dfsmount.vfs import Vfs
from dfswire.admin import RemoveTarget
from dfswire.errors import DFSError, InputOutput
from dfswire.messages import ROOT_INODE
from tests.simulation.beyondplan import TROUBLES_S, Plan, Trouble
from tests.simulation.beyondreports import Reports
from tests.simulation.cluster import BLOCK_BYTES, METAD, RECLAIM_GRACE_S, Cluster
from tests.simulation.groundtruth import GroundTruth, Ranges, touches
from tests.simulation.history import Violation
from tests.simulation.oracle import Oracle
from tests.simulation.running import Result, Tracer, until, watched
from tests.simulation.spoiling import Spoiler

WITHIN_S = 150.0  # for each thing that is waited for
ALL_WITHIN_S = 1000.0
QUIET_S = 3.0  # in which nothing is compacted any more
READS = 25  # of random ranges, while the damage is being found
STAYS_S = 30.0  # what was reported stays so


def simulate(plan: Plan, *, keep_trace: bool = False, messages: bool = False) -> Result:
    """Run a plan; never raises because of what the cluster does."""
    result = Result(plan.seed, faults=len(plan.troubles))
    return watched(
        result,
        f"beyond {plan.seed}",
        lambda tracer: _run(plan, tracer, result),
        keep_trace=keep_trace,
        messages=messages,
    )


async def _run(plan: Plan, tracer: Tracer, result: Result) -> None:
    with trio.move_on_after(ALL_WITHIN_S) as scope:
        async with trio.open_nursery() as nursery:
            try:
                await Beyond(nursery, plan, tracer, result).everything()
            finally:
                result.virtual_s = trio.current_time()
            nursery.cancel_scope.cancel()
    if scope.cancelled_caught and result.virtual_s >= ALL_WITHIN_S:
        raise Violation("I9", f"something does not end within {ALL_WITHIN_S:g} s")


class Beyond:
    """The phases."""

    def __init__(self, nursery: trio.Nursery, plan: Plan, tracer: Tracer, result: Result) -> None:
        self._plan = plan
        self._trace = tracer
        self._result = result
        self._rng = random.Random(f"beyond {plan.seed}")
        self._cluster = Cluster(nursery, f"beyond {plan.seed}", plan.shape, tracer)
        self._oracle = Oracle(self._cluster)
        self._truth = GroundTruth(self._cluster)
        self._contents: dict[int, bytes] = {}
        self._inodes: dict[bytes, int] = {}
        self._lost: dict[int, Ranges] = {}
        self._may_fail: dict[int, Ranges] = {}  # lost, or not put together, or not served
        self._reports = Reports(self._ask, self._truth, self._lost, self._inodes)

    async def everything(self) -> None:
        await self._cluster.start()
        async with self._cluster.client("writer") as writer:
            await self._write_all(writer.vfs)
        await self._settled()
        self._truth.remember(self._contents)
        await self._damage()
        async with self._cluster.client("reader") as reader, trio.open_nursery() as nursery:
            nursery.start_soon(self._read_meanwhile, reader.vfs)
            nursery.start_soon(self._trouble)
        await until(self._not_healed, lambda: WITHIN_S, "not healed")
        await self._reports.become_exact()
        self._may_fail = self._truth.ranges(self._truth.hidden_blocks())
        await trio.sleep(STAYS_S)
        await self._reports.become_exact()
        async with self._cluster.client("checker") as checker:
            await self._read_everything(checker.vfs)
            await self._repair_files(checker.vfs)
        self._cluster.clocks.skipped_s += RECLAIM_GRACE_S  # in which nothing would happen
        await until(self._not_tidy, lambda: WITHIN_S, "not tidy")
        self._trace("everything is tidy")
        await self._cluster.kill_metad()

    # -- the files

    async def _write_all(self, vfs: Vfs) -> None:
        for file in self._plan.files:
            handle, attr = await vfs.create(ROOT_INODE, file.name, 0o644, os.O_RDWR, 0, 0)
            content = bytearray()
            for write in file.writes:
                await vfs.write(handle, write.offset, write.data)
                await vfs.fsync(handle)
                content += bytes(max(write.offset + write.length - len(content), 0))
                content[write.offset : write.offset + write.length] = write.data
            await vfs.release(handle)
            if file.second_name:
                await vfs.link(attr.inode, ROOT_INODE, file.name + b"-2")
            self._contents[attr.inode], self._inodes[file.name] = bytes(content), attr.inode

    async def _settled(self) -> None:
        """Redundancy is full, and no file is compacted any more."""
        while True:
            await until(lambda: self._oracle.unhealthy(set()), lambda: WITHIN_S, "not settled")
            before = self._truth.extents()
            await trio.sleep(QUIET_S)
            if self._truth.extents() == before and not self._oracle.unhealthy(set()):
                return

    # -- the damage

    async def _damage(self) -> None:
        plan, cluster = self._plan, self._cluster
        for number in sorted(plan.lost_disks):
            await cluster.kill_chunkd(cluster.machines[number])
        for number in sorted(plan.lost_disks):
            self._trace(f"SPOIL machine {number} loses its disk")
            cluster.machines[number].disk.wipe()
        spoiler = Spoiler(self._rng, self._trace)
        for chunk, original in sorted(self._truth.originals.items()):
            (fate,) = self._rng.choices(list(plan.fates), list(plan.fates.values()))
            holders = [each for each in cluster.machines if each.disk.has(chunk)]
            spoiler.spoil(fate, chunk, original, holders)
        self._lost.update(self._truth.ranges(self._truth.lost_blocks()))
        self._may_fail = self._truth.ranges(self._truth.spoilt_blocks())
        for inode, ranges in self._lost.items():
            self._trace(f"LOST inode {inode}: {ranges}")
        for number in plan.wiped:
            await cluster.start_chunkd(cluster.machines[number])

    async def _trouble(self) -> None:
        """What else happens; in the end all machines run that are to come back."""
        async with trio.open_nursery() as nursery:
            for trouble in self._plan.troubles:
                nursery.start_soon(self._carry_out, trouble)
            if self._plan.removed is not None:
                nursery.start_soon(self._remove_server, self._plan.removed)

    async def _carry_out(self, trouble: Trouble) -> None:
        await trio.sleep(trouble.at_s)
        cluster, machine = self._cluster, self._cluster.machines[trouble.target]
        self._trace(f"TROUBLE {trouble}")
        if trouble.kind == "kill_metad":
            await cluster.kill_metad()
            await trio.sleep(trouble.for_s)
            await cluster.start_metad()
        elif machine.process is not None:
            await (cluster.cut_power if trouble.kind == "cut_power" else cluster.kill_chunkd)(
                machine
            )
            await trio.sleep(trouble.for_s)
            await cluster.start_chunkd(machine)

    async def _remove_server(self, number: int) -> None:
        """Nobody knows what it has until an operator says that it does not come back."""
        await trio.sleep(TROUBLES_S)
        while True:
            try:
                await self._ask(
                    "admin.remove", RemoveTarget(server=f"server{number}", accept_loss=True)
                )
            except DFSError as problem:
                self._trace(f"server{number} is not removed: {problem}")
                await trio.sleep(1.0)
            else:
                return

    # -- reading

    async def _read_meanwhile(self, vfs: Vfs) -> None:
        await trio.sleep(self._plan.read_after_s)
        for _ in range(READS):
            inode = self._rng.choice(list(self._contents))
            size = len(self._contents[inode])
            start = self._rng.randrange(size)
            end = min(size, start + self._rng.choice([1, 5000, BLOCK_BYTES, 4 * BLOCK_BYTES]))
            async with _opened(vfs, inode) as handle:
                await self._read(vfs, handle, inode, start, end)
            await trio.sleep(self._rng.choice([0.0, 0.1, 1.0]))

    async def _read_everything(self, vfs: Vfs) -> None:
        """Each block of each file by itself, then each file in pieces of all sizes."""
        for inode, content in self._contents.items():
            async with _opened(vfs, inode) as handle:
                for size in (BLOCK_BYTES, 5 * BLOCK_BYTES, len(content)):
                    for start in range(0, len(content), size):
                        end = min(start + size, len(content))
                        await self._read(vfs, handle, inode, start, end)

    async def _read(self, vfs: Vfs, handle: int, inode: int, start: int, end: int) -> None:
        """Raise Violation unless the answer is the right one: the bytes, or EIO."""
        may_fail = touches(self._may_fail.get(inode, ()), start, end)
        is_lost = touches(self._lost.get(inode, ()), start, end)
        try:
            found = bytes(await vfs.read(handle, start, end - start))
        except InputOutput as problem:
            self._result.errors += 1
            if not may_fail:
                text = f"inode {inode}: {start}-{end} is on the disks, and gives {problem!r}"
                raise Violation("F30", text) from problem
            return
        if found != self._contents[inode][start:end]:
            raise Violation("I2", f"inode {inode}: wrong bytes in {start}-{end}")
        if is_lost:
            raise Violation("I2", f"inode {inode}: {start}-{end} is lost, and can be read")

    # -- asking

    async def _ask(self, call: str, request: Any) -> Any:
        return await self._cluster.client_of("operator").call(call, METAD, request)

    def _not_healed(self) -> list[str]:
        """Chunks that can be made whole and are not, and reports that are not exact yet."""
        if self._cluster.metad is None:
            return ["metad is not running"]
        return self._oracle.unhealthy(set(self._truth.lost_blocks()))

    # -- the end

    async def _repair_files(self, vfs: Vfs) -> None:
        """What is lost is written anew, or the file is removed; then nothing is missed."""
        for file in self._plan.files:
            inode = self._inodes[file.name]
            ranges = self._lost.pop(inode, ())
            if ranges and file.restored:
                self._trace(f"inode {inode} is restored")
                async with _opened(vfs, inode) as handle:
                    for start, end in ranges:
                        await vfs.write(handle, start, self._contents[inode][start:end])
                    await vfs.fsync(handle)
            elif ranges:
                self._trace(f"inode {inode} is removed")
                await self._remove(vfs, file.name, second_name=file.second_name)
                del self._contents[inode]
        await self._reports.nothing_is_lost()
        await self._read_everything(vfs)
        for file in self._plan.files:
            if self._inodes[file.name] in self._contents:
                await self._remove(vfs, file.name, second_name=file.second_name)

    async def _remove(self, vfs: Vfs, name: bytes, *, second_name: bool) -> None:
        await vfs.unlink(ROOT_INODE, name)
        if second_name:
            await vfs.unlink(ROOT_INODE, name + b"-2")

    def _not_tidy(self) -> list[str]:
        return self._oracle.untidy() or self._oracle.unhealthy(set())


@asynccontextmanager
async def _opened(vfs: Vfs, inode: int) -> AsyncIterator[int]:
    handle = await vfs.open(inode, os.O_RDWR)
    try:
        yield handle
    finally:
        await vfs.release(handle)
