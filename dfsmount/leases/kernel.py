"""What the kernel has cached, and how it is made to forget without waiting for ourselves.

Most notifications wait for a lock: that of a directory for a name, those of the pages for data.
The operation that has the lock may be one of ours that waits, through metad, for the client that
waits for us; then nobody would ever go on.  So nothing here waits for our own operations:

* A page that is being read is not awaited, but whoever reads does so again when he was told to
  forget meanwhile (`Locked.version`), so it never gets old bytes.  Of pages that are being written
  only the ends, where the write shares a page, may be old until it returns.
* Where we are changing a directory ourselves (or somebody has its lock for long), all names of the
  kernel expire at once, which takes no lock.  For a while the kernel gets no names of this
  directory to keep, since it will happen again.

What was answered just before may not have reached the kernel's tables yet, and would be believed
once it has: such inodes are told of again until it has, and for such names all expire at once, late
answers too (justanswered.py).
"""

from __future__ import annotations

import logging
import math
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Protocol

import trio

from dfsmount.leases.justanswered import JustAnswered

log = logging.getLogger(__name__)

PATIENCE_S = 1.0  # with the kernel, whatever it waits for
LOCK_PATIENCE_S = 0.05  # with a directory's lock: lookups and changes take milliseconds
CONTESTED_S = 5.0  # two mounts that met in a directory will meet there again
MANY_NAMES = 1000  # one by one they take milliseconds
PAGE_BYTES = 4096
END_LOOK_S = 0.01
LEARNING_S = 10.0  # at most, for the kernel to take in an answer
LEARNING_PAUSE_S = 0.001

Names = list[tuple[int, bytes]]
Pages = tuple[int, int, int | None]  # inode, offset, end (None: that of the file)


class Kernel(Protocol):
    """The kernel's caches.  All calls may block and are made from a worker thread."""

    def forget_inode(self, inode: int, data: bool) -> bool:
        """Attributes, and with `data` the page cache.  Waits for pages that are read or written.

        False: an answer that names the inode is on its way into the kernel; to be said again.
        """

    def forget_pages(self, inode: int, offset: int, end: int | None) -> bool:
        """Attributes, and the pages of a range (None: up to the end of the file).  The same."""

    def forget_name(self, parent: int, name: bytes) -> None:
        """One directory entry.  Waits for operations in the directory."""

    def expire_names(self) -> bool:
        """All directory entries are to be asked for again; waits for nobody.  False: it can't."""

    def inodes(self) -> list[int]:
        """Every inode that the kernel may know.  (Doesn't block.)"""


class NoKernel:
    """For clients that are not a mount (tests, and later the gateway)."""

    def forget_inode(self, inode: int, data: bool) -> bool:
        return True

    def forget_pages(self, inode: int, offset: int, end: int | None) -> bool:
        return True

    def forget_name(self, parent: int, name: bytes) -> None: ...

    def expire_names(self) -> bool:
        return True

    def inodes(self) -> list[int]:
        return []


class Locked:
    """Requests under way on the pages of one inode.  `version` counts what they must notice."""

    def __init__(self) -> None:
        self.spans: list[tuple[int, int]] = []
        self.version = 0


class Notices:
    """The way to the kernel.  What nobody waits for runs in `nursery`.

    `changing` counts this client's own operations under way in each directory.
    """

    def __init__(self, nursery: trio.Nursery) -> None:
        self.kernel: Kernel = NoKernel()
        self.changing: Counter[int] = Counter()
        self._just_answered = JustAnswered()
        self._nursery = nursery
        self._locked: dict[int, Locked] = {}
        self._hindered: trio.Event | None = None  # for those who wait: there is one more request
        self._contested: dict[int, float] = {}  # directory -> until when
        self._expired: set[int] = set()  # those of which the kernel has no name to keep
        # No limit: a notification that waited for a thread until nobody was patient any more would
        # never reach the kernel.
        self._threads = trio.CapacityLimiter(math.inf)

    # What our own requests say

    @contextmanager
    def locking(self, inode: int, offset: int, length: int) -> Iterator[Locked]:
        """Around a request that reads or writes pages, which the kernel has locked for it."""
        locked = self._locked.get(inode)
        if locked is None:
            locked = self._locked[inode] = Locked()
        span = (offset, offset + length)
        locked.spans.append(span)
        if self._hindered is not None:
            self._hindered.set()
            self._hindered = None
        try:
            yield locked
        finally:
            locked.spans.remove(span)
            if not locked.spans:
                del self._locked[inode]

    def is_contested(self, directory: int) -> bool:
        """Must the kernel not keep names of this directory?"""
        until = self._contested.get(directory)
        if until is None:
            return False
        if trio.current_time() < until:
            return True
        del self._contested[directory]
        self._expired.discard(directory)
        return False

    def looked_up(self, parent: int, name: bytes) -> None:
        """The kernel has asked for a name, and is answered that it may keep it."""
        self._just_answered.note(parent, name, trio.current_time())

    def moved(self, parent: int, name: bytes) -> None:
        """The kernel has moved a name here by itself, with the time that it had left elsewhere."""
        self._expired.discard(parent)
        self.forget_soon([(parent, name)])

    # What the kernel must forget

    def forget_soon(self, names: Names) -> None:
        """Nobody waits: it forgets them when the operations in their directories are over."""
        if names and not isinstance(self.kernel, NoKernel):
            self._nursery.start_soon(self._in_thread, {}, names)

    async def tell(self, inodes: dict[int, bool], names: Names) -> None:
        """Return when the kernel has forgotten these inodes (True: their pages too) and names."""
        for inode, data in inodes.items():
            if data and inode in self._locked:
                self._locked[inode].version += 1
        if isinstance(self.kernel, NoKernel) or not (inodes or names):
            return
        with trio.move_on_after(PATIENCE_S) as patience:
            if len(names) < MANY_NAMES or not await self._expire_all():
                await self._tell_names(names)
            await self._tell_inodes(inodes)
        if patience.cancelled_caught:
            log.info("the kernel is slow to forget %d inodes; going on", len(inodes))

    async def tell_all(self, names: Names) -> None:
        """The same of every inode that the kernel knows, and of what is being read without it:
        writes that were lost must not be mixed with what others have written since."""
        await self.tell(dict.fromkeys([*self.kernel.inodes(), *self._locked], True), names)

    async def end(self) -> None:
        """Return when no notification is under way; none follows.

        The mount must go on answering until then.  A notification may wait for a lock whose holder
        waits for an answer; without one, a thread would stay in the kernel for ever and keep
        /dev/fuse open, so that neither this process nor any that waits for it could end.
        """
        while self._threads.borrowed_tokens:  # noqa: ASYNC110 - a limiter tells nobody
            await trio.sleep(END_LOOK_S)
        self.kernel = NoKernel()

    async def _tell_names(self, names: Names) -> None:
        names = [(parent, name) for parent, name in names if not self._has_expired(parent)]
        if not names:
            return
        if any(self.changing[parent] for parent, _ in names):
            await self._expire(names)
            return
        if self._just_answered.has_any_of(names, trio.current_time()):
            if not await self._expire(names):
                await trio.sleep(LOCK_PATIENCE_S)  # the best that can be done there
                await self._begin({}, names).wait()
            return
        done = self._begin({}, names)
        with trio.move_on_after(LOCK_PATIENCE_S):
            await done.wait()
        if not done.is_set() and not await self._expire(names):
            await done.wait()

    def _has_expired(self, directory: int) -> bool:
        if not self.is_contested(directory) or directory not in self._expired:
            return False
        if self.changing[directory]:
            self._contested[directory] = trio.current_time() + CONTESTED_S
        return True

    async def _expire(self, names: Names) -> bool:
        """Let all names expire, and give the kernel none of these directories for a while.

        False when it can't do that.  Then its entries go as soon as our own operations return.
        """
        until = trio.current_time() + CONTESTED_S
        directories = {parent for parent, _ in names}
        self._contested.update(dict.fromkeys(directories, until))
        self._expired -= directories
        if await self._expire_all():
            self._expired |= directories
            return True
        self.forget_soon(names)
        return False

    async def _expire_all(self) -> bool:
        return await trio.to_thread.run_sync(
            self.kernel.expire_names, abandon_on_cancel=True, limiter=self._threads
        )

    async def _tell_inodes(self, inodes: dict[int, bool]) -> None:
        done = self._begin(inodes, [])
        pages = [inode for inode, data in inodes.items() if data]
        while not done.is_set():
            if busy := [inode for inode in pages if inode in self._locked]:
                rest = {inode: data for inode, data in inodes.items() if inode not in busy}
                around = [
                    (inode, *gap) for inode in busy for gap in _gaps(self._locked[inode].spans)
                ]
                await self._in_thread(rest, [], around)
                return
            if self._hindered is None:
                self._hindered = trio.Event()
            await _any_of(done, self._hindered)

    def _begin(self, inodes: dict[int, bool], names: Names) -> trio.Event:
        """Forget in the background; the event says when that is done."""
        done = trio.Event()

        async def forget() -> None:
            await self._in_thread(inodes, names)
            done.set()

        self._nursery.start_soon(forget)
        return done

    async def _in_thread(
        self, inodes: dict[int, bool], names: Names, pages: Iterable[Pages] = ()
    ) -> None:
        kernel = self.kernel

        def forget() -> None:
            for parent, name in names:
                kernel.forget_name(parent, name)
            left = [partial(kernel.forget_inode, *one) for one in inodes.items()]
            left += [partial(kernel.forget_pages, *one) for one in pages]
            give_up_at = time.monotonic() + LEARNING_S
            while (left := [say for say in left if not say()]) and time.monotonic() < give_up_at:
                time.sleep(LEARNING_PAUSE_S)

        await trio.to_thread.run_sync(forget, abandon_on_cancel=True, limiter=self._threads)


async def _any_of(*events: trio.Event) -> None:
    async with trio.open_nursery() as nursery:

        async def wait(event: trio.Event) -> None:
            await event.wait()
            nursery.cancel_scope.cancel()

        for event in events:
            nursery.start_soon(wait, event)


def _gaps(spans: list[tuple[int, int]]) -> Iterator[tuple[int, int | None]]:
    """What lies between these ranges, by whole pages; None: up to the end."""
    at = 0
    for start, end in sorted(spans):
        first = start - start % PAGE_BYTES
        if first > at:
            yield at, first
        at = max(at, end + -end % PAGE_BYTES)
    yield at, None
