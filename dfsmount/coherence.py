"""Makes this host forget: what happens when metad says that something is no longer true.

`Coherence` is the session's listener.  It clears the caches of this process, then the kernel's
through the `Kernel` seam (pyfuse3 in fuse.py, a fake in tests), and returns when neither will serve
the old state again; only then does the other client's change complete.  It also keeps the record of
open files, because an inode whose last name went elsewhere must live until it is closed here.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Collection
from typing import Protocol

import trio

from dfsmount.attrcache import AttrCache
from dfsmount.layouts import Layouts
from dfswire.locks import HeldLocks
from dfswire.messages import Invalidated, Invalidation

log = logging.getLogger(__name__)

KERNEL_PATIENCE_S = 1.0  # see _tell_kernel


class Kernel(Protocol):
    """The kernel's caches.  Both calls block and are made from a worker thread."""

    def forget_inode(self, inode: int, data: bool) -> None:
        """Attributes, and with `data` the page cache."""

    def forget_name(self, parent: int, name: bytes) -> None:
        """One directory entry."""

    def inodes(self) -> list[int]:
        """Every inode that the kernel may know."""


class NoKernel:
    """For clients that are not a mount (tests, and later the gateway)."""

    def forget_inode(self, inode: int, data: bool) -> None: ...

    def forget_name(self, parent: int, name: bytes) -> None: ...

    def inodes(self) -> list[int]:
        return []


class OpenFiles(Protocol):
    """What the vfs knows of open files."""

    def open_inodes(self) -> list[int]: ...

    def unlinked_elsewhere(self, inode: int) -> None:
        """The last name is gone: say Release now, or when the inode is closed."""

    def session_lost(self, fenced: Collection[int]) -> None:
        """Uncommitted data can no longer be committed; open files of these inodes are useless."""


class Locks(Protocol):
    """What is known of the locks of this client."""

    def held(self) -> HeldLocks: ...

    def session_lost(self) -> Collection[int]:
        """Nothing is held any more; returns the inodes on which something was."""


class NoLocks:
    """For clients that lock nothing."""

    def held(self) -> HeldLocks:
        return HeldLocks()

    def session_lost(self) -> Collection[int]:
        return ()


class Coherence:
    """Listener of one session.

    `changing` counts this client's own operations under way in each directory.  Notifications
    that nobody waits for run in `nursery`.
    """

    def __init__(
        self, attrs: AttrCache, layouts: Layouts, files: OpenFiles, nursery: trio.Nursery
    ) -> None:
        self.kernel: Kernel = NoKernel()
        self.locks: Locks = NoLocks()
        self.changing: Counter[int] = Counter()
        self._attrs = attrs
        self._layouts = layouts
        self._files = files
        self._nursery = nursery
        # No limit: a notification that waited for a thread until nobody was patient any more would
        # never reach the kernel.
        self._threads = trio.CapacityLimiter(math.inf)

    async def invalidate(self, invalidations: list[Invalidation]) -> None:
        """Forget these things here and in the kernel."""
        inodes: dict[int, bool] = {}  # inode -> the pages too
        names: list[tuple[int, bytes]] = []
        for item in invalidations:
            if item.what & (Invalidated.ATTR | Invalidated.DATA | Invalidated.GONE):
                self._attrs.forget_attr(item.inode)
                data = bool(item.what & Invalidated.DATA)
                inodes[item.inode] = inodes.get(item.inode, False) or data
            if item.what & Invalidated.DATA:
                self._layouts.invalidate(item.inode)
            if item.what & Invalidated.NAME:
                self._attrs.forget_name(item.inode, item.name)
                names.append((item.inode, item.name))
            if item.what & Invalidated.ALL_NAMES:
                names += [(item.inode, name) for name in self._attrs.forget_names(item.inode)]
            if item.what & Invalidated.GONE:
                self._files.unlinked_elsewhere(item.inode)
        await self._tell_kernel(inodes, names)

    async def pages_written(self, inode: int) -> None:
        """This client wrote past the kernel's page cache: pages read meanwhile must go."""
        await self._tell_kernel({inode: True}, [])

    async def attr_changed(self, inode: int) -> None:
        """This client learnt of newer attributes by asking, before it was told of them."""
        await self._tell_kernel({inode: False}, [])

    def forget_names_soon(self, names: list[tuple[int, bytes]]) -> None:
        """Nobody here knows (any more) what these names stand for, and the kernel may think that it
        does.  It forgets them when the operations of this client in their directories are over."""
        if names and not isinstance(self.kernel, NoKernel):
            self._nursery.start_soon(self._in_thread, {}, names)

    async def drop_all(self) -> None:
        names = self._attrs.drop_all()
        self._layouts.clear()
        await self._tell_kernel(dict.fromkeys(self.kernel.inodes(), True), names)

    def open_inodes(self) -> list[int]:
        return self._files.open_inodes()

    def held_locks(self) -> HeldLocks:
        return self.locks.held()

    async def session_lost(self) -> None:
        self._files.session_lost(self.locks.session_lost())

    async def _tell_kernel(self, inodes: dict[int, bool], names: list[tuple[int, bytes]]) -> None:
        """Invalidate in the kernel, from a thread, since the kernel may make that call wait.

        It waits for an operation of this mount that is under way in the same directory.  When that
        operation itself waits (through metad) for the client that waits for us, nobody would ever
        go on; so where we are changing the directory ourselves the kernel's answer is not awaited:
        its entry goes as soon as our own operation returns.  Pages may be locked by a request of
        ours in the same way, hence KERNEL_PATIENCE_S.
        """
        if isinstance(self.kernel, NoKernel) or not (inodes or names):
            return
        patient = [(parent, name) for parent, name in names if not self.changing[parent]]
        impatient = [(parent, name) for parent, name in names if self.changing[parent]]
        if impatient:
            self._nursery.start_soon(self._in_thread, {}, impatient)
        with trio.move_on_after(KERNEL_PATIENCE_S) as patience:
            await self._in_thread(inodes, patient)
        if patience.cancelled_caught:
            log.info("the kernel is slow to forget %d inodes; going on", len(inodes))

    async def _in_thread(self, inodes: dict[int, bool], names: list[tuple[int, bytes]]) -> None:
        kernel = self.kernel

        def forget() -> None:
            for parent, name in names:
                kernel.forget_name(parent, name)
            for inode, data in inodes.items():
                kernel.forget_inode(inode, data)

        await trio.to_thread.run_sync(forget, abandon_on_cancel=True, limiter=self._threads)
