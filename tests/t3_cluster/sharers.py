"""Clients that share one file and do not flush, one of whom may be cut off.

What a client has written and not synced is lost when its session is; a client that is cut off may
lose its session, so from then on its unsynced writes may be there or not (slots.py and records.py
keep the books).  Nobody else may lose anything.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import trio

from dfsmount.client import FileSystem
from dfswire.errors import InputOutput
from tests.t3_cluster.cluster import Cluster
from tests.t3_cluster.files import find


class Sharer:
    """One client with a handle that stays open, so that what it writes stays unflushed."""

    def __init__(self, name: str, client: FileSystem, cluster: Cluster, path: str) -> None:
        """`path`: the file that is shared."""
        self.flags = os.O_RDWR
        self.name = name
        self.vfs = client.vfs
        self.is_cut = False
        self.cuts = 0
        self.on_cut: list[Callable[[], None]] = []
        self._client = client
        self._cluster = cluster
        self._path = path
        self._cuts_told = 0  # errors of this handle are about cuts after these
        self._handle: int | None = None

    async def handle(self) -> int:
        if self._handle is None:
            self._cuts_told = self.cuts - self.is_cut
            self._handle = await self.vfs.open((await find(self.vfs, self._path)).inode, self.flags)
        return self._handle

    async def close(self) -> None:
        handle, self._handle = self._handle, None
        if handle is not None:
            try:
                await self.vfs.flush(handle)
            except InputOutput:
                self._tolerate()
            finally:
                await self.vfs.release(handle)

    async def sync(self, *, close: bool) -> bool:
        """fsync, and close with it; False when something is lost."""
        try:
            await self.vfs.fsync(await self.handle())
        except InputOutput:
            await self.failed()
            return False
        if close:
            await self.close()
        return True

    async def read_all(self, handle: int) -> bytes:
        """The whole file, as long as it is when this begins, or longer."""
        size = (await find(self.vfs, self._path)).size
        return bytes(await self.vfs.read(handle, 0, size + (1 << 20)))

    async def failed(self) -> None:
        """A call has raised EIO: only those may who have lost their session."""
        self._tolerate()
        await self.close()

    def _tolerate(self) -> None:
        assert self._cuts_told < self.cuts, f"{self.name} lost data without being cut off"
        self._cuts_told = self.cuts

    async def cut(self, seconds: float) -> None:
        """Nothing that this client sends arrives for a while."""
        self.is_cut = True
        self.cuts += 1
        for told in self.on_cut:
            told()
        with self._cluster.cut_off(self._client):
            await trio.sleep(seconds)
        self.is_cut = False
