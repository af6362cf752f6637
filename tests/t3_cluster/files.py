"""A few file operations on a Vfs by path, for tests."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from dfsmount.vfs import Vfs
from dfswire.errors import NoEntry
from dfswire.messages import ROOT_INODE, Attr


async def find(vfs: Vfs, path: str) -> Attr:
    """The attributes of a path from the root.  Raises NoEntry."""
    attr = await vfs.getattr(ROOT_INODE)
    for name in filter(None, path.split("/")):
        found = await vfs.lookup(attr.inode, name.encode())
        if found is None:
            raise NoEntry(path)
        attr = found
    return attr


@asynccontextmanager
async def opened(vfs: Vfs, path: str, flags: int = os.O_RDWR) -> AsyncIterator[int]:
    """A handle of a file, closed at the end."""
    handle = await vfs.open((await find(vfs, path)).inode, flags)
    try:
        yield handle
    finally:
        await vfs.release(handle)


async def write_file(vfs: Vfs, path: str, data: bytes, *, sync: bool = False) -> int:
    """Create or replace; the inode."""
    directory, _, name = path.rpartition("/")
    parent = await find(vfs, directory)
    handle, attr = await vfs.create(
        parent.inode, name.encode(), 0o644, os.O_RDWR | os.O_TRUNC, 0, 0
    )
    try:
        if data:
            await vfs.write(handle, 0, data)
        if sync:
            await vfs.fsync(handle)
        await vfs.flush(handle)
    finally:
        await vfs.release(handle)
    return attr.inode


async def read_file(vfs: Vfs, path: str) -> bytes:
    attr = await find(vfs, path)
    handle = await vfs.open(attr.inode, os.O_RDONLY)
    try:
        return bytes(await vfs.read(handle, 0, attr.size + 1))
    finally:
        await vfs.release(handle)


async def names(vfs: Vfs, path: str) -> list[bytes]:
    """The names in a directory, without the dots."""
    handle = await vfs.opendir((await find(vfs, path)).inode)
    found, cookie = [], 0
    while page := await vfs.readdir(handle, cookie):
        found += [entry.name for entry in page if entry.name not in (b".", b"..")]
        cookie = page[-1].cookie
    vfs.releasedir(handle)
    return found
