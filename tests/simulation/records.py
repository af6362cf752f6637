"""Everything that is written down about the work of all clients, and the files that all use."""

from __future__ import annotations

import os
import stat

from dfsmount.vfs import Vfs
from dfswire.messages import ROOT_INODE
from dfswire.operations import SetAttr
from tests.simulation import board, registers
from tests.simulation.history import Counter, FileHistory, Log, Moments
from tests.simulation.linear import NameOperation
from tests.simulation.schedule import FILES, Schedule

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
        self.about = schedule.about
        self.board = board.Board()
        self.marks = registers.Marks(self.moments)
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
    if records.about == "board":
        attr = await vfs.make(ROOT_INODE, board.NAME.encode(), stat.S_IFREG | 0o644, 0, 0)
        records.board.inode = attr.inode
    if records.about == "marks":
        attr = await vfs.make(ROOT_INODE, registers.NAME.encode(), stat.S_IFREG | 0o644, 0, 0)
        records.marks.inode = attr.inode
        await vfs.setattr(SetAttr(inode=attr.inode, size=registers.SIZE_MIN_BYTES))
    records.fight_inode = (await vfs.mkdir(ROOT_INODE, FIGHT, 0o755, 0, 0)).inode
