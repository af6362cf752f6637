"""Compaction of fragmented files, as a job that metad begins by itself.

For each run of extents that compaction.py names, as many servers as the policy wants copies make
the new chunk (chunkd/assemble.py); when all of them have it, durable and with the same digest, one
transaction lays it over the old extents, if these are still exactly the same.  The old chunks die
with the usual grace.  A file that somebody is changing, or has leased, is left alone; readers are
told to ask anew, like after any change.  No byte, size or time of a file changes.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Collection

import trio

from dfswire.errors import DFSError, Unavailable
from dfswire.messages import CHUNK_ID_BYTES, FILE_MAX_BYTES, Extent
from dfswire.orders import Order, OrderResult, Piece
from metad.copies import policies, replicas
from metad.copies.compaction import SMALL_SHARE, Limits, plan
from metad.copies.placement import choose
from metad.jobs.rows import Job, Progress
from metad.jobs.runner import Jobs, Kind
from metad.names import chunkmap, extents
from metad.names.effects import Effects
from metad.state import State
from metad.storage.database import Database

log = logging.getLogger(__name__)

FILES_PER_SEARCH = 500
ROUNDS_MAX = 4  # chunks of a thousand small extents are joined again
RUNS_AT_ONCE = 4
WASTEFUL_LEAST_BYTES = 1 << 20  # what a small chunk wastes is not worth a transaction

_FRAGMENTED = (
    "SELECT inode FROM extent JOIN inode i USING (inode) WHERE inode > ?1 AND i.mtime_ns < ?2 "
    "GROUP BY inode HAVING count(*) >= ?3 AND avg(length) < ?4 ORDER BY inode LIMIT ?5"
)
_WASTEFUL = (
    "SELECT id FROM chunk c WHERE state = 'live' AND length >= ?1 AND 2 * "
    "(SELECT sum(e.length) FROM extent e WHERE e.chunk = c.id) < length"
)
_OF_WASTEFUL = (
    "SELECT DISTINCT inode FROM extent JOIN inode i USING (inode) "
    f"WHERE chunk IN ({_WASTEFUL}) AND inode > ?2 AND i.mtime_ns < ?3 ORDER BY inode LIMIT ?4"
)

Rewrite = Callable[[int, Callable[[int, Effects], bool]], Awaitable[bool]]


class Compactor:
    """See the module's text.  `rewrite` is Mutations.rewrite; `stored` is told of new chunks."""

    def __init__(
        self, state: State, jobs: Jobs, rewrite: Rewrite, stored: Callable[[list[bytes]], None]
    ) -> None:
        self._state = state
        self._jobs = jobs
        self._rewrite = rewrite
        self._stored = stored
        self._results: dict[bytes, dict[str, OrderResult]] = {}  # chunk -> disk -> what came of it
        self._news = trio.Event()
        self._found: list[int] = []
        self.extents_least = Limits.extents_least
        jobs.register(Kind("compact", "files", self._step))

    async def run_forever(self) -> None:
        """Begin a job when there is work; one at a time."""
        while True:
            await trio.sleep(self._state.config.compaction_interval_s)
            try:
                if self._jobs.find("compact") is None and await self._search(0):
                    await self._jobs.begin("compact", {})
            except DFSError as problem:
                log.info("no compaction now: %s", problem)

    def book(self, order: Order, result: OrderResult) -> None:
        """What came of an `assemble` order."""
        if order.chunk in self._results:
            self._results[order.chunk][order.disk] = result
            self._news.set()

    # -- the job

    async def _step(self, job: Job) -> Progress:
        """One file."""
        after = int(job.cursor or 0)
        if not self._found or self._found[0] <= after:
            self._found = await self._search(after)
        if not self._found:
            return Progress(job.cursor, job.done, job.done, job.message, finished=True)
        inode = self._found.pop(0)
        before = self._count(inode)
        await self.compact(inode)
        message = f"inode {inode}: {before} extents, now {self._count(inode)}"
        return Progress(inode, job.done + 1, job.done + 1 + len(self._found), message)

    async def _search(self, after: int) -> list[int]:
        """Files with a larger number that nobody has changed for a while, and that are worth it."""
        limits = Limits(self._state.policy.chunk_size_bytes, self.extents_least)
        idle_ns = int(self._state.config.compaction_idle_s * 1e9)
        before_ns = self._state.wall_ns() - idle_ns

        def look(db: Database) -> list[int]:
            small = limits.chunk_size_bytes // SMALL_SHARE
            found = db.read(
                _FRAGMENTED, (after, before_ns, limits.extents_least, small, FILES_PER_SEARCH)
            )
            found += db.read(
                _OF_WASTEFUL, (WASTEFUL_LEAST_BYTES, after, before_ns, FILES_PER_SEARCH)
            )
            return sorted({inode for (inode,) in found})[:FILES_PER_SEARCH]

        return await self._state.db.read_in_thread(look)

    def _count(self, inode: int) -> int:
        ((count,),) = self._state.db.read("SELECT count(*) FROM extent WHERE inode = ?", (inode,))
        return int(count)

    # -- one file

    async def compact(self, inode: int) -> int:
        """How many runs were put together.  Raises what Database.write raises."""
        done = 0
        for _ in range(ROUNDS_MAX):
            runs = self._plan(inode)
            succeeded = 0
            for at in range(0, len(runs), RUNS_AT_ONCE):
                succeeded += await self._assemble_some(inode, runs[at : at + RUNS_AT_ONCE])
            done += succeeded
            if not succeeded:
                break
        return done

    async def _assemble_some(self, inode: int, runs: list[list[Extent]]) -> int:
        """Several at the same time; how many succeeded.  Raises the first error."""
        done: list[bool] = []
        problems: list[DFSError] = []

        async def assemble(run: list[Extent]) -> None:
            try:
                done.append(await self._assemble(inode, run))
            except DFSError as problem:
                problems.append(problem)

        async with trio.open_nursery() as nursery:
            for run in runs:
                nursery.start_soon(assemble, run)
        if problems:
            raise problems[0]
        return sum(done)

    def _plan(self, inode: int) -> list[list[Extent]]:
        db = self._state.db
        with db.snapshot():
            found = extents.extents_between(db, inode, 0, FILE_MAX_BYTES)
            wasteful = {
                chunk
                for (chunk,) in db.read(
                    f"{_WASTEFUL} AND id IN (SELECT chunk FROM extent WHERE inode = ?2)",
                    (WASTEFUL_LEAST_BYTES, inode),
                )
            }
            policy = policies.of_file(db, inode)
        size_bytes = self._state.policies.chunk_size_bytes(policy)
        return plan(found, Limits(size_bytes, self.extents_least), wasteful)

    async def _assemble(self, inode: int, run: list[Extent]) -> bool:
        """Make the chunk and put it in place.  False when that was not possible now."""
        state = self._state
        pieces = self._pieces(run)
        policy = state.policies.of(policies.of_file(state.db, inode))
        length = sum(each.length for each in run)
        targets = choose(
            [each for each in state.servers.candidates(state.clock()) if not each.slow],
            policy.replicas,
            length,
            state.rng,
            label=policy.label,
        )
        if pieces is None or len(targets) < policy.replicas:
            self._raise_if_early()
            return False
        chunk = state.rng.randbytes(CHUNK_ID_BYTES)
        disks = [each.disk for each in targets]
        expires_ns = state.now_ns() + int(state.config.grant_expiry_s * 1e9)
        await state.db.write(lambda: chunkmap.reserve(state.db, chunk, disks, expires_ns))
        digest = await self._order(chunk, disks, length, pieces)
        done = False
        if digest is not None:

            def swap(now_ns: int, effects: Effects) -> bool:
                return chunkmap.replace_run(
                    state.db, inode, run, (chunk, digest), disks, now_ns, effects
                )

            done = await self._rewrite(inode, swap)
        if done:
            self._stored([chunk])
        else:
            now_ns = state.wall_ns()
            await state.db.write(lambda: chunkmap.give_up(state.db, chunk, now_ns))
        return done

    def _raise_if_early(self) -> None:
        """After a start of metad the servers must first be heard: the step is tried again."""
        servers, now = self._state.servers, self._state.clock()
        if any(not each.heard and servers.state(each, now) != "down" for each in servers):
            raise Unavailable("not all servers have been heard since metad was started")

    def _pieces(self, run: list[Extent]) -> list[Piece] | None:
        """None when some chunk has no good copy on a server that is up."""
        state, now = self._state, self._state.clock()
        pieces = []
        for extent in run:
            if not extent.chunk:
                pieces.append(Piece(length=extent.length, data=extent.data))
                continue
            stored = replicas.chunk_info(state.db, extent.chunk)
            good = [
                disk
                for disk, replica in replicas.replicas_of(state.db, extent.chunk)
                if replica == replicas.GOOD and state.servers.disk_state(disk, now) == "up"
            ]
            if stored is None or not good:
                return None
            pieces.append(
                Piece(
                    length=extent.length,
                    chunk=extent.chunk,
                    chunk_offset=extent.chunk_offset,
                    chunk_length=stored.length,
                    digest=stored.digest,
                    sources=state.servers.replicas(good, now),
                )
            )
        return pieces

    async def _order(
        self, chunk: bytes, disks: Collection[str], length: int, pieces: list[Piece]
    ) -> bytes | None:
        """The digest that all servers got; None when not all made it in time."""
        results = self._results[chunk] = {}
        orders = self._state.servers.orders
        try:
            for disk in disks:
                if not orders.add("assemble", chunk, disk, length=length, pieces=pieces):
                    return None
            with trio.move_on_after(self._state.config.grant_expiry_s / 4):
                while len(results) < len(disks) and all(each.ok for each in results.values()):
                    self._news = trio.Event() if self._news.is_set() else self._news
                    await self._news.wait()
        finally:
            del self._results[chunk]
            for disk in disks:
                orders.withdraw("assemble", chunk, disk)  # what no server has been told yet
        digests = {each.digest for each in results.values() if each.ok}
        if (
            len(results) < len(disks)
            or len(digests) != 1
            or not all(each.ok for each in results.values())
        ):
            reasons = [each.reason for each in results.values() if not each.ok]
            log.info("chunk %s was not assembled: %s", chunk.hex(), reasons or "no answer")
            return None
        return digests.pop()
