"""Attributes, xattrs and sizes of inodes as this client sees them: the ground layer of the vfs.

What is held under the lease is answered at once, anything else is asked of metad; what this client
has written but not committed is laid over.  `Names` stands on this, and `Vfs` on both.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from dfsmount.files.durability import Durability
from dfsmount.files.layouts import Layouts
from dfsmount.files.openfiles import OpenFiles
from dfsmount.leases.attrcache import AttrCache
from dfsmount.leases.coherence import Coherence
from dfsmount.leases.exclusive import Leases
from dfsmount.leases.kernel import Notices
from dfsmount.locks.hostlocks import Locks
from dfsmount.names.accesstimes import AccessTimes
from dfsmount.names.mutations import Mutations
from dfsmount.remote.metaclient import MetaClient
from dfsmount.remote.session import Session
from dfswire.errors import DFSError, FileTooBig, Invalid, NoAttribute, NotSupported
from dfswire.messages import FILE_MAX_BYTES, Attr
from dfswire.metadata import StatfsReply
from dfswire.operations import (
    ACL_ACCESS,
    ACL_DEFAULT,
    AnyOperation,
    RemoveXattr,
    SetAttr,
    SetFlags,
    SetXattr,
)

XATTR_SPACES = (b"user.", b"trusted.", b"security.")


@dataclass
class Parts:
    """What these three layers are made of; assembled in client.py.

    `acl`: the kernel enforces access control lists, so they can be set.
    """

    meta: MetaClient
    mutations: Mutations
    session: Session
    attrs: AttrCache
    layouts: Layouts
    files: OpenFiles
    coherence: Coherence
    locks: Locks
    durability: Durability
    times: AccessTimes
    leases: Leases
    notices: Notices
    acl: bool = False
    now_ns: Callable[[], int] = time.time_ns


class Attributes:
    """Operations on an inode, whatever its names."""

    def __init__(self, parts: Parts) -> None:
        self._meta = parts.meta
        self._mutations = parts.mutations
        self._session = parts.session
        self._attrs = parts.attrs
        self._layouts = parts.layouts
        self._files = parts.files
        self._coherence = parts.coherence
        self._locks = parts.locks
        self._durability = parts.durability
        self._times = parts.times
        self._acl = parts.acl
        self._leases = parts.leases
        self._notices = parts.notices
        self._now_ns = parts.now_ns

    def attr_timeout_s(self, inode: int) -> float:
        """How long the attributes just answered may be kept; 0 when they may not."""
        return self._session.lease_left_s() if self._attrs.attr(inode) is not None else 0.0

    async def getattr(self, inode: int) -> Attr:
        attr = self._attrs.attr(inode)
        if attr is None:
            with self._attrs.asking() as token:
                attr = await self._meta.getattr(inode)
                await self._learn(attr, token)
        return self.newest(attr)

    async def setattr(self, change: SetAttr, handle: int | None = None) -> Attr:
        """chmod, chown, utimens, truncate.

        Dirty data goes first, or its later commit would undo the times that are set here.  Of times
        that do not fit into 64 bits of nanoseconds the nearest is taken, as Linux does elsewhere.
        `handle` is that of ftruncate(2).
        """
        if handle is not None:
            self._files.handle(handle)
        change = msgspec.structs.replace(
            change, atime_ns=_nearest(change.atime_ns), mtime_ns=_nearest(change.mtime_ns)
        )
        if change.size is not None:
            return await self._truncate(change)
        if (attr := await self._change_later(change)) is not None:
            return attr
        await self._files.flush_inode(change.inode)
        try:
            attrs = await self._submit(change)
        finally:
            if change.mode is not None and ACL_ACCESS in (self._attrs.xattrs(change.inode) or {}):
                self._attrs.forget_xattrs(change.inode)  # it follows the mode
        return self.newest(attrs[0])

    async def _change_later(self, change: SetAttr) -> Attr | None:
        """Of a file that is being made here, and of which nobody else can know anything, leave it
        to the writer: metad hears of it with the contents.  None: it must be told now.

        tar and cp change three attributes of each file that they have just written; told one by one
        (and each one synced by metad) that was more than half of their time.
        """
        inode = change.inode
        if not self._leases.since_creation(inode) or self._files.any_writer(inode) is None:
            return None
        async with self._leases.writing(inode) as writing:
            writer, attr = self._files.any_writer(inode), self._attrs.attr(inode)
            new = self._leases.since_creation(inode)
            if new and writer is not None and attr is not None and not attr.flags:
                writer.change_attributes(change, max(self._now_ns(), attr.ctime_ns + 1))
            else:
                attr = None
        if attr is not None and writing.through:
            await self._files.flush_inode(inode)
        return attr and self.newest(attr)

    async def setxattr(
        self,
        inode: int,
        name: bytes,
        value: bytes,
        flags: int = 0,
        *,
        clear_setgid: bool = False,
    ) -> None:
        """setxattr(2).  `clear_setgid`: who sets an ACL is not of the file's group."""
        operation = SetXattr(
            inode=inode,
            name=self._check_xattr(name),
            value=value,
            flags=flags,
            clear_setgid=clear_setgid,
        )
        await self._change_xattr(operation)

    async def removexattr(self, inode: int, name: bytes) -> None:
        await self._change_xattr(RemoveXattr(inode=inode, name=self._check_xattr(name)))

    async def getxattr(self, inode: int, name: bytes) -> bytes:
        name = self._check_xattr(name)
        values = await self._xattrs(inode)
        if name not in values:
            raise NoAttribute(f"inode {inode} has no {name!r}")
        return values[name]

    async def listxattr(self, inode: int) -> list[bytes]:
        return [name for name in await self._xattrs(inode) if self._has_meaning(name)]

    async def get_flags(self, inode: int) -> int:
        """FS_IOC_GETFLAGS."""
        return (await self.getattr(inode)).flags

    async def set_flags(self, inode: int, flags: int) -> None:
        """FS_IOC_SETFLAGS.  What was written before must not be refused after it."""
        operation = SetFlags(inode=inode, flags=flags)
        writer = self._files.any_writer(inode)
        if writer is not None:
            await writer.in_order(lambda: self._mutations.submit(operation))
        else:
            await self._submit(operation)

    async def statfs(self) -> StatfsReply:
        return await self._meta.statfs()

    async def readlink(self, inode: int) -> bytes:
        target = self._attrs.target(inode)
        if target is None:
            with self._attrs.asking() as token:
                target = await self._meta.readlink(inode)
                self._attrs.put_target(inode, target, token)
        self._note_reading(inode)
        return target

    def newest(self, attr: Attr) -> Attr:
        """What is known now of an inode whose attributes were `attr` a moment ago."""
        return self._overlaid(self._attrs.attr(attr.inode) or attr)

    # Inside

    def _note_reading(self, inode: int) -> None:
        """To ask metad about the inode first would cost more than such a time is worth."""
        if (attr := self._attrs.attr(inode)) is not None:
            self._times.note(attr)

    async def _learn(self, attr: Attr, token: int) -> None:
        """Keep attributes that metad told.

        Two questions at once about an inode that is being changed elsewhere may get the attributes
        before and after the change.  The kernel keeps those that it is given first; so before
        anybody is given the newer ones, the older ones go, there too.
        """
        if self._attrs.outdated_by(attr):
            await self._coherence.attr_changed(attr.inode)
        self._attrs.put_attr(attr, token)

    async def _truncate(self, change: SetAttr) -> Attr:
        """Truncation stays in order with this client's own commits; open or not."""
        assert change.size is not None
        check_size(change.size)

        async def submit() -> list[Attr]:
            try:
                return await self._submit(change)
            except DFSError:  # it may have happened all the same
                self._layouts.invalidate(change.inode)
                raise

        writer = self._files.any_writer(change.inode)
        if writer is not None:
            attrs = await writer.truncate(change.size, submit)
        else:
            attrs = await submit()
            # All of it: a commit by who opened it meanwhile may be executed before, answered after.
            self._layouts.invalidate(change.inode)
        return self.newest(attrs[0])

    async def _change_xattr(self, operation: SetXattr | RemoveXattr) -> None:
        try:
            await self._submit(operation)
        finally:
            self._attrs.forget_xattrs(operation.inode)

    async def _xattrs(self, inode: int) -> dict[bytes, bytes]:
        known = self._attrs.xattrs(inode)
        if known is None:
            with self._attrs.asking() as token:
                xattrs = await self._meta.xattrs(inode)
                self._attrs.put_xattrs(inode, xattrs, token)
            known = {xattr.name: xattr.value for xattr in xattrs}
        return known

    def _check_xattr(self, name: bytes) -> bytes:
        """Refuse ACLs where nobody would enforce them, and what is in no name space.

        An ACL that were merely stored would protect nothing, and `cp -a`, content with having set
        it, would not set the mode any more.
        """
        if name in XATTR_SPACES:
            raise Invalid(f"{name!r} is the beginning of a name")
        if not self._has_meaning(name):
            raise NotSupported(f"no attributes like {name!r}")
        return name

    def _has_meaning(self, name: bytes) -> bool:
        if self._acl and name in (ACL_ACCESS, ACL_DEFAULT):
            return True
        return name.startswith(XATTR_SPACES)

    async def _submit(self, operation: AnyOperation) -> list[Attr]:
        return (await self._mutations.submit(operation)).attrs

    def _overlaid(self, attr: Attr) -> Attr:
        """With what this client has written but not committed, and when it has read."""
        attr = self._times.overlaid(attr)
        writer = self._files.writer(attr.inode)
        return attr if writer is None else writer.overlaid(attr)

    async def _keep_bounds(self) -> None:
        if self._attrs.is_full:
            await self._coherence.drop_all()


def _nearest(time_ns: int | None) -> int | None:
    return None if time_ns is None else max(-(1 << 63), min(time_ns, (1 << 63) - 1))


def check_size(size: int) -> None:
    if size > FILE_MAX_BYTES:
        raise FileTooBig(f"files end at {FILE_MAX_BYTES} bytes")
