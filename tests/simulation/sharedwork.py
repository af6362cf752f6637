"""Work on files that all clients change: a log that grows, and a counter under a lock."""

from __future__ import annotations

import os
from collections.abc import Callable

import trio

from dfsmount.vfs import Vfs
from dfswire.locks import LockType, Range
from tests.simulation.records import Records
from tests.simulation.schedule import Step

RECORD_BYTES = 64
LOCK_WAIT_S = 30.0
# Under the lock, between reading and writing: some are cut off meanwhile, until another has it.
HOLDS_S = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.5, 0.5, 2.0, 2.0, 7.0, 12.0)


class SharedWork:
    """Of one client; `party` is what it is called in this life."""

    def __init__(self, records: Records, party: Callable[[], str]) -> None:
        self._records = records
        self._party = party

    async def append(self, vfs: Vfs, step: Step) -> str:
        log = self._records.log
        record = f"<{self._party()} step {step.number}>".encode().ljust(RECORD_BYTES - 1) + b"\n"
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

    async def count(self, vfs: Vfs, step: Step) -> str:
        counter = self._records.counter
        owner = step.number + 1
        handle = await vfs.open(self._records.counter_inode, os.O_RDWR)
        try:
            with trio.move_on_after(LOCK_WAIT_S) as waiting:
                await vfs.set_lock(handle, owner, 1, Range(type=LockType.WRITE), True)
            if waiting.cancelled_caught:
                return "no lock"
            value = int(bytes(await vfs.read(handle, 0, 8)))
            await trio.sleep(HOLDS_S[step.other % len(HOLDS_S)])
            counter.attempted += 1
            await vfs.write(handle, 0, b"%08d" % (value + 1))
            if step.sync:
                await vfs.fsync(handle)
            await vfs.flush(handle, owner)  # which gives the lock back
        finally:
            await vfs.release(handle)
        counter.acknowledged += 1
        return f"{value + 1}"
