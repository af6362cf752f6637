"""The kernel's view: pyfuse3 handlers of a few lines each.

Every handler calls the vfs, converts between kernel types and messages, and maps one exception to
an errno; nothing here knows how a file system works.  `KernelCaches` is the way back: invalidations
from other clients.  Entries and attributes are given to the kernel for as long as the lease holds.

A handler must not await between the vfs's answer and its return: then no invalidation can come
between checking that the answer is still true and the kernel having it.
"""

from __future__ import annotations

import errno
import logging
import os
import struct
from collections.abc import Callable, Coroutine, Sequence
from functools import partial, wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar, cast

from dfsmount.lowlevel.requests import Requests, errno_of  # isort: split

import pyfuse3
from pyfuse3 import FileHandleT, FileNameT, FlagT, FUSEError, InodeT, ModeT, RequestContext

from dfsmount.config import MountConfig
from dfsmount.nested import is_mounted_upon
from dfsmount.vfs import Vfs
from dfswire.errors import DFSError, NoEntry, Stale
from dfswire.messages import BLOCK_SIZE_BYTES, NAME_MAX_BYTES, Attr
from dfswire.operations import ACL_ACCESS, SetAttr

log = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

STATFS_BLOCK_BYTES = 4096
UNNAMED = b"/"  # the name in an O_TMPFILE, which the library hands over as a create
FUSE_NOTIFY_INVAL_INODE = 2  # linux/fuse.h
FUSE_NOTIFY_INVAL_ENTRY = 3
FUSE_NOTIFY_INC_EPOCH = 8
FUSE_OUT_HEADER_BYTES = 16
FUSE_EXPIRE_ONLY = 1  # before Linux 6.2 the field was padding, and the entry is taken out


def speaks_errno(
    handler: Callable[P, Coroutine[Any, Any, T]],
) -> Callable[P, Coroutine[Any, Any, T]]:
    """The one place where an error of ours becomes the kernel's."""

    @wraps(handler)
    async def wrapped(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return await handler(*args, **kwargs)
        except DFSError as problem:
            raise FUSEError(errno_of(handler.__name__, problem)) from problem

    return wrapped


def given_inode(
    handler: Callable[P, Coroutine[Any, Any, T]],
) -> Callable[P, Coroutine[Any, Any, T]]:
    """For handlers that the kernel calls with the inode at the end of a path that it has walked.

    When that inode is gone, its name was removed or given to another inode meanwhile, and ENOENT
    would be a lie in the second case: rename(2) promises that the name is always there.  ESTALE
    makes the kernel walk the path once more, asking for every name.
    """

    @wraps(handler)
    async def wrapped(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return await handler(*args, **kwargs)
        except NoEntry as problem:
            raise Stale(str(problem)) from problem

    return wrapped


Handler = Callable[..., Coroutine[Any, Any, Any]]
AHandler = TypeVar("AHandler", bound=Handler)


def question(handler: AHandler) -> AHandler:
    """For handlers that change nothing: they are given up when the caller is killed."""

    @wraps(handler)
    async def wrapped(self: Handlers, *args: Any) -> Any:
        return await self.requests.ask(handler(self, *args))

    return cast(AHandler, wrapped)


def change(
    undo: Callable[[Handlers, Any], Coroutine[Any, Any, None]] | None = None,
) -> Callable[[AHandler], AHandler]:
    """For handlers that change something: they go on even when the caller is killed.

    `undo(self, result)` takes back what the kernel did not get to know then.
    """

    def decorate(handler: AHandler) -> AHandler:
        @wraps(handler)
        async def wrapped(self: Handlers, *args: Any) -> Any:
            taking_back = partial(undo, self) if undo is not None else None
            return await self.requests.change(handler(self, *args), taking_back)

        return cast(AHandler, wrapped)

    return decorate


async def forget_entry(self: Handlers, entry: pyfuse3.EntryAttributes) -> None:
    self.kernel.forget(entry.st_ino, 1)


async def close_file(self: Handlers, file: pyfuse3.FileInfo) -> None:
    await self.vfs.release(file.fh)


async def forget_file(
    self: Handlers, made: tuple[pyfuse3.FileInfo, pyfuse3.EntryAttributes]
) -> None:
    await close_file(self, made[0])
    await forget_entry(self, made[1])


class KernelCaches:
    """The kernel's inodes and names, as far as this mount has told it of them."""

    def __init__(self) -> None:
        self._lookups: dict[int, int] = {}
        self._channel = -1
        self.device: int | None = None  # the file system's number, once it is mounted

    def attach(self) -> None:
        """To be called when pyfuse3 has opened the device; it does not tell how it is numbered.

        The copy is never closed: a notification from a thread that is late must not be written to
        whatever else has got the number by then.
        """
        opened = Path("/proc/self/fd")
        numbers = (int(entry.name) for entry in opened.iterdir() if _target(entry) == "/dev/fuse")
        self._channel = os.dup(next(numbers))

    def count(self, inode: int) -> None:
        """The kernel learns of an inode (once more)."""
        self._lookups[inode] = self._lookups.get(inode, 0) + 1

    def forget(self, inode: int, count: int) -> bool:
        """The kernel gives lookups back; True when it does not know the inode any more."""
        left = self._lookups.get(inode, 0) - count
        if left > 0:
            self._lookups[inode] = left
            return False
        self._lookups.pop(inode, None)
        return True

    def inodes(self) -> list[int]:
        return [pyfuse3.ROOT_INODE, *self._lookups]

    def forget_inode(self, inode: int, data: bool) -> None:
        _ignoring_enoent(lambda: pyfuse3.invalidate_inode(inode, not data))

    def forget_pages(self, inode: int, offset: int, end: int | None) -> None:
        length = 0 if end is None else end - offset  # 0: up to the end
        body = struct.pack("=Qqq", inode, offset, length)
        _ignoring_enoent(lambda: self._notify(FUSE_NOTIFY_INVAL_INODE, body))

    def expire_names(self) -> bool:
        """All entries are asked for again when they are next walked through (Linux 6.16).

        Unlike forget_name this waits for no operation in the directory, and is not to be done when
        something is mounted inside, see nested.py.
        """
        if self.device is None or is_mounted_upon(self.device):
            return False
        try:
            _ignoring_enoent(lambda: self._notify(FUSE_NOTIFY_INC_EPOCH, b""))
        except OSError as problem:
            if problem.errno != errno.EINVAL:
                raise
            return False
        return True

    def forget_name(self, parent: int, name: bytes) -> None:
        """The entry expires: the next walk through it asks.

        pyfuse3.invalidate_entry would take it out of the tree, and every process in that directory
        would get ENOENT from getcwd(2) until somebody walks there by a path.
        """
        body = struct.pack("=QII", parent, len(name), FUSE_EXPIRE_ONLY) + name + b"\0"
        _ignoring_enoent(lambda: self._notify(FUSE_NOTIFY_INVAL_ENTRY, body))

    def _notify(self, code: int, body: bytes) -> None:
        head = struct.pack("=IiQ", FUSE_OUT_HEADER_BYTES + len(body), code, 0)
        os.write(self._channel, head + body)


def _target(link: Path) -> str:
    try:
        return str(link.readlink())
    except FileNotFoundError:  # closed since, as the listing itself
        return ""


def _ignoring_enoent(notify: Callable[[], object]) -> None:
    """The kernel answers ENOENT for what it does not have: it is forgotten already."""
    try:
        notify()
    except OSError as problem:
        if problem.errno not in (errno.ENOENT, errno.ENOTCONN, errno.ENODEV):
            raise


class Handlers(pyfuse3.Operations):
    """pyfuse3's operations on a Vfs.

    Each is a question or a change, except for what the kernel does not wait for: forget, release
    and releasedir.  Reads count as changes: a process that waits for pages can be killed without
    our help, and a scope that can be cancelled costs 5 us.
    """

    supports_dot_lookup = True
    enable_writeback_cache = False  # written data must reach the vfs to be seen by other clients

    def __init__(
        self, vfs: Vfs, kernel: KernelCaches, requests: Requests, *, acl: bool = False
    ) -> None:
        super().__init__()
        self.enable_acl = acl
        self.vfs = vfs
        self.kernel = kernel
        self.requests = requests

    def _attributes(self, attr: Attr) -> pyfuse3.EntryAttributes:
        entry = pyfuse3.EntryAttributes()
        entry.st_ino, entry.generation = attr.inode, attr.generation
        entry.st_mode, entry.st_nlink = attr.mode, attr.nlink
        entry.st_uid, entry.st_gid, entry.st_rdev = attr.uid, attr.gid, attr.rdev
        entry.st_size, entry.st_blksize = attr.size, BLOCK_SIZE_BYTES
        entry.st_blocks = -(-attr.allocated_bytes // 512)
        entry.st_atime_ns, entry.st_mtime_ns = attr.atime_ns, attr.mtime_ns
        entry.st_ctime_ns = attr.ctime_ns
        entry.attr_timeout = self.vfs.attr_timeout_s(attr.inode)
        entry.entry_timeout = 0.0
        return entry

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
            return self._entry(parent_inode, name, attr)
        timeout_s = self.vfs.name_timeout_s(parent_inode, name, None)
        if timeout_s <= 0:
            raise FUSEError(errno.ENOENT)
        entry = pyfuse3.EntryAttributes()  # inode 0: the kernel may remember that there is none
        entry.st_ino, entry.entry_timeout = 0, timeout_s
        return entry

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
        change = SetAttr(
            inode=inode,
            mode=attr.st_mode if fields.update_mode else None,
            uid=attr.st_uid if fields.update_uid else None,
            gid=attr.st_gid if fields.update_gid else None,
            size=attr.st_size if fields.update_size else None,
            atime_ns=attr.st_atime_ns if fields.update_atime else None,
            mtime_ns=attr.st_mtime_ns if fields.update_mtime else None,
        )
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
        figures = await self.vfs.statfs()
        data = pyfuse3.StatvfsData()
        data.f_bsize = data.f_frsize = STATFS_BLOCK_BYTES
        data.f_blocks = figures.total_bytes // STATFS_BLOCK_BYTES
        data.f_bfree = data.f_bavail = figures.free_bytes // STATFS_BLOCK_BYTES
        data.f_files = figures.inodes
        data.f_ffree = data.f_favail = figures.inodes_free
        data.f_namemax = NAME_MAX_BYTES
        return data

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


def fuse_options(config: MountConfig) -> set[str]:
    """The options for pyfuse3.init.  What a set-uid program or device node may do stays off."""
    options = {"default_permissions", f"fsname={config.metad}", f"subtype={config.subtype}"}
    options |= {word for word in ("allow_other", "ro", "noexec") if getattr(config, word)}
    if os.geteuid() == 0:  # fusermount3 sets these by itself for others
        options |= {"suid" if config.suid else "nosuid", "dev" if config.dev else "nodev"}
    return options


def raise_read_ahead(mount_point: str, size_bytes: int) -> bool:
    """Let the kernel ask for more than 128 KiB at a time (2.2 -> 4.4 GB/s).  Needs root."""
    device = Path(mount_point).stat().st_dev
    path = f"/sys/class/bdi/{os.major(device)}:{os.minor(device)}/read_ahead_kb"
    try:
        with open(path, "w") as setting:
            setting.write(str(size_bytes >> 10))
    except OSError as problem:
        log.info("kernel read-ahead stays as it is: %s", problem)
        return False
    return True
