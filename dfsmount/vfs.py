"""The file system as this client sees it.

Described here and only here; the kernel adapter (fuse.py), the simulation and later the gateway are
thin users of it.  Names and attributes come from what is held under the lease, else from metad;
data goes through open files.  Everything raises errors of the tree in dfswire/errors.py.

Between an answer of this class and the caller's next await nothing can invalidate it; the
`*_timeout_s` methods rely on that to tell how long an answer may be believed.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import msgspec

from dfsmount.attrcache import AttrCache
from dfsmount.coherence import Coherence
from dfsmount.directories import COOKIE_DOTDOT, Directories
from dfsmount.layouts import Layouts
from dfsmount.metaclient import MetaClient
from dfsmount.mutations import Mutations
from dfsmount.openfiles import Octets, OpenFiles
from dfsmount.session import Session
from dfswire.errors import (
    DFSError,
    FileTooBig,
    NameTooLong,
    NoAttribute,
    NoEntry,
    NotSupported,
)
from dfswire.messages import FILE_MAX_BYTES, NAME_MAX_BYTES, SYMLINK_MAX_BYTES, Attr, DirEntry
from dfswire.metadata import StatfsReply
from dfswire.operations import (
    RENAME_EXCHANGE,
    AnyOperation,
    Create,
    Link,
    RemoveXattr,
    Rename,
    RmDir,
    SetAttr,
    SetXattr,
    Unlink,
)

DOTS = (b".", b"..")


@dataclass
class Parts:
    """What a Vfs is made of; assembled in client.py."""

    meta: MetaClient
    mutations: Mutations
    session: Session
    attrs: AttrCache
    layouts: Layouts
    files: OpenFiles
    coherence: Coherence


class Vfs:
    """All operations of one mounted file system."""

    def __init__(self, parts: Parts, now_ns: Callable[[], int] = time.time_ns) -> None:
        self._meta = parts.meta
        self._mutations = parts.mutations
        self._session = parts.session
        self._attrs = parts.attrs
        self._layouts = parts.layouts
        self._files = parts.files
        self._coherence = parts.coherence
        self._now_ns = now_ns
        self._directories = Directories(self._fetch_page, self.getattr)

    # How long answers hold

    def attr_timeout_s(self, inode: int) -> float:
        """How long the attributes just answered may be kept; 0 when they may not."""
        return self._session.lease_left_s() if self._attrs.attr(inode) is not None else 0.0

    def name_timeout_s(self, parent: int, name: bytes, inode: int | None) -> float:
        """Likewise for the answer that a name stands for `inode` (None: does not exist)."""
        if name in DOTS or self._attrs.child(parent, name) != (True, inode):
            return 0.0
        return self._session.lease_left_s()

    # Names

    async def lookup(self, parent: int, name: bytes) -> Attr | None:
        """The attributes of a name; None when there is none.

        b"." may also be asked of what is no directory: the kernel does, for file handles.
        """
        _check_name(name)
        if name == b".":
            return await self.getattr(parent)
        known, inode = self._attrs.child(parent, name) if name not in DOTS else (False, None)
        if known:
            await self._keep_bounds()
            if inode is None:
                return None
            with suppress(NoEntry):  # removed since; another inode may have its name: ask for that
                return await self.getattr(inode)
        with self._attrs.asking() as token:
            attr = await self._meta.lookup(parent, name)
            if attr is not None:
                await self._learn(attr, token)
            if name not in DOTS:
                self._learn_name(parent, name, attr.inode if attr else None, token)
        await self._keep_bounds()
        return None if attr is None else self.newest(attr)

    async def make(
        self, parent: int, name: bytes, mode: int, uid: int, gid: int, *, rdev: int = 0
    ) -> Attr:
        """mknod(2): a regular or special file."""
        return await self._create(
            Create(parent=parent, name=_check_name(name), mode=mode, uid=uid, gid=gid, rdev=rdev)
        )

    async def mkdir(self, parent: int, name: bytes, mode: int, uid: int, gid: int) -> Attr:
        directory = stat.S_IFDIR | stat.S_IMODE(mode)
        return await self._create(
            Create(parent=parent, name=_check_name(name), mode=directory, uid=uid, gid=gid)
        )

    async def symlink(self, parent: int, name: bytes, target: bytes, uid: int, gid: int) -> Attr:
        if len(target) > SYMLINK_MAX_BYTES:
            raise NameTooLong(f"link target of {len(target)} bytes")
        mode = stat.S_IFLNK | 0o777
        return await self._create(
            Create(
                parent=parent, name=_check_name(name), mode=mode, uid=uid, gid=gid, target=target
            )
        )

    async def create(
        self, parent: int, name: bytes, mode: int, flags: int, uid: int, gid: int
    ) -> tuple[int, Attr]:
        """open(2) with O_CREAT: a handle, and the file's attributes."""
        operation = Create(
            parent=parent,
            name=_check_name(name),
            mode=stat.S_IFREG | stat.S_IMODE(mode),
            uid=uid,
            gid=gid,
            exclusive=bool(flags & os.O_EXCL),
        )
        attr = await self._create(operation)
        handle = await self.open(attr.inode, flags)
        try:
            return handle, await self.getattr(attr.inode)
        except BaseException:
            await self._files.close(handle)
            raise

    async def readlink(self, inode: int) -> bytes:
        target = self._attrs.target(inode)
        if target is None:
            with self._attrs.asking() as token:
                target = await self._meta.readlink(inode)
                self._attrs.put_target(inode, target, token)
        return target

    async def link(self, inode: int, parent: int, name: bytes) -> Attr:
        await self._files.flush_inode(inode)
        operation = Link(inode=inode, parent=parent, name=_check_name(name))
        with self._changing((parent, name)) as token:
            attrs = await self._submit(operation)
            self._attrs.put_changed_name(parent, name, inode, token)
        return self.newest(attrs[0])

    async def unlink(self, parent: int, name: bytes) -> None:
        inode = await self._inode_of(parent, name)

        async def remove(held: bool) -> list[Attr]:
            operation = Unlink(parent=parent, name=_check_name(name), held=held, expected=inode)
            with self._changing((parent, name)) as token:
                attrs = await self._submit(operation)
                self._attrs.put_changed_name(parent, name, None, token)
            return attrs

        await self._files.while_removing(inode, remove)

    async def rmdir(self, parent: int, name: bytes) -> None:
        with self._changing((parent, name)) as token:
            await self._submit(RmDir(parent=parent, name=_check_name(name)))
            self._attrs.put_changed_name(parent, name, None, token)

    async def rename(
        self, parent: int, name: bytes, new_parent: int, new_name: bytes, flags: int
    ) -> None:
        """rename(2) with its flags."""
        replaced = await self._inode_of(new_parent, new_name)

        async def remove(held: bool) -> list[Attr]:
            operation = Rename(
                parent=parent,
                name=_check_name(name),
                new_parent=new_parent,
                new_name=_check_name(new_name),
                flags=flags,
                held=held,
                expected=replaced,
            )
            with self._changing((parent, name), (new_parent, new_name)) as token:
                attrs = await self._submit(operation)
                if flags & RENAME_EXCHANGE:
                    self._forget_names((parent, name), (new_parent, new_name))
                elif attrs[0].inode != replaced:  # else two names of one file: nothing happened
                    self._attrs.put_changed_name(parent, name, None, token)
                    self._attrs.put_changed_name(new_parent, new_name, attrs[0].inode, token)
                    if not self.name_timeout_s(new_parent, new_name, attrs[0].inode):
                        # The kernel moves its entry, and what that was good for moves along.
                        self._coherence.forget_names_soon([(new_parent, new_name)])
            return attrs

        await self._files.while_removing(replaced, remove)

    # Attributes

    async def getattr(self, inode: int) -> Attr:
        attr = self._attrs.attr(inode)
        if attr is None:
            with self._attrs.asking() as token:
                attr = await self._meta.getattr(inode)
                await self._learn(attr, token)
        return self.newest(attr)

    async def setattr(self, change: SetAttr) -> Attr:
        """chmod, chown, utimens, truncate.

        Dirty data goes first, or its later commit would undo the times that are set here.  Of times
        that do not fit into 64 bits of nanoseconds the nearest is taken, as Linux does elsewhere.
        """
        change = msgspec.structs.replace(
            change, atime_ns=_nearest(change.atime_ns), mtime_ns=_nearest(change.mtime_ns)
        )
        if change.size is not None:
            return await self._truncate(change)
        await self._files.flush_inode(change.inode)
        attrs = await self._submit(change)
        return self.newest(attrs[0])

    async def setxattr(self, inode: int, name: bytes, value: bytes, flags: int = 0) -> None:
        operation = SetXattr(inode=inode, name=_check_xattr(name), value=value, flags=flags)
        await self._change_xattr(operation)

    async def removexattr(self, inode: int, name: bytes) -> None:
        await self._change_xattr(RemoveXattr(inode=inode, name=_check_xattr(name)))

    async def getxattr(self, inode: int, name: bytes) -> bytes:
        values = await self._xattrs(inode)
        if _check_xattr(name) not in values:
            raise NoAttribute(f"inode {inode} has no {name!r}")
        return values[name]

    async def listxattr(self, inode: int) -> list[bytes]:
        return list(await self._xattrs(inode))

    async def statfs(self) -> StatfsReply:
        return await self._meta.statfs()

    # Files

    async def open(self, inode: int, flags: int) -> int:
        """A handle for an existing file.  Raises NoEntry.

        The handle comes first, then the look whether the inode is still there: in this order, an
        unlink elsewhere either finds it open and leaves it, or is noticed here.
        """
        handle = await self._open(inode, flags)
        try:
            if flags & os.O_TRUNC:
                attr = await self._truncate(SetAttr(inode=inode, size=0))
            else:
                attr = await self.getattr(inode)
            self._files.keep(handle, attr)
        except BaseException:
            await self._files.close(handle)
            raise
        return handle

    async def read(self, handle: int, offset: int, length: int) -> Octets:
        inode = self._files.handle(handle).file.inode
        attr = self._attrs.attr(inode) or await self.getattr(inode)
        return await self._files.read(handle, offset, length, attr)

    async def write(self, handle: int, offset: int, data: Octets) -> int:
        """Write at `offset`; with O_APPEND, at the end that all completed changes have left.

        The kernel names an offset for O_APPEND too, but it computes it from a size that it does not
        refresh after an invalidation, so another client's appended bytes would be overwritten.
        """
        open_file = self._files.handle(handle)
        if open_file.flags & os.O_APPEND:
            return await self._append(handle, offset, data)
        _check_size(offset + len(data))
        return await self._files.write(handle, offset, data, self._now_ns())

    async def _append(self, handle: int, offset: int, data: Octets) -> int:
        file = self._files.handle(handle).file
        async with file.appending:  # the next one finds the end that this one leaves
            end = (await self.getattr(file.inode)).size
            _check_size(end + len(data))
            written = await self._files.write(handle, end, data, self._now_ns())
        if end != offset or file.handles > 1:
            await self._coherence.pages_written(file.inode)
        return written

    async def flush(self, handle: int) -> None:
        """close(2) of one descriptor: other clients see the data from here on."""
        await self._files.flush(handle, durable=False)

    async def fsync(self, handle: int) -> None:
        """The data survives anything from here on."""
        await self._files.flush(handle, durable=True)

    async def release(self, handle: int) -> None:
        await self._files.close(handle)

    # Directories

    async def opendir(self, inode: int) -> int:
        return self._directories.open(inode)

    async def readdir(self, handle: int, cookie: int) -> list[DirEntry]:
        """Some entries after `cookie`, none at the end."""
        return await self._directories.read(handle, cookie)

    def directory_of(self, handle: int) -> int:
        return self._directories.inode(handle)

    def releasedir(self, handle: int) -> None:
        self._directories.close(handle)

    def newest(self, attr: Attr) -> Attr:
        """What is known now of an inode whose attributes were `attr` a moment ago."""
        return self._overlaid(self._attrs.attr(attr.inode) or attr)

    # Inside

    async def _open(self, inode: int, flags: int) -> int:
        """A handle that metad will respect.

        When the event stream is opened again, metad is told what is open.  What is opened after
        that was put together must wait until the stream is there: metad would take it for closed.
        """
        while True:
            await self._meta.told()
            handle = await self._files.open(inode, flags)
            if self._session.is_followed:
                return handle
            await self._files.close(handle)

    async def _learn(self, attr: Attr, token: int) -> None:
        """Keep attributes that metad told.

        Two questions at once about an inode that is being changed elsewhere may get the attributes
        before and after the change.  The kernel keeps those that it is given first; so before
        anybody is given the newer ones, the older ones go, there too.
        """
        if self._attrs.outdated_by(attr):
            await self._coherence.attr_changed(attr.inode)
        self._attrs.put_attr(attr, token)

    def _learn_name(self, parent: int, name: bytes, inode: int | None, token: int) -> None:
        if self._attrs.put_name(parent, name, inode, token):
            self._coherence.forget_names_soon([(parent, name)])

    async def _fetch_page(self, inode: int, cookie: int) -> tuple[list[DirEntry], bool, Attr]:
        with self._attrs.asking() as token:
            entries, end, parent = await self._meta.readdir(inode, cookie)
            for entry in entries:
                self._attrs.put_attr(entry.attr, token)
                self._learn_name(inode, entry.name, entry.attr.inode, token)
            if end and cookie <= COOKIE_DOTDOT:
                self._attrs.put_complete(inode, token)
        await self._keep_bounds()
        return entries, end, parent

    async def _create(self, operation: Create) -> Attr:
        with self._changing((operation.parent, operation.name)) as token:
            attrs = await self._submit(operation)
            inode = attrs[0].inode
            self._attrs.put_changed_name(operation.parent, operation.name, inode, token)
            if stat.S_ISDIR(operation.mode):
                self._attrs.put_complete(inode, token)  # nobody else can have put anything in it
        await self._keep_bounds()
        return self.newest(attrs[0])

    async def _truncate(self, change: SetAttr) -> Attr:
        """Truncation stays in order with this client's own commits; open or not."""
        assert change.size is not None
        _check_size(change.size)

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

    async def _inode_of(self, parent: int, name: bytes) -> int | None:
        attr = await self.lookup(parent, name)
        return attr.inode if attr else None

    async def _submit(self, operation: AnyOperation) -> list[Attr]:
        return (await self._mutations.submit(operation)).attrs

    @contextmanager
    def _changing(self, *names: tuple[int, bytes]) -> Iterator[int]:
        """Around an operation that changes these names, each (directory, name).

        Coherence._tell_kernel wants to know of it.  After a failure nothing is known of the names:
        the operation may have happened all the same.
        """
        directories = [directory for directory, _ in names]
        self._coherence.changing.update(directories)
        try:
            with self._attrs.asking() as token:
                yield token
        except BaseException:
            self._forget_names(*names)
            raise
        finally:
            self._coherence.changing.subtract(directories)
            for directory in directories:
                if self._coherence.changing[directory] <= 0:
                    del self._coherence.changing[directory]

    def _forget_names(self, *names: tuple[int, bytes]) -> None:
        for directory, name in names:
            self._attrs.forget_name(directory, name)
        self._coherence.forget_names_soon(list(names))

    def _overlaid(self, attr: Attr) -> Attr:
        """With what this client has written but not committed."""
        writer = self._files.writer(attr.inode)
        if writer is None:
            return attr
        return msgspec.structs.replace(
            attr, size=max(attr.size, writer.dirty_end), mtime_ns=writer.mtime_ns
        )

    async def _keep_bounds(self) -> None:
        if self._attrs.is_full:
            await self._coherence.drop_all()


def _nearest(time_ns: int | None) -> int | None:
    return None if time_ns is None else max(-(1 << 63), min(time_ns, (1 << 63) - 1))


def _check_size(size: int) -> None:
    if size > FILE_MAX_BYTES:
        raise FileTooBig(f"files end at {FILE_MAX_BYTES} bytes")


def _check_xattr(name: bytes) -> bytes:
    """Refuse ACLs and whatever else has a meaning that nobody here would enforce.

    An ACL that were merely stored would protect nothing, and `cp -a`, content with having set it,
    would not set the mode any more.
    """
    if name.startswith(b"system."):
        raise NotSupported(f"no attributes like {name!r}")
    return name


def _check_name(name: bytes) -> bytes:
    if len(name) > NAME_MAX_BYTES:
        raise NameTooLong(f"a name of {len(name)} bytes; {NAME_MAX_BYTES} is the most")
    if not name:
        raise NoEntry("an empty name")
    return name
