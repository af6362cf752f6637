"""Many processes of several clients lock at random, while messages are lost and metad dies: nobody
ever has what excludes another one's lock, nobody waits for ever, and nothing is left behind.

Each process says what it believes to hold: from the moment when a call has returned to the moment
when one begins that gives it up.  DFS_LOCK_STEPS makes the histories longer.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable

import pytest
import trio
from trio.testing import MockClock

from dfsmount.client import FileSystem
from dfswire.errors import Deadlock, WouldBlock
from dfswire.lockranges import changed, in_the_way, within
from dfswire.locks import LockKind, Range
from tests.fakes import Faults
from tests.t3_cluster.cluster import Cluster, running_cluster
from tests.t3_cluster.files import write_file
from tests.t3_cluster.lockers import READ, UNLOCK, WRITE, Opened, open_file

ToleratedLog = Callable[[str], None]
STEPS = int(os.environ.get("DFS_LOCK_STEPS", "40"))
BYTES = 6
FILES = ("f", "g")
Place = tuple[int, LockKind]


class Beliefs:
    """What every process believes to hold."""

    def __init__(self) -> None:
        self.held: dict[Place, dict[object, list[Range]]] = {}
        self.granted = self.cancelled = 0

    def of(self, place: Place, who: object) -> list[Range]:
        return self.held.get(place, {}).get(who, [])

    def lower(self, place: Place, who: object, wanted: Range) -> None:
        """A call begins: from now on others may get what it gives up."""
        mine = self.of(place, who)
        if place[1] == LockKind.FLOCK:
            if mine and mine[0].type != wanted.type:
                mine = []
        elif wanted.type != WRITE:
            for piece in within(mine, wanted.start, wanted.end):
                lowered = Range(type=wanted.type, start=piece.start, end=piece.end)
                mine = changed(mine, lowered)
        self.held.setdefault(place, {})[who] = mine

    def grant(self, place: Place, who: object, wanted: Range) -> None:
        for other, ranges in self.held.get(place, {}).items():
            if other is not who and wanted.type != UNLOCK:
                assert in_the_way(ranges, wanted) is None, f"{wanted} beside {ranges}"
        self.held.setdefault(place, {})[who] = changed(self.of(place, who), wanted)
        self.granted += 1


class Process:
    """It has each file open once, and does one thing after the other."""

    def __init__(self, beliefs: Beliefs, rng: random.Random, client: FileSystem, pid: int) -> None:
        self.beliefs = beliefs
        self.rng = rng
        self.client = client
        self.pid = pid
        self.owner = 1000 * pid
        self.files: list[Opened] = []

    async def run(self) -> None:
        for step in range(STEPS):
            if not self.files:
                self.owner += 1  # so that what an earlier one has left is never released
                self.files = [await open_file(self.client, path, self.owner) for path in FILES]
                for file in self.files:
                    file.pid = self.pid
            await self.step()
            await trio.sleep(self.rng.choice((0, 0.01, 0.3)))
            if step % 10 == 9:
                await self.close()
        await self.close()

    async def step(self) -> None:
        file = self.rng.choice(self.files)
        kind = self.rng.choice((LockKind.POSIX, LockKind.POSIX, LockKind.FLOCK))
        start, end = sorted(self.rng.randrange(BYTES) for _ in range(2))
        wanted = Range(type=self.rng.choice((READ, WRITE, UNLOCK)), start=start, end=end)
        if kind == LockKind.FLOCK:
            wanted = Range(type=wanted.type)
        # Flocks are not looked at for deadlocks, so nobody waits for one without end.
        patience_s = self.rng.choice((0.02, 0.5, 4, 8, 15))
        wait = self.rng.random() < 0.8
        place = (file.inode, kind)
        self.beliefs.lower(place, self, wanted)
        done = False
        try:
            with trio.move_on_after(patience_s):
                if kind == LockKind.FLOCK:
                    await file.flock(wanted.type, wait=wait)
                else:
                    await file.lock(wanted.type, start, end, wait=wait)
                done = True
        except WouldBlock:
            assert not wait
        except Deadlock:
            await self.close()
        if done:
            self.beliefs.grant(place, self, wanted)
        else:
            self.beliefs.cancelled += 1

    async def close(self) -> None:
        for file in self.files:
            for kind in LockKind:
                self.beliefs.held.get((file.inode, kind), {}).pop(self, None)
        for file in self.files:
            await file.close()
        self.files = []


async def check_nothing_is_left(cluster: Cluster) -> None:
    async with cluster.client("last") as client:
        for path in FILES:
            file = await open_file(client, path)
            await file.lock(WRITE, wait=False)
            await file.flock(WRITE, wait=False)


@pytest.mark.parametrize("round_", range(3))
@pytest.mark.parametrize("kills", [False, True])
async def test_random_locks(
    autojump_clock: MockClock,
    rng: random.Random,
    tolerate_log: ToleratedLog,
    kills: bool,
    round_: int,
) -> None:
    tolerate_log("metad at metad:1 does not answer")
    tolerate_log("the lease ended")
    beliefs = Beliefs()
    async with (
        running_cluster(rng) as cluster,
        cluster.client("a") as one,
        cluster.client("b") as two,
    ):
        for path in FILES:
            await write_file(one.vfs, path, b"0")
        cluster.set_faults(Faults(lost_request=0.05, lost_reply=0.1, duplicate=0.2, delay=0.05))
        over = trio.Event()

        async def kill() -> None:
            while not over.is_set():
                with trio.move_on_after(rng.uniform(0.1, 10)):
                    await over.wait()
                await cluster.kill_metad()
                await trio.sleep(rng.uniform(0, 1))
                await cluster.start_metad()

        async with trio.open_nursery() as nursery:
            if kills:
                nursery.start_soon(kill)
            with trio.fail_after(100 * STEPS):
                async with trio.open_nursery() as processes:
                    for number in range(8):
                        process = Process(beliefs, rng, (one, two)[number % 2], 100 + number)
                        processes.start_soon(process.run)
            over.set()
        cluster.set_faults(Faults())
        await trio.sleep(5)
        await check_nothing_is_left(cluster)
    assert beliefs.granted > STEPS and beliefs.cancelled
