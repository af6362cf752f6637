"""The users: clients that carry out the steps of a schedule and write down what they are told.

Each client owns a few files, which only it changes and everybody reads.  All append to one log,
increment one counter under a lock, and fight for a few names.  A client that dies is started again
as another mount and goes on with its next step.
"""

from __future__ import annotations

import os
import stat
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import trio

from dfsmount.client import FileSystem
from dfsmount.files.durability import WAIT_MAX_S
from dfsmount.vfs import Vfs
from dfswire.errors import DFSError, Exists, InputOutput, NoEntry
from dfswire.locks import LockType, Range
from dfswire.messages import ROOT_INODE
from dfswire.operations import SetAttr
from tests.simulation.cluster import Cluster
from tests.simulation.history import (
    EXISTS,
    Change,
    Counter,
    FileHistory,
    Log,
    Moments,
    Violation,
    pattern,
)
from tests.simulation.linear import NameOperation
from tests.simulation.oracle import Oracle
from tests.simulation.schedule import (
    CELL_BYTES,
    CELLS,
    FILES,
    NAMES,
    WRITING,
    Schedule,
    Step,
)

RECORD_BYTES = 64
RESTART_PAUSE_S = 1.0
LOCK_WAIT_S = 30.0
LOG, COUNTER, FIGHT = b"log", b"counter", b"fight"


class Records:
    """Everything that is written down, for all clients."""

    def __init__(self, schedule: Schedule) -> None:
        self.moments = Moments()
        self.files = {
            (client, number): FileHistory(f"c{client}f{number}")
            for client in range(schedule.shape.clients)
            for number in range(FILES)
        }
        self.log = Log()
        self.counter = Counter()
        self.names: list[NameOperation] = []
        self.errors = 0
        self.inside: str | None = None  # who holds the lock, as far as anybody knows
        self.log_inode = self.counter_inode = self.fight_inode = 0


async def prepare(vfs: Vfs, records: Records) -> None:
    """The files and the directory that all use."""
    attr = await vfs.make(ROOT_INODE, LOG, stat.S_IFREG | 0o644, 0, 0)
    records.log_inode = attr.inode
    handle, attr = await vfs.create(ROOT_INODE, COUNTER, 0o644, os.O_RDWR, 0, 0)
    records.counter_inode = attr.inode
    await vfs.write(handle, 0, b"%08d" % 0)
    await vfs.fsync(handle)
    await vfs.release(handle)
    records.fight_inode = (await vfs.mkdir(ROOT_INODE, FIGHT, 0o755, 0, 0)).inode


class User:
    """One client's work.  `kill` ends its process without a word."""

    def __init__(
        self, cluster: Cluster, schedule: Schedule, number: int, records: Records, oracle: Oracle
    ) -> None:
        self.number = number
        self.done = False
        self.party = f"client{number}"
        self._cluster = cluster
        steps = schedule.steps[number]
        # Two threads of one program: a slow write does not keep it from looking at other things.
        self._threads = [
            deque(step for step in steps if step.kind in WRITING),
            deque(step for step in steps if step.kind not in WRITING),
        ]
        self._calm = schedule.calm
        self._soft_s = 12.0 if schedule.soft[number] else 0.0
        self._records = records
        self._oracle = oracle
        self._moments = records.moments
        self._lives = 0
        self._scope = trio.CancelScope()
        self._alive = False
        self._writes = number * 1000
        self.given_up = 0  # fsyncs of what power cuts had taken before it was synced

    def kill(self) -> None:
        if self._alive:
            self._cluster.network.bury(self.party)
            self._scope.cancel()

    async def run(self) -> None:
        while any(self._threads):
            self._lives += 1
            if self._lives > 1:
                self.party = f"client{self.number}.{self._lives}"
                await trio.sleep(RESTART_PAUSE_S)
            # Where metad is away there is no session, and the mount is tried again.
            with trio.CancelScope() as self._scope, suppress(DFSError):
                async with self._cluster.client(self.party, self._soft_s) as file_system:
                    self._alive = True
                    try:
                        await self._work(file_system)
                    finally:
                        self._alive = False
        self.done = True

    def trace(self, text: str) -> None:
        self._cluster.trace(f"{self.party} {text}")

    async def _work(self, file_system: FileSystem) -> None:
        async with trio.open_nursery() as nursery:
            for thread in self._threads:
                nursery.start_soon(self._run_thread, file_system, thread)

    async def _run_thread(self, file_system: FileSystem, steps: deque[Step]) -> None:
        while steps:
            await trio.sleep(steps[0].pause_s)
            step = steps.popleft()  # also when it dies in the middle of it
            self.trace(f"{step} ...")
            act: Callable[[Vfs, Step], Awaitable[str]] = getattr(self, f"_{step.kind}")
            began = trio.current_time()
            try:
                result = await act(file_system.vfs, step)
            except DFSError as problem:
                self._records.errors += 1
                waited_s = trio.current_time() - began
                self.given_up += isinstance(problem, InputOutput) and waited_s >= WAIT_MAX_S
                result = f"{type(problem).__name__}: {problem}"
                if self._calm:
                    raise Violation("I9", f"{self.party} {step} sees {result}") from problem
            self.trace(f"{step} -> {result}")

    # -- files that one client writes

    def _mine(self, step: Step) -> FileHistory:
        return self._records.files[self.number, step.file % FILES]

    @asynccontextmanager
    async def _changing(
        self, history: FileHistory, values: dict[int, int | None]
    ) -> AsyncIterator[Change]:
        change = Change(values, self._moments.next())
        history.changes.append(change)
        try:
            yield change
            change.done = True
        finally:
            change.ended = self._moments.next()

    async def _put(self, vfs: Vfs, step: Step) -> str:
        history = self._mine(step)
        first = CELLS[step.cell]
        cells = range(first, first + step.cells)
        self._writes += 1
        number = self._writes
        data = b"".join(pattern(history.name, number, cell) for cell in cells)
        values: dict[int, int | None] = dict.fromkeys(cells, number)
        async with self._changing(history, values | {EXISTS: 1}) as change:
            name = history.name.encode()
            handle, attr = await vfs.create(ROOT_INODE, name, 0o644, os.O_RDWR, 0, 0)
            try:
                await vfs.write(handle, first * CELL_BYTES, data)
                if step.sync:
                    await vfs.fsync(handle)
                    self._oracle.promised(attr.inode, first * CELL_BYTES, len(data))
                await vfs.flush(handle)
            finally:
                await vfs.release(handle)
            change.synced = step.sync
        return f"write {number}"

    async def _cut(self, vfs: Vfs, step: Step) -> str:
        history = self._mine(step)
        first = CELLS[step.cell]
        values: dict[int, int | None] = dict.fromkeys(range(first, 70))
        found = await vfs.lookup(ROOT_INODE, history.name.encode())
        if found is None:
            history.check_existence(False, self._moments.next(), self._moments.next())
            return "not there"
        async with self._changing(history, values) as change:
            await vfs.setattr(SetAttr(inode=found.inode, size=first * CELL_BYTES))
            change.synced = True  # metadata
        return "ok"

    async def _remove(self, vfs: Vfs, step: Step) -> str:
        history = self._mine(step)
        values: dict[int, int | None] = dict.fromkeys(range(70))
        async with self._changing(history, values | {EXISTS: 0}) as change:
            try:
                await vfs.unlink(ROOT_INODE, history.name.encode())
            except NoEntry:
                history.check_existence(False, change.began, self._moments.next())
                change.void = True
                return "not there"
            change.synced = True
        return "ok"

    async def _get(self, vfs: Vfs, step: Step) -> str:
        owners = len(self._records.files) // FILES
        return await self.read(vfs, self._records.files[step.other % owners, step.file % FILES])

    async def read(self, vfs: Vfs, history: FileHistory) -> str:
        """All of a file, and check it."""
        began = self._moments.next()
        try:
            found = await vfs.lookup(ROOT_INODE, history.name.encode())
            if found is None:
                raise NoEntry(history.name)
            handle = await vfs.open(found.inode, os.O_RDONLY)
        except NoEntry:
            history.check_existence(False, began, self._moments.next())
            return "not there"
        try:
            size = (await vfs.getattr(found.inode)).size
            data = bytes(await vfs.read(handle, 0, 70 * CELL_BYTES))
        finally:
            await vfs.release(handle)
        ended = self._moments.next()
        history.check_existence(True, began, ended)
        if size % CELL_BYTES or len(data) % CELL_BYTES:
            raise Violation("I2", f"{history.name} has {size} bytes, {len(data)} read")
        for cell in range(70):
            history.check(cell, data[cell * CELL_BYTES : (cell + 1) * CELL_BYTES], began, ended)
        return f"{len(data)} bytes"

    # -- what all write

    async def _append(self, vfs: Vfs, step: Step) -> str:
        log = self._records.log
        record = f"<{self.party} step {step.number}>".encode().ljust(RECORD_BYTES - 1) + b"\n"
        log.attempted.add(record)
        handle = await vfs.open(self._records.log_inode, os.O_WRONLY | os.O_APPEND)
        try:
            await vfs.write(handle, 0, record)
            await vfs.fsync(handle)
            await vfs.flush(handle)
        finally:
            await vfs.release(handle)
        log.acknowledged.add(record)
        return "ok"

    async def _count(self, vfs: Vfs, step: Step) -> str:
        counter = self._records.counter
        owner = step.number + 1
        handle = await vfs.open(self._records.counter_inode, os.O_RDWR)
        try:
            with trio.move_on_after(LOCK_WAIT_S) as waiting:
                await vfs.set_lock(handle, owner, 1, Range(type=LockType.WRITE), True)
            if waiting.cancelled_caught:
                return "no lock"
            value = int(bytes(await vfs.read(handle, 0, 8)))
            counter.attempted += 1
            await vfs.write(handle, 0, b"%08d" % (value + 1))
            await vfs.fsync(handle)
            await vfs.flush(handle, owner)
        finally:
            await vfs.release(handle)
        counter.acknowledged += 1
        return f"{value + 1}"

    # -- names that all change

    @asynccontextmanager
    async def _naming(self, kind: str, step: Step, inode: int = 0) -> AsyncIterator[NameOperation]:
        op = NameOperation(
            self.number,
            kind,
            step.file % NAMES,
            step.other % NAMES,
            self._moments.next(),
            inode=inode,
        )
        self._records.names.append(op)
        try:
            yield op
        except NoEntry:
            op.answer = "missing"
        except Exists:
            op.answer = "exists"
        if op.answer is not None:
            op.ended = self._moments.next()

    async def _create(self, vfs: Vfs, step: Step) -> str:
        async with self._naming("create", step) as op:
            attr = await vfs.make(
                self._records.fight_inode, b"n%d" % op.name, stat.S_IFREG | 0o644, 0, 0
            )
            op.inode, op.answer = attr.inode, "ok"
        return f"{op.answer} {op.inode}"

    async def _unlink(self, vfs: Vfs, step: Step) -> str:
        async with self._naming("unlink", step) as op:
            await vfs.unlink(self._records.fight_inode, b"n%d" % op.name)
            op.answer = "ok"
        return str(op.answer)

    async def _rename(self, vfs: Vfs, step: Step) -> str:
        fight = self._records.fight_inode
        async with self._naming("rename", step) as op:
            await vfs.rename(fight, b"n%d" % op.name, fight, b"n%d" % op.other, 0)
            op.answer = "ok"
        return str(op.answer)

    async def _look(self, vfs: Vfs, step: Step) -> str:
        async with self._naming("look", step) as op:
            found = await vfs.lookup(self._records.fight_inode, b"n%d" % op.name)
            op.answer = found.inode if found is not None else 0
        return str(op.answer)

    async def _link(self, vfs: Vfs, step: Step) -> str:
        async with self._naming("look", step) as look:
            found = await vfs.lookup(self._records.fight_inode, b"n%d" % look.name)
            look.answer = found.inode if found is not None else 0
        if found is None:
            return "not there"
        async with self._naming("link", step, found.inode) as op:
            await vfs.link(found.inode, self._records.fight_inode, b"n%d" % op.other)
            op.answer = "ok"
        return str(op.answer)

    async def _list(self, vfs: Vfs, step: Step) -> str:
        async with self._naming("list", step) as op:
            op.answer = await listing(vfs, self._records.fight_inode)
        return str(op.answer)


async def listing(vfs: Vfs, directory: int) -> tuple[int, ...]:
    """The inode behind each of the names that are fought for, from one page of a listing."""
    handle = await vfs.opendir(directory)
    try:
        found = {entry.name: entry.attr.inode for entry in await vfs.readdir(handle, 0)}
    finally:
        vfs.releasedir(handle)
    return tuple(found.get(b"n%d" % number, 0) for number in range(NAMES))
