"""The scrubber: reads every chunk of a disk through, slowly, and checks it.

Bit rot that nobody reads would otherwise be found when the other replicas are gone.  One Scrubber
per disk; a pass takes the configured period (or less for small stores), goes in the order of ids,
and continues after a restart where it was.  What is bad the store sets aside and reports; repair
makes a new copy.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

import trio

from chunkd.storage import Runner, Store
from dfswire.errors import CorruptChunk, DFSError, UnknownChunk, WrongVersion

log = logging.getLogger(__name__)

_LIST_LIMIT = 1024
_CURSOR_EVERY = 64  # a restart repeats at most so many chunks


@dataclass
class ScrubReport:
    """What one pass found."""

    chunks: int = 0
    bytes: int = 0
    bad: int = 0


class Scrubber:
    """Verifies one disk again and again."""

    def __init__(
        self, store: Store, run: Runner, *, period_s: float, min_bytes_per_s: float
    ) -> None:
        self._store = store
        self._run = run
        self._period_s = period_s
        self._min_bytes_per_s = min_bytes_per_s

    async def run_once(self) -> ScrubReport:
        """One pass from the saved cursor to the end, rate-limited.  Raises DFSError (disk gone)."""
        report = ScrubReport()
        used_bytes = (await self._run(self._store.figures)).used_bytes
        rate = max(self._min_bytes_per_s, used_bytes / self._period_s)
        cursor = await self._run(self._store.load_scrub_cursor)
        while chunks := await self._list_after(cursor):
            for cursor in chunks:
                size = await self._verify(cursor, report)
                await trio.sleep(size / rate)
                if report.chunks % _CURSOR_EVERY == 0:
                    await self._save_cursor(cursor)
        await self._save_cursor(b"")
        return report

    async def run_forever(self) -> None:
        """Passes until cancelled; one starts at most every period."""
        while True:
            started = trio.current_time()
            try:
                report = await self.run_once()
            except DFSError as problem:
                log.warning("scrub of disk %s stopped: %s", self._store.disk, problem)
            else:
                log.info("scrub of disk %s done: %s", self._store.disk, report)
            await trio.sleep_until(started + self._period_s)

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

    async def _save_cursor(self, cursor: bytes) -> None:
        await self._run(lambda: self._store.save_scrub_cursor(cursor))
