"""Gets the bytes of one chunk stored on enough servers, whatever fails on the way.

The writer uses it.  A chunk that fewer than min(R, 2) servers acknowledged (R of the file's policy)
does not count: another grant is taken, away from the servers that failed, and the same bytes are
written under its id (the first id is garbage that metad collects).  A chunk on fewer than R servers
is accepted, since metad repairs it.

A server that is stopped takes the bytes and says nothing.  After SECOND_AFTER_S they are written
under another grant, to other servers, beside the first attempt: the first one that is on enough
servers counts, and the other one is ended.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import trio

from dfsmount.remote.chunkclient import ChunkClient, Stored
from dfsmount.remote.grants import GrantPool, addresses_of
from dfswire.errors import DFSError, Full, InputOutput, NoSpace, SessionLost, Unavailable
from dfswire.messages import ChunkGrant

OPERATION_DEADLINE_S = 30.0
PAUSE_FIRST_S = 0.1
PAUSE_MOST_S = 2.0
SECOND_AFTER_S = 3.0  # metad suspects a silent server then; a full chunk takes a tenth of that
SECONDS_MAX = 2  # at once: a cluster that is slow as a whole must not be given everything twice


@dataclass
class _Attempts:
    """Of one chunk, under different grants."""

    stored: Stored | None = None
    by: ChunkGrant | None = None  # the grant of what was stored
    problem: DFSError | None = None  # of the last one that failed
    running: int = 0
    over: trio.Event = field(default_factory=trio.Event)

    def begin(self) -> None:
        self.running += 1

    def end(self) -> None:
        self.running -= 1
        if self.stored is not None or not self.running:
            self.over.set()


class Uploader:
    """Stores chunks.  `replicas` is R of the cluster, for files whose policy says nothing else."""

    def __init__(self, grants: GrantPool, chunks: ChunkClient, *, replicas: int) -> None:
        self._grants = grants
        self._chunks = chunks
        self._needed = min(replicas, 2)
        self._seconds = trio.Semaphore(SECONDS_MAX)
        chunks.on_refused_write = grants.clear

    @property
    def needed(self) -> int:
        """On how many servers data must be before it may be acknowledged, unless its grant says."""
        return self._needed

    def distrust_grants(self) -> None:
        """metad did not know a grant any more: the others of its batch are no better."""
        self._grants.clear()

    async def store(self, inode: int, data: memoryview, *, durable: bool) -> Stored:
        """Store `data` as a new chunk of a file.

        Raises NoSpace or InputOutput when servers refused for OPERATION_DEADLINE_S, NoSpace at once
        when metad knows that all are full; SessionLost.  Waiting for metad itself does not count:
        that is as long as the mount allows.
        """
        give_up_at = float("inf")
        pause_s = PAUSE_FIRST_S
        while True:
            try:
                grant = await self._grants.take(inode)
                give_up_at = min(give_up_at, trio.current_time() + OPERATION_DEADLINE_S)
                return await self._store_under(grant, inode, data, durable)
            except (SessionLost, Full):
                raise
            except DFSError as refused:
                problem = refused
                give_up_at = min(give_up_at, trio.current_time() + OPERATION_DEADLINE_S)
            if trio.current_time() + pause_s > give_up_at:
                kind = NoSpace if isinstance(problem, NoSpace) else InputOutput
                raise kind(f"data could not be stored: {problem}") from problem
            await trio.sleep(pause_s)
            pause_s = min(2 * pause_s, PAUSE_MOST_S)

    async def _store_under(
        self, grant: ChunkGrant, inode: int, data: memoryview, durable: bool
    ) -> Stored:
        """Under this grant, or under another one when that takes long.  Raises DFSError."""
        attempts = _Attempts()
        # Each has ended when this returns: the memory of `data` is used again then.
        async with trio.open_nursery() as nursery:
            attempts.begin()
            nursery.start_soon(self._attempt, attempts, grant, data, durable)
            with trio.move_on_after(SECOND_AFTER_S):
                await attempts.over.wait()
            if not attempts.over.is_set():
                nursery.start_soon(
                    self._try_elsewhere, nursery, attempts, grant, inode, data, durable
                )
                await attempts.over.wait()
            nursery.cancel_scope.cancel()
        if attempts.stored is not None:
            if attempts.by is not grant:
                used = {each.address for each in attempts.stored.location.replicas}
                self._grants.silent(each for each in addresses_of(grant) if each not in used)
            return attempts.stored
        assert attempts.problem is not None
        raise attempts.problem

    async def _attempt(
        self, attempts: _Attempts, grant: ChunkGrant, data: memoryview, durable: bool
    ) -> None:
        try:
            stored = await self._chunks.write(grant, data, durable=durable)
            count = len(stored.location.replicas)
            needed = grant.needed or self._needed
            if count < needed:
                raise Unavailable(f"stored on {count} of {needed} servers")
            if attempts.stored is None:
                attempts.stored, attempts.by = stored, grant
        except DFSError as problem:
            attempts.problem = problem
        finally:
            attempts.end()

    async def _try_elsewhere(
        self,
        nursery: trio.Nursery,
        attempts: _Attempts,
        first: ChunkGrant,
        inode: int,
        data: memoryview,
        durable: bool,
    ) -> None:
        """Of two servers nobody knows which one is silent: so without both, or without each."""
        async with self._seconds:
            attempts.begin()
            try:
                for grant in await self._grants.take_elsewhere(inode, addresses_of(first)):
                    attempts.begin()
                    nursery.start_soon(self._attempt, attempts, grant, data, durable)
            except DFSError as problem:
                attempts.problem = problem
            finally:
                attempts.end()
            await attempts.over.wait()
