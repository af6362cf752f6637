"""The scrubber: reads every chunk of a disk through, slowly, and checks it.

Bit rot that nobody reads would otherwise be found when the other replicas are gone.  One Scrubber
per disk.  A pass is spread over most of the configured period (less for small stores), goes in the
order of ids, and continues after a restart where it was; one that was interrupted for long hurries.
Between chunks it lets requests go first.  What is bad the store sets aside and reports; repair
makes a new copy.  Chunks that vanished are the inventory's to find.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

import trio

from chunkd.scrubnote import ScrubNote
from chunkd.storage import Runner, Store
from dfswire.errors import CorruptChunk, DFSError, UnknownChunk, WrongVersion

log = logging.getLogger(__name__)

_LIST_LIMIT = 1024
_CURSOR_EVERY = 64  # a restart repeats at most so many chunks
PASS_SHARE = 0.9  # of the period that a pass takes: chunks are added, disks are busy
HURRY_SHARE = 0.1  # of the period that a pass takes at least, however late it is
AGAIN_SHARE = 1 / 168  # of the period until a pass that failed goes on: an hour of a week
YIELD_S = 0.05  # while requests are under way


@dataclass
class ScrubReport:
    """What one pass found."""

    chunks: int = 0
    bytes: int = 0
    bad: int = 0


class Scrubber:
    """Verifies one disk again and again.  `busy`: are requests under way at this moment?"""

    def __init__(
        self,
        store: Store,
        run: Runner,
        *,
        period_s: float,
        min_bytes_per_s: float,
        busy: Callable[[], bool] = lambda: False,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._run = run
        self._period_s = period_s
        self._min_bytes_per_s = min_bytes_per_s
        self._busy = busy
        self._wall = wall

    async def run_once(self) -> ScrubReport:
        """One pass from the saved cursor to the end, rate-limited.  Raises DFSError (disk gone)."""
        report = ScrubReport()
        note = await self._run(self._store.load_scrub)
        if not note.cursor or not 0 < note.started_s <= self._wall():
            note = ScrubNote(note.cursor, self._wall(), note.finished_s)
        while chunks := await self._list_after(note.cursor):
            rate = await self._rate(note)
            note = await self._verify_all(chunks, rate, note, report)
        await self._save(ScrubNote(b"", note.started_s, self._wall()))
        return report

    async def run_forever(self) -> None:
        """Passes until cancelled; one starts at most every period."""
        while True:
            note = await self._known()
            if note.started_s and not note.cursor:  # between two passes
                due_s = note.started_s + self._period_s - self._wall()
                await trio.sleep(min(max(due_s, 0), self._period_s))
            try:
                report = await self.run_once()
            except DFSError as problem:
                log.warning("scrub of disk %s stopped: %s", self._store.disk, problem)
                await trio.sleep(self._period_s * AGAIN_SHARE)
            else:
                log.info("scrub of disk %s done: %s", self._store.disk, report)

    async def _known(self) -> ScrubNote:
        try:
            return await self._run(self._store.load_scrub)
        except DFSError as problem:
            log.info("where the scrub of disk %s was is not known: %s", self._store.disk, problem)
            return ScrubNote()

    async def _rate(self, note: ScrubNote) -> float:
        """Bytes per second for what is left, in the time that is left for it."""
        used_bytes = (await self._run(self._store.figures)).used_bytes
        end_s = note.started_s + self._period_s * PASS_SHARE
        left_s = max(end_s - self._wall(), self._period_s * HURRY_SHARE)
        return max(self._min_bytes_per_s, used_bytes * (1 - note.fraction) / left_s)

    async def _verify_all(
        self, chunks: list[bytes], rate: float, note: ScrubNote, report: ScrubReport
    ) -> ScrubNote:
        """Each chunk has the time that its bytes are worth; requests may use it up first."""
        free_at = trio.current_time()
        slot_s = 0.0
        for chunk in chunks:
            with trio.move_on_at(free_at + slot_s):
                while self._busy():  # noqa: ASYNC110 - an event for each request would cost more
                    await trio.sleep(YIELD_S)
            size = await self._verify(chunk, report)
            slot_s = size / rate
            # Time that waiting or a slow disk took is made up for, but not in a burst.
            free_at = max(free_at + slot_s, trio.current_time())
            await trio.sleep_until(free_at)
            note = ScrubNote(chunk, note.started_s, note.finished_s)
            if report.chunks % _CURSOR_EVERY == 0:
                await self._save(note)
        return note

    async def _verify(self, chunk: bytes, report: ScrubReport) -> int:
        """Check one chunk; the bytes read.  Deleted meanwhile is fine."""
        report.chunks += 1
        try:
            size = await self._run(lambda: self._store.verify(chunk))
        except UnknownChunk:
            return 0
        except CorruptChunk:
            report.bad += 1
            return 0
        except WrongVersion as problem:
            log.warning("chunk %s on disk %s: %s", chunk.hex(), self._store.disk, problem)
            return 0
        report.bytes += size
        return size

    async def _list_after(self, cursor: bytes) -> list[bytes]:
        return await self._run(lambda: self._store.list_chunks(cursor, _LIST_LIMIT))

    async def _save(self, note: ScrubNote) -> None:
        await self._run(lambda: self._store.save_scrub(note))
