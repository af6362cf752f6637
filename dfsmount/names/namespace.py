"""Names and directories as this client sees them.

A directory of which this client holds every name answers for names that do not exist as well, so
making files in a new directory asks metad nothing but to make them.  Stands on `Attributes`; `Vfs`
adds open files.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from dfsmount.names.attributes import Attributes, Parts
from dfsmount.names.directories import COOKIE_DOTDOT, Directories
from dfswire.errors import NameTooLong, NoEntry
from dfswire.messages import NAME_MAX_BYTES, SYMLINK_MAX_BYTES, Attr, DirEntry
from dfswire.operations import RENAME_EXCHANGE, Create, Link, Rename, RmDir, Unlink

DOTS = (b".", b"..")


class Names(Attributes):
    """Operations on names, each (directory, name)."""

    def __init__(self, parts: Parts) -> None:
        super().__init__(parts)
        self._directories = Directories(self._fetch_page, self.getattr)

    def name_timeout_s(self, parent: int, name: bytes, inode: int | None) -> float:
        """Likewise for the answer that a name stands for `inode` (None: does not exist)."""
        if name in DOTS or self._attrs.child(parent, name) != (True, inode):
            return 0.0
        if self._notices.is_contested(parent):
            return 0.0
        return self._session.lease_left_s()

    def looked_up(self, parent: int, name: bytes) -> None:
        """The kernel is answered that it may keep this name."""
        self._notices.looked_up(parent, name)

    async def lookup(self, parent: int, name: bytes) -> Attr | None:
        """The attributes of a name; None when there is none.

        b"." may also be asked of what is no directory: the kernel does, for file handles.
        """
        check_name(name)
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
        self,
        parent: int,
        name: bytes,
        mode: int,
        uid: int,
        gid: int,
        *,
        umask: int = 0,
        rdev: int = 0,
    ) -> Attr:
        """mknod(2): a regular or special file, a directory with mkdir."""
        operation = Create(
            parent=parent,
            name=check_name(name),
            mode=mode,
            uid=uid,
            gid=gid,
            umask=umask & 0o777,
            rdev=rdev,
        )
        attr, _ = await self._create(operation)
        return attr

    async def mkdir(
        self, parent: int, name: bytes, mode: int, uid: int, gid: int, *, umask: int = 0
    ) -> Attr:
        directory = stat.S_IFDIR | stat.S_IMODE(mode)
        return await self.make(parent, name, directory, uid, gid, umask=umask)

    async def symlink(self, parent: int, name: bytes, target: bytes, uid: int, gid: int) -> Attr:
        if len(target) > SYMLINK_MAX_BYTES:
            raise NameTooLong(f"link target of {len(target)} bytes")
        mode = stat.S_IFLNK | 0o777
        attr, _ = await self._create(
            Create(parent=parent, name=check_name(name), mode=mode, uid=uid, gid=gid, target=target)
        )
        return attr

    async def link(self, inode: int, parent: int, name: bytes) -> Attr:
        await self._files.flush_inode(inode)
        operation = Link(inode=inode, parent=parent, name=check_name(name))
        with self._changing((parent, name)) as token:
            attrs = await self._submit(operation)
            self._attrs.put_changed_name(parent, name, inode, token)
        self._files.linked(inode)
        return self.newest(attrs[0])

    async def unlink(self, parent: int, name: bytes) -> None:
        inode = await self._inode_of(parent, name)

        async def remove(held: bool) -> list[Attr]:
            operation = Unlink(parent=parent, name=check_name(name), held=held, expected=inode)
            with self._changing((parent, name)) as token:
                attrs = await self._submit(operation)
                self._attrs.put_changed_name(parent, name, None, token)
            return attrs

        await self._files.while_removing(inode, remove)

    async def rmdir(self, parent: int, name: bytes) -> None:
        with self._changing((parent, name)) as token:
            await self._submit(RmDir(parent=parent, name=check_name(name)))
            self._attrs.put_changed_name(parent, name, None, token)

    async def rename(
        self, parent: int, name: bytes, new_parent: int, new_name: bytes, flags: int
    ) -> None:
        """rename(2) with its flags."""
        replaced = await self._inode_of(new_parent, new_name)

        async def remove(held: bool) -> list[Attr]:
            operation = Rename(
                parent=parent,
                name=check_name(name),
                new_parent=new_parent,
                new_name=check_name(new_name),
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
                        self._notices.moved(new_parent, new_name)
            return attrs

        await self._files.while_removing(replaced, remove)

    # Directories

    async def opendir(self, inode: int) -> int:
        return self._directories.open(inode)

    async def readdir(self, handle: int, cookie: int) -> list[DirEntry]:
        """Some entries after `cookie`, none at the end."""
        if not cookie:
            self._note_reading(self._directories.inode(handle))
        return await self._directories.read(handle, cookie)

    def directory_of(self, handle: int) -> int:
        return self._directories.inode(handle)

    def releasedir(self, handle: int) -> None:
        self._directories.close(handle)

    # Inside

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

    def _learn_name(self, parent: int, name: bytes, inode: int | None, token: int) -> None:
        if self._attrs.put_name(parent, name, inode, token):
            self._notices.forget_soon([(parent, name)])

    async def _create(self, operation: Create) -> tuple[Attr, bool]:
        """The attributes, and True when it is known that there was no such inode before."""
        with self._changing((operation.parent, operation.name)) as token:
            result = await self._mutations.submit(operation)
            made, inode = result.attrs[0], result.attrs[0].inode
            self._attrs.put_changed_name(operation.parent, operation.name, inode, token)
            if result.bare:  # the kernel asks for an xattr before the first write to every file
                self._attrs.put_xattrs(inode, [], token)
            if stat.S_ISDIR(operation.mode):
                self._attrs.put_complete(inode, token)  # nobody else can have put anything in it
        await self._keep_bounds()
        return self.newest(made), result.bare

    async def _inode_of(self, parent: int, name: bytes) -> int | None:
        attr = await self.lookup(parent, name)
        return attr.inode if attr else None

    @contextmanager
    def _changing(self, *names: tuple[int, bytes]) -> Iterator[int]:
        """Around an operation that changes these names, each (directory, name).

        `Notices` wants to know of it.  After a failure nothing is known of the names:
        the operation may have happened all the same.
        """
        directories = [directory for directory, _ in names]
        self._notices.changing.update(directories)
        try:
            with self._attrs.asking() as token:
                yield token
        except BaseException:
            self._forget_names(*names)
            raise
        finally:
            self._notices.changing.subtract(directories)
            for directory in directories:
                if self._notices.changing[directory] <= 0:
                    del self._notices.changing[directory]

    def _forget_names(self, *names: tuple[int, bytes]) -> None:
        for directory, name in names:
            self._attrs.forget_name(directory, name)
        self._notices.forget_soon(list(names))


def check_name(name: bytes) -> bytes:
    if len(name) > NAME_MAX_BYTES:
        raise NameTooLong(f"a name of {len(name)} bytes; {NAME_MAX_BYTES} is the most")
    if not name:
        raise NoEntry("an empty name")
    return name
