"""The kernel's view: pyfuse3 handlers of a few lines each.

Every handler calls the vfs, and has kernel types, messages and errors converted (conversions.py);
nothing here knows how a file system works.  Entries and attributes are given to the kernel for as
long as the lease holds.

A handler must not await between the vfs's answer and its return: then no invalidation can come
between checking that the answer is still true and the kernel having it.
"""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Sequence
from functools import partial
from typing import cast

from dfsmount.lowlevel.requests import Requests, change, question  # isort: split

import pyfuse3
from pyfuse3 import FileHandleT, FileNameT, FlagT, FUSEError, InodeT, ModeT, RequestContext

from dfsmount.adapter.conversions import (
    entry_attributes,
    given_inode,
    no_entry,
    set_attr,
    speaks_errno,
    statvfs,
)
from dfsmount.adapter.kernelcaches import KernelCaches
from dfsmount.operationwatch import OperationWatch
from dfsmount.vfs import Vfs
from dfswire.messages import Attr
from dfswire.operations import ACL_ACCESS

log = logging.getLogger(__name__)

UNNAMED = b"/"  # the name in an O_TMPFILE, which the library hands over as a create


async def forget_entry(self: Handlers, entry: pyfuse3.EntryAttributes) -> None:
    self.kernel.forget(entry.st_ino, 1)


async def close_file(self: Handlers, file: pyfuse3.FileInfo) -> None:
    await self.vfs.release(file.fh)


async def forget_file(
    self: Handlers, made: tuple[pyfuse3.FileInfo, pyfuse3.EntryAttributes]
) -> None:
    await close_file(self, made[0])
    await forget_entry(self, made[1])


class Handlers(pyfuse3.Operations):
    """pyfuse3's operations on a Vfs.

    Each is a question or a change, except for what the kernel does not wait for: forget, release
    and releasedir.  Reads count as changes: a process that waits for pages can be killed without
    our help, and a scope that can be cancelled costs 5 us.
    """

    supports_dot_lookup = True
    enable_writeback_cache = False  # written data must reach the vfs to be seen by other clients

    def __init__(
        self,
        vfs: Vfs,
        kernel: KernelCaches,
        requests: Requests,
        *,
        acl: bool = False,
        watch: OperationWatch | None = None,
    ) -> None:
        super().__init__()
        self.enable_acl = acl
        self.vfs = vfs
        self.kernel = kernel
        self.requests = requests
        self.watch = watch or OperationWatch()

    def _attributes(self, attr: Attr) -> pyfuse3.EntryAttributes:
        return entry_attributes(attr, self.vfs.attr_timeout_s(attr.inode))

    def _entry(self, parent: int, name: bytes, attr: Attr) -> pyfuse3.EntryAttributes:
        """Attributes of a name, counted as known to the kernel."""
        entry = self._attributes(attr)
        entry.entry_timeout = self.vfs.name_timeout_s(parent, name, attr.inode)
        self.kernel.count(attr.inode)
        return entry

    # Names

    @speaks_errno
    @question
    async def lookup(
        self, parent_inode: InodeT, name: FileNameT, ctx: RequestContext
    ) -> pyfuse3.EntryAttributes:
        attr = await self.vfs.lookup(parent_inode, name)
        if attr is not None:
            entry = self._entry(parent_inode, name, attr)
            if entry.entry_timeout > 0:
                self.vfs.looked_up(parent_inode, name)
            return entry
        timeout_s = self.vfs.name_timeout_s(parent_inode, name, None)
        if timeout_s <= 0:
            raise FUSEError(errno.ENOENT)
        return no_entry(timeout_s)

    async def forget(self, inode_list: Sequence[tuple[InodeT, int]]) -> None:
        for inode, count in inode_list:
            self.kernel.forget(inode, count)

    @speaks_errno
    @change(forget_entry)
    async def mknod(
        self, parent_inode: InodeT, name: FileNameT, mode: ModeT, rdev: int, ctx: RequestContext
    ) -> pyfuse3.EntryAttributes:
        attr = await self.vfs.make(
            parent_inode, name, mode, ctx.uid, ctx.gid, umask=ctx.umask, rdev=rdev
        )
        return self._entry(parent_inode, name, attr)

    @speaks_errno
    @change(forget_entry)
    async def mkdir(
        self, parent_inode: InodeT, name: FileNameT, mode: ModeT, ctx: RequestContext
    ) -> pyfuse3.EntryAttributes:
        attr = await self.vfs.mkdir(parent_inode, name, mode, ctx.uid, ctx.gid, umask=ctx.umask)
        return self._entry(parent_inode, name, attr)

    @speaks_errno
    @change(forget_entry)
    async def symlink(
        self, parent_inode: InodeT, name: FileNameT, target: FileNameT, ctx: RequestContext
    ) -> pyfuse3.EntryAttributes:
        attr = await self.vfs.symlink(parent_inode, name, target, ctx.uid, ctx.gid)
        return self._entry(parent_inode, name, attr)

    @speaks_errno
    @question
    @given_inode
    async def readlink(self, inode: InodeT, ctx: RequestContext) -> FileNameT:
        return FileNameT(await self.vfs.readlink(inode))

    @speaks_errno
    @change(forget_entry)
    @given_inode
    async def link(
        self, inode: InodeT, new_parent_inode: InodeT, new_name: FileNameT, ctx: RequestContext
    ) -> pyfuse3.EntryAttributes:
        attr = await self.vfs.link(inode, new_parent_inode, new_name)
        return self._entry(new_parent_inode, new_name, attr)

    @speaks_errno
    @change()
    async def unlink(self, parent_inode: InodeT, name: FileNameT, ctx: RequestContext) -> None:
        await self.vfs.unlink(parent_inode, name)

    @speaks_errno
    @change()
    async def rmdir(self, parent_inode: InodeT, name: FileNameT, ctx: RequestContext) -> None:
        await self.vfs.rmdir(parent_inode, name)

    @speaks_errno
    @change()
    async def rename(
        self,
        parent_inode_old: InodeT,
        name_old: FileNameT,
        parent_inode_new: InodeT,
        name_new: FileNameT,
        flags: FlagT,
        ctx: RequestContext,
    ) -> None:
        await self.vfs.rename(parent_inode_old, name_old, parent_inode_new, name_new, flags)

    # Attributes

    @speaks_errno
    @question
    @given_inode
    async def getattr(self, inode: InodeT, ctx: RequestContext) -> pyfuse3.EntryAttributes:
        return self._attributes(await self.vfs.getattr(inode))

    @speaks_errno
    @change()
    @given_inode
    async def setattr(
        self,
        inode: InodeT,
        attr: pyfuse3.EntryAttributes,
        fields: pyfuse3.SetattrFields,
        fh: FileHandleT | None,
        ctx: RequestContext,
    ) -> pyfuse3.EntryAttributes:
        change = set_attr(inode, attr, fields)
        return self._attributes(await self.vfs.setattr(change, fh))

    @speaks_errno
    @change()
    @given_inode
    async def setxattr(self, inode: InodeT, name: bytes, value: bytes, ctx: RequestContext) -> None:
        flags = self.requests.current.flags  # of this request, until something is awaited
        clear_setgid = name == ACL_ACCESS and not await self._is_member(inode, ctx)
        await self.vfs.setxattr(inode, name, value, flags, clear_setgid=clear_setgid)

    async def _is_member(self, inode: InodeT, ctx: RequestContext) -> bool:
        """Is the caller of the file's group (or root)?  Who cannot be asked is not."""
        gid = (await self.vfs.getattr(inode)).gid
        if ctx.uid == 0 or ctx.gid == gid:
            return True
        try:
            return gid in pyfuse3.get_sup_groups(ctx.pid)
        except OSError as problem:  # of another pid namespace, or gone
            log.info("groups of process %d: %s", ctx.pid, problem)
            return False

    @speaks_errno
    @question
    @given_inode
    async def getxattr(self, inode: InodeT, name: bytes, ctx: RequestContext) -> bytes:
        return await self.vfs.getxattr(inode, name)

    @speaks_errno
    @question
    @given_inode
    async def listxattr(self, inode: InodeT, ctx: RequestContext) -> Sequence[bytes]:
        return await self.vfs.listxattr(inode)

    @speaks_errno
    @change()
    @given_inode
    async def removexattr(self, inode: InodeT, name: bytes, ctx: RequestContext) -> None:
        await self.vfs.removexattr(inode, name)

    @speaks_errno
    @question
    async def statfs(self, ctx: RequestContext) -> pyfuse3.StatvfsData:
        return statvfs(await self.vfs.statfs())

    # Files

    @speaks_errno
    async def open(self, inode: InodeT, flags: FlagT, ctx: RequestContext) -> pyfuse3.FileInfo:
        if flags & os.O_TRUNC:
            opening = self._open(inode, flags, privileged=ctx.uid == 0)
            return await self.requests.change(opening, partial(close_file, self))
        return await self.requests.ask(self._open(inode, flags))

    @given_inode
    async def _open(
        self, inode: InodeT, flags: FlagT, *, privileged: bool = True
    ) -> pyfuse3.FileInfo:
        handle = await self.vfs.open(inode, flags, privileged=privileged)
        return self._file_info(inode, handle, flags)

    @speaks_errno
    @change(forget_file)
    async def create(
        self,
        parent_inode: InodeT,
        name: FileNameT,
        mode: ModeT,
        flags: FlagT,
        ctx: RequestContext,
    ) -> tuple[pyfuse3.FileInfo, pyfuse3.EntryAttributes]:
        if name == UNNAMED:
            handle, attr = await self.vfs.tmpfile(
                parent_inode, mode, flags, ctx.uid, ctx.gid, ctx.umask
            )
        else:
            handle, attr = await self.vfs.create(
                parent_inode, name, mode, flags, ctx.uid, ctx.gid, umask=ctx.umask
            )
        return self._file_info(attr.inode, handle, flags), self._entry(parent_inode, name, attr)

    def _file_info(self, inode: int, handle: int, flags: int) -> pyfuse3.FileInfo:
        # Pages of an earlier open are still true exactly while the lease covers the inode.
        keep = self.vfs.attr_timeout_s(inode) > 0
        # The vfs decides where appended bytes go, so they must not go through the kernel's pages,
        # where they would stand at the offset that the kernel believes in.
        append = bool(flags & os.O_APPEND)
        return pyfuse3.FileInfo(fh=handle, keep_cache=keep, direct_io=append)

    @speaks_errno
    @change()
    async def read(self, fh: FileHandleT, off: int, size: int) -> bytes:
        return cast(bytes, await self.vfs.read(fh, off, size))  # pyfuse3 takes any buffer

    @speaks_errno
    @change()
    async def write(self, fh: FileHandleT, off: int, buf: bytes) -> int:
        return await self.vfs.write(fh, off, buf)

    @speaks_errno
    @change()
    async def flush(self, fh: FileHandleT) -> None:
        await self.vfs.flush(fh, self.requests.lock_owner())

    @speaks_errno
    @change()
    async def fsync(self, fh: FileHandleT, datasync: bool) -> None:
        await self.vfs.fsync(fh)

    @speaks_errno
    async def release(self, fh: FileHandleT) -> None:
        await self.vfs.release(fh, self.requests.lock_owner())

    # Directories

    @speaks_errno
    @question
    async def opendir(self, inode: InodeT, ctx: RequestContext) -> FileHandleT:
        return await self.vfs.opendir(inode)

    @speaks_errno
    @question
    async def readdir(self, fh: FileHandleT, start_id: int, token: pyfuse3.ReaddirToken) -> None:
        """Names with attributes (readdirplus); "." and ".." are not counted as lookups.

        The vfs's pages are awaited one at a time; within a page there is no await.
        """
        cookie = start_id
        counted: list[int] = []
        try:
            while page := await self.vfs.readdir(fh, cookie):
                parent = self.vfs.directory_of(fh)
                for entry in page:
                    attributes = self._attributes(self.vfs.newest(entry.attr))
                    attributes.entry_timeout = self.vfs.name_timeout_s(
                        parent, entry.name, entry.attr.inode
                    )
                    name = FileNameT(entry.name)
                    if not pyfuse3.readdir_reply(token, name, attributes, entry.cookie):
                        return
                    if name not in (b".", b".."):
                        self.kernel.count(entry.attr.inode)
                        counted.append(entry.attr.inode)
                    cookie = entry.cookie
        except BaseException:  # nothing of it reaches the kernel
            for inode in counted:
                self.kernel.forget(inode, 1)
            raise

    @speaks_errno
    async def releasedir(self, fh: FileHandleT) -> None:
        self.vfs.releasedir(fh)

    async def fsyncdir(self, fh: FileHandleT, datasync: bool) -> None:
        """Nothing to do: names are on metad's disk before their operation returns."""
