"""Makes this host forget: what happens when metad says that something is no longer true.

`Coherence` is the session's listener, and what is stored through before a lease ends.  It
clears the caches of this process, then the kernel's (kernel.py), and returns when neither will
serve the old state again; only then does the other client's change complete.  It also keeps the
record of open files, because an inode whose last name went elsewhere must live until it is closed
here.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

from dfsmount.files.layouts import Layouts
from dfsmount.leases.attrcache import AttrCache
from dfsmount.leases.exclusive import Leases
from dfsmount.leases.kernel import Notices
from dfsmount.ports import Forgotten
from dfsmount.remote.followed import FollowedPolicies
from dfswire.locks import HeldLocks
from dfswire.messages import Invalidated, Invalidation, Lease


class OpenFiles(Protocol):
    """What the vfs knows of open files."""

    def open_inodes(self) -> list[int]: ...

    def writer(self, inode: int) -> object | None:
        """Something, if the inode is dirty."""

    async def flush_inode(self, inode: int, *, last: bool = False) -> None:
        """Store what is dirty, if anything is."""

    def may_be_mapped(self, inode: int) -> bool:
        """May the kernel have dirty pages of it?"""

    def changed_elsewhere(self, inode: int) -> None:
        """What is still being committed is older than what metad tells of it."""

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
    """Listener of one session."""

    def __init__(
        self,
        attrs: AttrCache,
        layouts: Layouts,
        files: OpenFiles,
        leases: Leases,
        notices: Notices,
        policies: FollowedPolicies,
    ) -> None:
        self.locks: Locks = NoLocks()
        self._attrs = attrs
        self._layouts = layouts
        self._files = files
        self._leases = leases
        self._notices = notices
        self._policies = policies

    def forget(self, invalidations: list[Invalidation]) -> Forgotten:
        """Forget these things here."""
        inodes: dict[int, bool] = {}  # inode -> the pages too
        names: list[tuple[int, bytes]] = []
        for item in invalidations:
            if item.what & (Invalidated.ATTR | Invalidated.DATA | Invalidated.GONE):
                self._attrs.forget_attr(item.inode)
                self._files.changed_elsewhere(item.inode)
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
            if item.what & Invalidated.POLICY:
                self._policies.forget()
        return Forgotten(inodes, names)

    def forget_all(self) -> Forgotten:
        """Everything, here."""
        names = self._attrs.drop_all()
        self._layouts.clear()
        self._policies.forget()
        return Forgotten(names=names, everything=True)

    async def tell_kernel(self, left: Forgotten) -> None:
        """What is still to be forgotten in the kernel."""
        if left.everything:
            await self._notices.tell_all(left.names)
        else:
            await self._notices.tell(left.inodes, left.names)

    async def drop_all(self) -> None:
        await self.tell_kernel(self.forget_all())

    async def pages_written(self, inode: int) -> None:
        """This client wrote past the kernel's page cache: pages read meanwhile must go."""
        await self._notices.tell({inode: True}, [])

    async def attr_changed(self, inode: int) -> None:
        """This client learnt of newer attributes by asking, before it was told of them."""
        await self._notices.tell({inode: False}, [])

    def open_inodes(self) -> list[int]:
        return self._files.open_inodes()

    def held_locks(self) -> HeldLocks:
        return self.locks.held()

    async def session_lost(self) -> None:
        self._leases.lost()
        self._files.session_lost(self.locks.session_lost())

    # Exclusive leases

    def recall(self, leases: list[Lease]) -> None:
        for lease in leases:
            self._leases.recall(lease)

    def leases_in_use(self) -> list[Lease]:
        return self._leases.keep_used()

    def stream_opened(self) -> None:
        self._leases.stream_opened()

    async def write_back(self, inode: int) -> None:
        """What processes have changed in their mappings comes as writes, if the kernel can."""
        if self._files.may_be_mapped(inode):
            await self._notices.tell({inode: True}, [])

    async def store(self, inode: int) -> None:
        await self._files.flush_inode(inode, last=True)

    def is_dirty(self, inode: int) -> bool:
        return self._files.writer(inode) is not None
