"""Keeping metad's journal: a stream from metad onto this server's disk, and back an
acknowledgement of what is there.

chunkd opens the stream and opens it again when it breaks, quickly, because a metad that was started
again waits a second for its followers.  Nothing is acknowledged that could not be restored from
this server alone: entries count once a snapshot is here from which they go on.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial

import trio

from chunkd.identity import ServerIdentity
from chunkd.journal import Journal
from chunkd.storage import Runner
from dfswire.client import Client
from dfswire.errors import (
    DFSError,
    InputOutput,
    NoSpace,
    SessionLost,
    Unavailable,
    UsageError,
)
from dfswire.journal import (
    ENTRIES_BYTES,
    AckJournal,
    FollowJournal,
    JournalFrame,
    Snapshot,
    SnapshotRequest,
)

log = logging.getLogger(__name__)

SILENCE_S = 15.0  # metad says something at least every 5 s
PAUSE_S = 0.3
DISK_PAUSE_S = 10.0  # after the disk took no more
ACK_DEADLINE_S = 2.0
PART_BYTES = 4 * ENTRIES_BYTES
PART_DEADLINE_S = 30.0
TAKE_DEADLINE_S = 600.0  # metad may have to copy a large database first
TIDY_S = 60.0


class FollowerTask:
    """See the module's text."""

    def __init__(
        self,
        journal: Journal,
        client: Client,
        metad: str,
        identity: ServerIdentity,
        run: Runner,
        rng: random.Random,
        *,
        now_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self._journal = journal
        self._client = client
        self._metad = metad
        self._identity = identity
        self._run = run
        self._rng = rng
        self._now_ns = now_ns
        self._loaded = False
        self._failed = False  # the disk, as far as the log was told
        self._stream = 0
        self._kept = 0  # the number of the last entry that is on disk
        self._news = trio.Event()  # something to acknowledge
        self._snapshot_wanted = -1
        self._fetch = trio.Event()

    async def run_forever(self) -> None:
        """Until cancelled."""
        while True:
            pause_s = self._rng.uniform(PAUSE_S / 2, PAUSE_S)
            try:
                if not self._loaded:
                    await self._run(self._journal.load)
                    self._loaded = True
                if self._failed:
                    await self._drop_old()
                if self._identity.cluster_id:  # else not yet registered
                    await self._follow()
            except (NoSpace, InputOutput) as problem:
                if not self._failed:
                    log.error("this server keeps the journal no longer: %s", problem)
                self._failed, pause_s = True, DISK_PAUSE_S
            except UsageError as problem:
                log.error("metad does not take this server as a follower: %s", problem)
                pause_s = DISK_PAUSE_S
            except DFSError as problem:
                log.debug("the journal cannot be followed: %s", problem)
            await trio.sleep(pause_s)

    async def _follow(self) -> None:
        """One connection, until it breaks."""
        journal = self._journal
        request = FollowJournal(
            server_id=self._identity.server_id,
            incarnation=self._identity.incarnation,
            cluster_id=self._identity.cluster_id,
            position=journal.position,
            previous=journal.previous,
            snapshot=journal.newest_snapshot,
        )
        broken: list[DFSError] = []

        async def guarded(work: Callable[[], Awaitable[None]]) -> None:
            try:
                await work()
            except DFSError as problem:
                broken.append(problem)
                nursery.cancel_scope.cancel()

        async with (
            self._client.stream("journal.follow", self._metad, request) as frames,
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(guarded, self._acknowledge_forever)
            nursery.start_soon(guarded, self._fetch_forever)
            nursery.start_soon(guarded, lambda: self._keep(frames))
        if broken:
            raise broken[0]

    async def _keep(self, frames: AsyncIterator[JournalFrame]) -> None:
        journal, parts = self._journal, bytearray()
        while True:
            frame = await _next(frames)
            if frame.base is not None:
                base = frame.base
                parts.clear()
                await self._run(partial(journal.begin, self._identity.cluster_id, base))
                self._kept = base.number
            self._stream = frame.stream
            entries = list(frame.entries)
            if frame.part:
                parts += frame.part
                if frame.is_last:
                    entries.append(bytes(parts))
                    parts.clear()
            if entries:
                await self._run(partial(journal.append, self._identity.cluster_id, entries))
                self._kept = journal.position.number
            if self._failed:
                log.info("this server keeps the journal again")
                self._failed = False
            self._snapshot_wanted = frame.snapshot
            if frame.base is not None or entries:
                self._news.set()
            self._fetch.set()

    async def _acknowledge_forever(self) -> None:
        while True:
            await self._news.wait()
            self._news = trio.Event()
            if self._journal.newest_snapshot < 0:
                continue
            stream = self._stream
            try:
                await self._client.call(
                    "journal.ack",
                    self._metad,
                    AckJournal(
                        server_id=self._identity.server_id, stream=stream, number=self._kept
                    ),
                    deadline_s=ACK_DEADLINE_S,
                )
            except SessionLost:
                if stream == self._stream:
                    raise

    # -- snapshots ------------------------------------------------------------------------------

    async def _fetch_forever(self) -> None:
        """Have a snapshot, and the newest one; and no more than is needed or has room."""
        tidy_at = trio.current_time()
        while True:
            with trio.move_on_at(tidy_at + TIDY_S):
                await self._fetch.wait()
            self._fetch = trio.Event()
            newest = self._journal.newest_snapshot
            if newest < 0 or newest < self._snapshot_wanted:
                await self._fetch_one(max(self._journal.run, self._snapshot_wanted))
                self._news.set()
            elif trio.current_time() < tidy_at + TIDY_S:
                continue
            tidy_at = trio.current_time()
            await self._drop_old()

    async def _drop_old(self, coming_bytes: int = 0) -> None:
        await self._run(lambda: self._journal.drop_old(self._now_ns(), coming_bytes))

    async def _fetch_one(self, number: int) -> None:
        snapshot, _none = await self._part(SnapshotRequest(number=number), TAKE_DEADLINE_S)
        await self._drop_old(snapshot.size_bytes)
        writer = await self._run(lambda: self._journal.begin_snapshot(snapshot))
        try:
            while writer.received_bytes < snapshot.size_bytes:
                request = SnapshotRequest(
                    digest=snapshot.digest, offset=writer.received_bytes, length=PART_BYTES
                )
                _same, data = await self._part(request, PART_DEADLINE_S)
                if not data:
                    raise Unavailable("the snapshot ended early")
                await self._run(partial(writer.add, data))
            await self._run(writer.finish)
        finally:
            with trio.CancelScope(shield=True):
                await self._run(writer.abandon)
        log.info("kept a snapshot of the metadata at entry %d", snapshot.position.number)

    async def _part(
        self, request: SnapshotRequest, deadline_s: float
    ) -> tuple[Snapshot, memoryview]:
        found: tuple[Snapshot, memoryview] = await self._client.call(
            "journal.snapshot", self._metad, request, deadline_s=deadline_s
        )
        return found


async def _next(frames: AsyncIterator[JournalFrame]) -> JournalFrame:
    try:
        with trio.fail_after(SILENCE_S):
            return await anext(frames)
    except StopAsyncIteration:
        raise Unavailable("metad has ended the stream of the journal") from None
    except trio.TooSlowError:
        raise Unavailable("metad is silent") from None
