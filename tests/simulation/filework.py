"""Work on files of which each has one client that changes it; all read them."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from dfsmount.vfs import Vfs
from dfswire.errors import NoEntry
from dfswire.messages import ROOT_INODE
from dfswire.operations import SetAttr
from tests.simulation.history import EXISTS, Change, FileHistory, Violation, pattern
from tests.simulation.oracle import Oracle
from tests.simulation.records import Records
from tests.simulation.schedule import CELL_BYTES, CELLS, FILES, Step


class FileWork:
    """Of one client."""

    def __init__(self, number: int, records: Records, oracle: Oracle) -> None:
        self._number = number
        self._records = records
        self._oracle = oracle
        self._moments = records.moments
        self._writes = number * 1000

    def _mine(self, step: Step) -> FileHistory:
        return self._records.files[self._number, step.file % FILES]

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

    async def put(self, vfs: Vfs, step: Step) -> str:
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
                if step.sync and step.other % 2:  # stored already, and not on disk
                    await vfs.flush(handle)
                if step.sync:
                    await vfs.fsync(handle)
                    self._oracle.promised(attr.inode, first * CELL_BYTES, len(data))
                await vfs.flush(handle)
            finally:
                await vfs.release(handle)
            change.synced = step.sync
        return f"write {number}"

    async def cut(self, vfs: Vfs, step: Step) -> str:
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

    async def remove(self, vfs: Vfs, step: Step) -> str:
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

    async def get(self, vfs: Vfs, step: Step) -> str:
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
