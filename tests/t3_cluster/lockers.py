"""Processes of several clients that lock a file of one cluster."""

from __future__ import annotations

import os
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import trio

from dfsmount.client import FileSystem
from dfswire.errors import DFSError
from dfswire.locks import LOCK_END_MAX, LockType, Range
from tests.t3_cluster.cluster import Cluster, pair
from tests.t3_cluster.files import find, write_file

READ, WRITE, UNLOCK = LockType.READ, LockType.WRITE, LockType.UNLOCK


@dataclass
class Opened:
    """One open(2) of a file by one process."""

    client: FileSystem
    inode: int
    handle: int
    owner: int
    pid: int = 1000

    async def lock(
        self, kind: LockType, start: int = 0, end: int = LOCK_END_MAX, *, wait: bool = True
    ) -> None:
        """fcntl(2)."""
        wanted = Range(type=kind, start=start, end=end)
        await self.client.vfs.set_lock(self.handle, self.owner, self.pid, wanted, wait)

    async def flock(self, kind: LockType, *, wait: bool = True) -> None:
        await self.client.vfs.flock(self.handle, self.owner, kind, wait, self.pid)

    async def who(self, kind: LockType = WRITE) -> Range | None:
        """F_GETLK."""
        return await self.client.vfs.get_lock(self.inode, self.owner, Range(type=kind))

    async def read(self, length: int = 1000) -> bytes:
        return bytes(await self.client.vfs.read(self.handle, 0, length))

    async def write(self, data: bytes, offset: int = 0) -> None:
        await self.client.vfs.write(self.handle, offset, data)

    async def close(self) -> None:
        await self.client.vfs.flush(self.handle, self.owner)
        await self.client.vfs.release(self.handle, self.owner)


async def open_file(client: FileSystem, path: str = "f", owner: int = 1) -> Opened:
    inode = (await find(client.vfs, path)).inode
    return Opened(client, inode, await client.vfs.open(inode, os.O_RDWR), owner)


@asynccontextmanager
async def two_openers(
    rng: random.Random,
) -> AsyncIterator[tuple[Cluster, Opened, Opened]]:
    async with pair(rng) as (cluster, one, other):
        await write_file(one.vfs, "f", b"0")
        yield cluster, await open_file(one), await open_file(other)


class Waiter:
    """Something that may wait: `over` when it has ended, `done` when it was not cancelled."""

    def __init__(self, nursery: trio.Nursery, call: Callable[[], Awaitable[None]]) -> None:
        self.done, self.over = trio.Event(), trio.Event()
        self.error: DFSError | None = None
        self.scope = trio.CancelScope()
        self._call = call
        nursery.start_soon(self._run)

    async def _run(self) -> None:
        with self.scope:
            try:
                await self._call()
            except DFSError as problem:
                self.error = problem
            self.done.set()
        self.over.set()
