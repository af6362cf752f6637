"""Work on the file whose attributes all clients set (registers.py)."""

from __future__ import annotations

import os
from collections.abc import Callable

import trio

from dfsmount.vfs import Vfs
from dfswire.errors import NoAttribute
from dfswire.operations import SetAttr
from tests.simulation.boardwork import BUFFERED_S
from tests.simulation.records import Records
from tests.simulation.registers import SIZE_MIN_BYTES, Marking, Marks
from tests.simulation.schedule import Step

XATTR = b"user.mark"
LOOKS, LOOK_EVERY_S = 10, 0.1
OF_EACH = 100  # values of a client: no more than a mode has room for


class MarkWork:
    """Of one client."""

    def __init__(self, number: int, records: Records, party: Callable[[], str]) -> None:
        self._marks = records.marks
        self._party = party
        self._last = 1 + number * OF_EACH

    def _next(self) -> int:
        self._last += 1
        return self._last

    async def chmod(self, vfs: Vfs, step: Step) -> str:
        mode = self._next()
        marking = self._marks.begin(self._marks.mode, self._party(), mode)
        await vfs.setattr(SetAttr(inode=self._marks.inode, mode=mode))
        self._marks.end(marking)
        return f"{mode:o}"

    async def resize(self, vfs: Vfs, step: Step) -> str:
        size = SIZE_MIN_BYTES + self._next()
        marking = self._marks.begin(self._marks.size, self._party(), size)
        await vfs.setattr(SetAttr(inode=self._marks.inode, size=size))
        self._marks.end(marking)
        return str(size)

    async def tag(self, vfs: Vfs, step: Step) -> str:
        tag = self._next()
        marking = self._marks.begin(self._marks.tag, self._party(), tag)
        await vfs.setxattr(self._marks.inode, XATTR, b"%d" % tag)
        self._marks.end(marking)
        return str(tag)

    async def dab(self, vfs: Vfs, step: Step) -> str:
        """Some bytes, for which the file's attributes are this client's alone for a while."""
        handle = await vfs.open(self._marks.inode, os.O_RDWR)
        try:
            await vfs.write(handle, step.cell * 100, b"x" * 100)
            await trio.sleep(BUFFERED_S[step.other % len(BUFFERED_S)])
            if step.sync:
                await vfs.fsync(handle)
            await vfs.flush(handle)
        finally:
            await vfs.release(handle)
        return "ok"

    async def glance(self, vfs: Vfs, step: Step) -> str:
        for _ in range(LOOKS):
            text = await look(vfs, self._marks, self._party())
            await trio.sleep(LOOK_EVERY_S)
        return text


async def look(vfs: Vfs, marks: Marks, party: str) -> str:
    """Ask for all, and write down what is told."""
    began = marks.moments.next()
    attr = await vfs.getattr(marks.inode)
    ended = marks.moments.next()
    marks.mode.findings.append(Marking(party, attr.mode & 0o7777, began, ended))
    marks.size.findings.append(Marking(party, attr.size, began, ended))
    try:
        tag = int(await vfs.getxattr(marks.inode, XATTR))
    except NoAttribute:
        tag = 0
    marks.tag.findings.append(Marking(party, tag, ended, marks.moments.next()))
    return f"{attr.mode:o} {attr.size} {tag}"
