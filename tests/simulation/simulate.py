"""One seed from beginning to end: work under faults, then peace, then everything is checked.

The safety phase lasts as long as there is work or a fault.  Then all faults end, and within a
bounded time all work must be done, redundancy full, and fsck clean (liveness).  A client without
caches then reads everything, and removes what may be removed; what that leaves behind must go too.
"""

from __future__ import annotations

import trio

from dfsmount.files.durability import WAIT_MAX_S
from dfsmount.vfs import Vfs
from dfswire.errors import DFSError, NoEntry
from dfswire.messages import ROOT_INODE
from tests.simulation import linear, markwork
from tests.simulation.cluster import RECLAIM_GRACE_S, Cluster
from tests.simulation.database import replayed
from tests.simulation.history import FileHistory, Violation
from tests.simulation.namework import listing
from tests.simulation.nemesis import Nemesis
from tests.simulation.oracle import Oracle
from tests.simulation.records import Records, prepare
from tests.simulation.running import Result, Tracer, until, watched
from tests.simulation.schedule import NAMES, Schedule
from tests.simulation.sharedwork import RECORD_BYTES
from tests.simulation.workload import User

WORK_WITHIN_S = 150.0  # after the last fault: a lock or a grant may have to expire first
HEAL_WITHIN_S = 150.0
TIDY_WITHIN_S = 150.0
CALL_WITHIN_S = 100.0
ALL_WITHIN_S = 1000.0
LOOK_EVERY_S = 1.3


def simulate(schedule: Schedule, *, keep_trace: bool = False, messages: bool = False) -> Result:
    """Run a schedule; never raises because of what the cluster does."""
    result = Result(schedule.seed, faults=len(schedule.faults))
    return watched(
        result,
        schedule.seed,
        lambda tracer: _run(schedule, tracer, result),
        keep_trace=keep_trace,
        messages=messages,
    )


async def _run(schedule: Schedule, tracer: Tracer, result: Result) -> None:
    with trio.move_on_after(ALL_WITHIN_S) as scope:
        await _run_within(schedule, tracer, result)
    if scope.cancelled_caught:
        raise Violation("I9", f"something does not end within {ALL_WITHIN_S:g} s")


async def _run_within(schedule: Schedule, tracer: Tracer, result: Result) -> None:
    async with trio.open_nursery() as nursery:
        run = _Run(nursery, schedule, tracer)
        try:
            await run.everything()
        finally:
            result.virtual_s = trio.current_time()
            result.errors = run.records.errors
        nursery.cancel_scope.cancel()


class _Run:
    """The phases."""

    def __init__(self, nursery: trio.Nursery, schedule: Schedule, tracer: Tracer) -> None:
        self._trace = tracer
        self._schedule = schedule
        self._nursery = nursery
        self._cluster = Cluster(nursery, schedule.seed, schedule.shape, tracer)
        self._oracle = Oracle(self._cluster, calm=schedule.calm)
        self.records = Records(schedule)
        self._users = [
            User(self._cluster, schedule, number, self.records, self._oracle)
            for number in range(schedule.shape.clients)
        ]
        self._nemesis = Nemesis(self._cluster, schedule, self._users, self._oracle)

    async def everything(self) -> None:
        await self._cluster.start()
        async with self._cluster.client("setup") as first:
            await prepare(first.vfs, self.records)
        self._trace("the work begins")
        for user in self._users:
            self._nursery.start_soon(user.run)
        self._nursery.start_soon(self._watch)
        await self._nemesis.run()
        await self._nemesis.end()
        self._trace("the faults are over")
        before = [user.given_up for user in self._users]
        await until(
            lambda: [user.party for user in self._users if not user.done],
            lambda: WORK_WITHIN_S + WAIT_MAX_S * self._given_up_since(before),
            "still at work",
        )
        self._trace("the work is done")
        async with self._cluster.client("checker") as checker:
            inodes = await self._inodes(checker.vfs)
            excused = self._oracle.excused(inodes)
            await until(
                lambda: self._oracle.unhealthy(excused), lambda: HEAL_WITHIN_S, "not healed"
            )
            self._trace("redundancy is full")
            if self._schedule.calm:
                self._oracle.check_evidence()
            await self._check_everything(checker.vfs)
            await self._remove_everything(checker.vfs)
            self._cluster.clocks.skipped_s += RECLAIM_GRACE_S  # in which nothing would happen
            await until(
                lambda: self._oracle.untidy() or self._oracle.unhealthy(set()),
                lambda: TIDY_WITHIN_S,
                "not tidy",
            )
        self._trace("everything is tidy")
        await self._cluster.kill_metad()
        if difference := replayed(self._cluster.metad_disk):
            raise Violation("I3", f"the journal does not give the same database: {difference}")

    async def _watch(self) -> None:
        while True:
            await trio.sleep(LOOK_EVERY_S)
            self._oracle.check_honesty()
            self._oracle.check_findings()
            self._oracle.check_grace()
            self._oracle.check_surplus()

    def _given_up_since(self, before: list[int]) -> int:
        """Each fsync of bytes that nobody has any more waits WAIT_MAX_S before it says so."""
        return max(user.given_up - had for user, had in zip(self._users, before, strict=True))

    async def _inodes(self, vfs: Vfs) -> dict[int, FileHistory]:
        found = {}
        for history in self.records.files.values():
            attr = await vfs.lookup(ROOT_INODE, history.name.encode())
            if attr is not None:
                found[attr.inode] = history
        return found

    async def _check_everything(self, vfs: Vfs) -> None:
        records = self.records
        reader = self._users[0].files
        with trio.move_on_after(CALL_WITHIN_S) as scope:
            for history in records.files.values():
                try:
                    await reader.read(vfs, history)
                except DFSError as problem:
                    if all(history.is_certain(cell) for cell in range(-1, 70)):
                        text = f"{history.name} cannot be read: {problem!r}"
                        raise Violation("I1", text) from problem
            records.log.check(await _records(vfs, records.log_inode), records.log.acknowledged)
            records.counter.check(int(await _whole(vfs, records.counter_inode)))
            final = linear.NameOperation(99, "list", 0, 0, records.moments.next())
            final.answer = await listing(vfs, records.fight_inode)
            final.ended = records.moments.next()
            linear.check([*records.names, final], NAMES)
            if records.about == "marks":
                await markwork.look(vfs, records.marks, "the checker")
                records.marks.check()
            if records.about == "board":
                began = records.moments.next()
                data = await _whole(vfs, records.board.inode)
                records.board.note(data, began, records.moments.next(), "the checker")
                records.board.check()
        if scope.cancelled_caught:
            raise Violation("I9", "the checker's reads do not end")

    async def _remove_everything(self, vfs: Vfs) -> None:
        for history in self.records.files.values():
            try:
                await vfs.unlink(ROOT_INODE, history.name.encode())
            except NoEntry:
                self._trace(f"{history.name} was not there")


async def _whole(vfs: Vfs, inode: int) -> bytes:
    handle = await vfs.open(inode, 0)
    try:
        return bytes(await vfs.read(handle, 0, 1 << 20))
    finally:
        await vfs.release(handle)


async def _records(vfs: Vfs, inode: int) -> list[bytes]:
    data = await _whole(vfs, inode)
    return [data[start : start + RECORD_BYTES] for start in range(0, len(data), RECORD_BYTES)]
