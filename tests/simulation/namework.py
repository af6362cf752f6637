"""Work on a few names that all clients fight for; every answer is written down."""

from __future__ import annotations

import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from dfsmount.vfs import Vfs
from dfswire.errors import Exists, NoEntry
from tests.simulation.linear import NameOperation
from tests.simulation.records import Records
from tests.simulation.schedule import NAMES, Step

STARES = 10  # looks at one name: with luck a lease ends meanwhile, and another changes the name
STARE_EVERY_S = 0.7


class NameWork:
    """Of one client."""

    def __init__(self, number: int, records: Records) -> None:
        self._number = number
        self._records = records
        self._moments = records.moments

    @asynccontextmanager
    async def _naming(self, kind: str, step: Step, inode: int = 0) -> AsyncIterator[NameOperation]:
        op = NameOperation(
            self._number,
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

    async def create(self, vfs: Vfs, step: Step) -> str:
        async with self._naming("create", step) as op:
            attr = await vfs.make(
                self._records.fight_inode, b"n%d" % op.name, stat.S_IFREG | 0o644, 0, 0
            )
            op.inode, op.answer = attr.inode, "ok"
        return f"{op.answer} {op.inode}"

    async def unlink(self, vfs: Vfs, step: Step) -> str:
        async with self._naming("unlink", step) as op:
            await vfs.unlink(self._records.fight_inode, b"n%d" % op.name)
            op.answer = "ok"
        return str(op.answer)

    async def rename(self, vfs: Vfs, step: Step) -> str:
        fight = self._records.fight_inode
        async with self._naming("rename", step) as op:
            await vfs.rename(fight, b"n%d" % op.name, fight, b"n%d" % op.other, 0)
            op.answer = "ok"
        return str(op.answer)

    async def look(self, vfs: Vfs, step: Step) -> str:
        async with self._naming("look", step) as op:
            found = await vfs.lookup(self._records.fight_inode, b"n%d" % op.name)
            op.answer = found.inode if found is not None else 0
        return str(op.answer)

    async def stare(self, vfs: Vfs, step: Step) -> str:
        seen = []
        for _ in range(STARES):
            seen.append(await self.look(vfs, step))
            await trio.sleep(STARE_EVERY_S)
        return " ".join(seen)

    async def link(self, vfs: Vfs, step: Step) -> str:
        async with self._naming("look", step) as look:
            found = await vfs.lookup(self._records.fight_inode, b"n%d" % look.name)
            look.answer = found.inode if found is not None else 0
        if found is None:
            return "not there"
        async with self._naming("link", step, found.inode) as op:
            await vfs.link(found.inode, self._records.fight_inode, b"n%d" % op.other)
            op.answer = "ok"
        return str(op.answer)

    async def list(self, vfs: Vfs, step: Step) -> str:
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
