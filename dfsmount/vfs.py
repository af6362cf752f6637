"""The file system as this client sees it.

Described in four layers, this one and those below (ranges.py and names/) and nowhere else; the
kernel adapter (adapter/fuse.py), the simulation and later the gateway are thin users.  Names and
attributes come from what is held under the lease, else from metad; data goes through open files.
Everything raises errors of the tree in dfswire/errors.py.

Between an answer of this class and the caller's next await nothing can invalidate it; the
`*_timeout_s` methods rely on that to tell how long an answer may be believed.
"""

from __future__ import annotations

import logging
import os
import stat

import msgspec

from dfsmount.files.openfiles import Octets, wants_write
from dfsmount.leases.exclusive import WRITE_PARTS
from dfsmount.names.attributes import check_size
from dfsmount.names.namespace import check_name
from dfsmount.ranges import SHARED_LEAST_BYTES, Ranges
from dfswire.attrchanges import without_privileges
from dfswire.errors import NotPermitted, SessionLost
from dfswire.locks import Lock, LockKind, LockType, Range
from dfswire.messages import Attr
from dfswire.operations import FS_APPEND, FS_IMMUTABLE, Create, CreateUnnamed, SetAttr

log = logging.getLogger(__name__)

READ_AGAIN_MAX = 10  # while another client changes the file again and again


class Vfs(Ranges):
    """All operations of a file system: those of the layers below, and of open files."""

    async def create(
        self,
        parent: int,
        name: bytes,
        mode: int,
        flags: int,
        uid: int,
        gid: int,
        *,
        umask: int = 0,
    ) -> tuple[int, Attr]:
        """open(2) with O_CREAT: a handle, and the file's attributes."""
        operation = Create(
            parent=parent,
            name=check_name(name),
            mode=stat.S_IFREG | stat.S_IMODE(mode),
            uid=uid,
            gid=gid,
            umask=umask & 0o777,
            exclusive=bool(flags & os.O_EXCL),
            lease=WRITE_PARTS if wants_write(flags) else 0,
        )
        attr, is_new = await self._create(operation)
        if is_new:  # to truncate it would be one more change at metad, for nothing
            flags &= ~os.O_TRUNC
        handle = await self.open(attr.inode, flags, privileged=uid == 0)
        try:
            return handle, await self.getattr(attr.inode)
        except BaseException:
            await self._files.close(handle)
            raise

    async def tmpfile(
        self, parent: int, mode: int, flags: int, uid: int, gid: int, umask: int
    ) -> tuple[int, Attr]:
        """open(2) with O_TMPFILE: a file without a name, until it is linked.

        metad takes what is not said to be open for closed when the event stream is opened again; so
        a file that was made while that happened may be gone, and another one is made.
        """
        operation = CreateUnnamed(
            parent=parent,
            mode=stat.S_IFREG | stat.S_IMODE(mode),
            uid=uid,
            gid=gid,
            umask=umask,
            linkable=not flags & os.O_EXCL,
        )
        while True:
            await self._meta.told()
            streams = self._session.stream.count
            (attr,) = await self._submit(operation)
            handle = await self._open(attr.inode, flags)
            self._files.keep_unnamed(handle)
            try:
                if streams == self._session.stream.count:
                    return handle, await self.getattr(attr.inode)
            except BaseException:
                await self._files.close(handle)
                raise
            await self._files.close(handle)

    async def open(self, inode: int, flags: int, *, privileged: bool = True) -> int:
        """A handle for an existing file.  Raises NoEntry.

        `privileged`: by root, who may truncate a set-uid program and leave it one.  (For all other
        changes of contents the kernel clears the bits, with a setattr.)

        The handle comes first, then the look whether the inode is still there: in this order, an
        unlink elsewhere either finds it open and leaves it, or is noticed here.
        """
        handle = await self._open(inode, flags)
        try:
            if flags & os.O_TRUNC:
                if not privileged:
                    await self._drop_privileges(inode)
                lease = self._leases.wanted(inode) if wants_write(flags) else 0
                attr = await self._truncate(SetAttr(inode=inode, size=0, lease=lease))
            else:
                attr = await self.getattr(inode)
            self._files.keep(handle, attr)
            _check_flags(attr, flags)
        except BaseException:
            await self._files.close(handle)
            raise
        return handle

    async def _drop_privileges(self, inode: int) -> None:
        mode = (await self.getattr(inode)).mode
        if (harmless := without_privileges(mode)) != mode:
            await self.setattr(SetAttr(inode=inode, mode=stat.S_IMODE(harmless)))
            await self._coherence.attr_changed(inode)  # after an open the kernel keeps the mode

    async def read(self, handle: int, offset: int, length: int) -> Octets:
        open_file = self._files.handle(handle)
        inode = open_file.file.inode
        with self._notices.locking(inode, offset, length) as locked:
            for _ in range(READ_AGAIN_MAX):
                version = locked.version
                attr = self._attrs.attr(inode) or await self.getattr(inode)
                data = await self._files.read(handle, offset, length, attr)
                if locked.version == version:
                    break
        if not open_file.flags & os.O_NOATIME:
            if open_file.file.writer.has_attributes:  # perhaps an atime, which this one follows
                await open_file.file.writer.flush(durable=False)
                attr = self._attrs.attr(inode) or attr
            self._times.note(attr)
        return data

    async def write(self, handle: int, offset: int, data: Octets) -> int:
        """Write at `offset`; with O_APPEND, at the end that all completed changes have left.

        The kernel names an offset for O_APPEND too, but it computes it from a size that it does not
        refresh after an invalidation, so another client's appended bytes would be overwritten.
        """
        open_file = self._files.handle(handle)
        known = self._attrs.attr(open_file.file.inode)
        if known is not None and known.flags:
            _check_write(self.newest(known), open_file.flags, offset)
        if open_file.flags & os.O_APPEND:
            return await self._append(handle, offset, data)
        check_size(offset + len(data))
        inode = open_file.file.inode
        writing = self._leases.writing(inode)
        with self._notices.locking(inode, offset, len(data)):
            async with writing:
                written = await self._files.write(handle, offset, data, self._now_ns())
        if writing.through:
            await self._files.flush(handle)
        return written

    async def _append(self, handle: int, offset: int, data: Octets) -> int:
        file = self._files.handle(handle).file
        writing = self._leases.writing(file.inode)
        async with file.appending, writing:  # the next one finds the end that this one leaves
            end = (await self.getattr(file.inode)).size
            check_size(end + len(data))
            written = await self._files.write(handle, end, data, self._now_ns())
        if writing.through:
            await self._files.flush(handle)
        if end != offset or file.handles > 1:
            await self._coherence.pages_written(file.inode)
        if self._files.handle(handle).flags & os.O_DSYNC:
            await self.fsync(handle)  # past its pages the kernel does not call it by itself
        return written

    async def copy_range(
        self, handle_in: int, offset_in: int, handle_out: int, offset_out: int, length: int
    ) -> int:
        """copy_file_range(2): how many bytes, 0 at the end of the source."""
        copied = await self._share(handle_in, offset_in, handle_out, offset_out, length)
        if copied is None:
            data = bytes(await self.read(handle_in, offset_in, min(length, SHARED_LEAST_BYTES)))
            copied = await self.write(handle_out, offset_out, data) if data else 0
        return copied

    async def flush(self, handle: int, owner: int | None = None) -> None:
        """close(2) of one descriptor: other clients see the data from here on.

        The POSIX locks of `owner`, the process that closes, go, through whatever descriptor they
        were set.
        """
        inode = self._files.inode(handle)  # the handle may be released while this waits
        try:
            await self._files.flush(handle, closing=True)
        finally:
            if owner is not None:
                await self._locks.release_owner(inode, owner)

    async def fsync(self, handle: int) -> None:
        """The data survives anything from here on."""
        await self._files.flush(handle, durable=True)

    async def release(self, handle: int, flock_owner: int | None = None) -> None:
        """The last close of an open file; what it has locked goes (`flock_owner` is among that)."""
        with self._locks.closing(handle) as owners:
            try:
                await self._files.close(handle)
            finally:
                await self._locks.release(owners)

    async def get_lock(self, inode: int, owner: int, lock: Range) -> Range | None:
        """F_GETLK: a lock that is in the way of `lock`, or None."""
        return await self._locks.get(
            Lock(inode=inode, kind=LockKind.POSIX, owner=owner, range=lock)
        )

    async def set_lock(self, handle: int, owner: int, pid: int, lock: Range, wait: bool) -> None:
        """F_SETLK, and with `wait` F_SETLKW.  Raises WouldBlock, Deadlock, NoLocks.

        When it is cancelled it has not happened; or it returns as if it were not cancelled.
        """
        lock = msgspec.structs.replace(lock, pid=pid)
        await self._set_lock(handle, LockKind.POSIX, owner, lock, wait)

    async def flock(
        self, handle: int, owner: int, kind: LockType, wait: bool, pid: int = 0
    ) -> None:
        """READ for LOCK_SH, WRITE for LOCK_EX; without `wait` LOCK_NB.  Raises WouldBlock."""
        await self._set_lock(handle, LockKind.FLOCK, owner, Range(type=kind, pid=pid), wait)

    async def _set_lock(
        self, handle: int, kind: LockKind, owner: int, lock: Range, wait: bool
    ) -> None:
        if lock.type != LockType.WRITE:
            # Whoever has the lock next sees what was written under this one, even if this host
            # dies now.  What cannot be stored is told by fsync and close, as ever.
            await self._files.flush_inode(self._files.handle(handle).file.inode)
        while True:
            session = await self._meta.current()
            inode = self._files.handle(handle).file.inode  # perhaps fenced with that session's loss
            wanted = Lock(inode=inode, kind=kind, owner=owner, range=lock)
            try:
                await self._locks.set(session, handle, wanted, wait=wait)
            except SessionLost:
                log.debug("inode %d: asking for a lock again under a new session", inode)
            else:
                return

    async def _open(self, inode: int, flags: int) -> int:
        """A handle that metad will respect.

        When the event stream is opened again, metad is told what is open.  What is opened after
        that was put together must wait until the stream is there: metad would take it for closed.
        """
        while True:
            await self._meta.told()
            handle = await self._files.open(inode, flags)
            if self._session.stream.is_open:
                return handle
            await self._files.close(handle)


def _check_flags(attr: Attr, flags: int) -> None:
    """May a file with the flags of `attr` be opened with these of open(2)?"""
    append_only = flags & os.O_APPEND and not flags & os.O_TRUNC
    if wants_write(flags) and (
        attr.flags & FS_IMMUTABLE or (attr.flags & FS_APPEND and not append_only)
    ):
        raise NotPermitted(f"inode {attr.inode} is immutable or append-only")


def _check_write(attr: Attr, flags: int, offset: int) -> None:
    """May a file that has got flags since it was opened be written at `offset`?

    metad would refuse it too, but only when the bytes are committed.
    """
    at_end = flags & os.O_APPEND or offset >= attr.size
    if attr.flags & FS_IMMUTABLE or (attr.flags & FS_APPEND and not at_end):
        raise NotPermitted(f"inode {attr.inode} is immutable or append-only")
