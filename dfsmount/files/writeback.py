"""What the writers of all files share: the dirty budget, the buffers, the upload slots, the age
limit.

`run()` seals packs that have been open for too long, so that no written byte stays in memory only
for more than a few seconds.  A writer that finds the budget used up waits here, and what is open
longest is sealed to make room.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import trio

from dfsmount.files.durability import Durability
from dfsmount.files.layouts import Layouts
from dfsmount.files.packs import BufferPool, Pack
from dfsmount.files.uploader import Uploader
from dfsmount.ports import Metadata
from dfsmount.remote.followed import FollowedPolicies

UPLOADS_MAX = 8  # 32 MiB on their way: enough for ten servers, little enough for one
AGE_MAX_S = 5.0  # what a crash of this host may cost an application that never calls fsync


@dataclass(frozen=True)
class WriteSettings:
    """Sizes that the session and the mount options give."""

    chunk_size_bytes: int
    inline_max_bytes: int
    dirty_max_bytes: int = 256 << 20
    uploads_max: int = UPLOADS_MAX
    age_max_s: float = AGE_MAX_S


class DirtyBudget:
    """How many written bytes may wait for their commit, over all files."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._turn = trio.Lock()  # first come, first served, or large writes would starve
        self._released = trio.Event()
        self.used_bytes = 0

    async def acquire(self, length: int, relieve: Callable[[int], None]) -> None:
        """Wait until `length` bytes fit.  `relieve(length)` is called to make that happen."""
        if self._fits(length) and not self._turn.locked():
            self.used_bytes += length
            return
        async with self._turn:
            while not self._fits(length):
                self._released = trio.Event()
                relieve(length)
                await self._released.wait()
            self.used_bytes += length

    def release(self, length: int) -> None:
        """These bytes are committed, lost or dropped."""
        self.used_bytes -= length
        self._released.set()

    def _fits(self, length: int) -> bool:
        return not self.used_bytes or self.used_bytes + length <= self._max_bytes


class WriteBack:
    """Shared by all writers of a mount.  Uploads run in `nursery`."""

    def __init__(
        self,
        metadata: Metadata,
        layouts: Layouts,
        uploader: Uploader,
        durability: Durability,
        nursery: trio.Nursery,
        settings: WriteSettings,
        policies: FollowedPolicies,
    ) -> None:
        self.metadata = metadata
        self.layouts = layouts
        self.uploader = uploader
        self.durability = durability
        self.nursery = nursery
        self.settings = settings
        self._policies = policies
        self.budget = DirtyBudget(settings.dirty_max_bytes)
        self.buffers = BufferPool(settings.chunk_size_bytes)
        self.uploads = trio.Semaphore(settings.uploads_max)
        self._open: dict[Pack, Callable[[], None]] = {}  # oldest first; how to seal each
        self._opened = trio.Event()

    def chunk_size_bytes(self, inode: int) -> int:
        """How large the next chunk of a file may be, as far as that is known."""
        return self._policies.chunk_size_bytes(inode) or self.settings.chunk_size_bytes

    def opened(self, pack: Pack, seal: Callable[[], None]) -> None:
        """A pack has its first bytes; `seal` ends it."""
        self._open[pack] = seal
        self._opened.set()

    def closed(self, pack: Pack) -> None:
        """The pack is sealed or dropped."""
        self._open.pop(pack, None)

    def relieve(self, length: int) -> None:
        """Seal the packs that are open longest, unless uploads under way will free enough."""
        waiting = sum(pack.used for pack in self._open)
        freed = self.budget.used_bytes - waiting
        for pack, seal in list(self._open.items()):
            if freed >= length:
                return
            freed += pack.used
            seal()

    async def run(self) -> None:
        """Seal what has been open for `age_max_s`.  Ends by cancellation."""
        while True:
            while not self._open:  # what woke us may have been sealed since
                self._opened = trio.Event()
                await self._opened.wait()
            oldest = next(iter(self._open))
            await trio.sleep_until(oldest.born_s + self.settings.age_max_s)
            now = trio.current_time()
            for pack, seal in list(self._open.items()):
                if pack.born_s + self.settings.age_max_s <= now:
                    seal()
