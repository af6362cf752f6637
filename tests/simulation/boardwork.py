"""Work on the file that all clients write (board.py)."""

from __future__ import annotations

import os

import trio

from dfsmount.vfs import Vfs
from dfswire.operations import FALLOC_KEEP_SIZE, FALLOC_PUNCH_HOLE, SetAttr
from tests.simulation.board import NAME
from tests.simulation.history import Change, Value, pattern
from tests.simulation.records import Records
from tests.simulation.schedule import CELL_BYTES, CELLS, Step

ALL = 70  # cells
BUFFERED_S = (0.0, 0.0, 0.1, 0.3, 1.0, 3.0)
LOOKS, LOOK_EVERY_S = 10, 0.1


class BoardWork:
    """Of one client."""

    def __init__(self, number: int, records: Records) -> None:
        self._board = records.board
        self._moments = records.moments
        self._party = f"client{number}"
        self._writes = number * 1000

    def _begin(self, values: dict[int, Value]) -> Change:
        change = Change(values, self._moments.next())
        self._board.changes.append(change)
        return change

    async def scribble(self, vfs: Vfs, step: Step) -> str:
        """A write that is buffered for a while."""
        first = CELLS[step.cell]
        cells = range(first, first + step.cells)
        self._writes += 1
        number = self._writes
        data = b"".join(pattern(NAME, number, cell) for cell in cells)
        handle = await vfs.open(self._board.inode, os.O_RDWR)
        try:
            change = self._begin(dict.fromkeys(cells, number))
            await vfs.write(handle, first * CELL_BYTES, data)
            answered = self._moments.next()
            await trio.sleep(BUFFERED_S[step.other % len(BUFFERED_S)])
            if step.sync:
                await vfs.fsync(handle)
            await vfs.flush(handle)
            change.done, change.ended = True, answered  # others see it from the write's answer on
        finally:
            await vfs.release(handle)
        return f"write {number}"

    async def shorten(self, vfs: Vfs, step: Step) -> str:
        first = CELLS[step.cell]
        change = self._begin(dict.fromkeys(range(first, ALL)))
        await vfs.setattr(SetAttr(inode=self._board.inode, size=first * CELL_BYTES))
        change.done, change.ended = True, self._moments.next()
        return "ok"

    async def punch(self, vfs: Vfs, step: Step) -> str:
        first = CELLS[step.cell]
        mode = FALLOC_PUNCH_HOLE | FALLOC_KEEP_SIZE
        handle = await vfs.open(self._board.inode, os.O_RDWR)
        try:
            change = self._begin(dict.fromkeys(range(first, first + step.cells)))
            await vfs.fallocate(handle, mode, first * CELL_BYTES, step.cells * CELL_BYTES)
            change.done, change.ended = True, self._moments.next()
        finally:
            await vfs.release(handle)
        return "ok"

    async def peek(self, vfs: Vfs, step: Step) -> str:
        handle = await vfs.open(self._board.inode, os.O_RDONLY)
        try:
            for _ in range(LOOKS):
                began = self._moments.next()
                data = bytes(await vfs.read(handle, 0, ALL * CELL_BYTES))
                self._board.note(data, began, self._moments.next(), self._party)
                await trio.sleep(LOOK_EVERY_S)
        finally:
            await vfs.release(handle)
        return f"{len(data)} bytes"
