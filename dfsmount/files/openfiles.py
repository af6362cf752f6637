"""Open files: handles, the writer and the readers behind them, and inodes that outlive their names.

All handles of an inode share one writer, so this host always sees its own writes; every handle has
its own reader, because read-ahead follows one reader's steps.  The vfs is the user.  It promises
that a lost write is reported once to every handle that was open when it happened, and that an inode
whose last name is gone is released to metad when its last handle here closes, not before.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, field

import trio

from dfsmount.files.reader import Reader
from dfsmount.files.writer import Writer
from dfswire.errors import BadHandle, InputOutput, NoEntry
from dfswire.messages import Attr

log = logging.getLogger(__name__)

Octets = bytes | bytearray | memoryview


@dataclass
class OpenInode:
    """An inode with at least one handle.

    `kept`: metad knows, or will be told in time, that it is open here, so it outlives its names.
    `unnamed`: made without a name, and has none yet.
    `may_be_mapped`: writable, by a process for which the inode stays open as long as that lasts.
    """

    inode: int
    writer: Writer
    handles: int = 0
    unlinked: bool = False
    kept: bool = False
    unnamed: bool = False
    may_be_mapped: bool = False
    appending: trio.Lock = field(default_factory=trio.Lock)  # one write with O_APPEND at a time


@dataclass
class Handle:
    """One open(2).  Fenced: it is good for nothing but to be closed; see `session_lost`."""

    file: OpenInode
    reader: Reader
    flags: int
    errors_seen: int = 0
    fenced: bool = False
    flushed: bool = False  # one of its descriptors was closed: others may be open


@dataclass
class _Removal:
    """Operations under way that may remove the last name of an inode; opens wait for them."""

    count: int = 0
    done: trio.Event = field(default_factory=trio.Event)


class OpenFiles:
    """The table of handles.

    `make_writer(inode)` and `make_reader(inode)` build the data path; `release(inode)` tells
    metad, in the background, that an unlinked inode is not open here; `closed(inode)` is called
    after its last handle; `session_lost` is passed on to the data path.
    """

    def __init__(
        self,
        make_writer: Callable[[int], Writer],
        make_reader: Callable[[int], Reader],
        release: Callable[[int], None],
        session_lost: Callable[[], None] = lambda: None,
        closed: Callable[[int], None] = lambda inode: None,
    ) -> None:
        self._make_writer = make_writer
        self._make_reader = make_reader
        self._release = release
        self._tell_session_lost = session_lost
        self._tell_closed = closed
        self._inodes: dict[int, OpenInode] = {}
        self._handles: dict[int, Handle] = {}
        self._next_handle = 1
        self._removals: dict[int, _Removal] = {}

    # Opening and closing

    async def open(self, inode: int, flags: int) -> int:
        """A new handle.  Waits while the inode's last name may be going."""
        while removal := self._removals.get(inode):
            await removal.done.wait()
        file = self._inodes.get(inode)
        if file is None:
            file = self._inodes[inode] = OpenInode(inode, self._make_writer(inode))
        file.handles += 1
        file.may_be_mapped = file.may_be_mapped or flags & os.O_ACCMODE == os.O_RDWR
        number, self._next_handle = self._next_handle, self._next_handle + 1
        self._handles[number] = Handle(
            file, self._make_reader(inode), flags, file.writer.error_count
        )
        return number

    def keep(self, number: int, attr: Attr) -> None:
        """`attr` was answered after this handle was there.  Raises NoEntry.

        An inode that had lost its last name before has been given up by this client (or is just
        being given up), so metad will not keep it; unless another handle was there already.
        """
        file = self.handle(number).file
        if attr.nlink == 0 and not (file.unlinked or file.kept):
            raise NoEntry(f"inode {file.inode} has no name any more")
        file.kept = True

    def keep_unnamed(self, number: int) -> None:
        """A file that was just made without a name: it lives until it is closed or linked."""
        file = self.handle(number).file
        file.kept = file.unnamed = True

    def linked(self, inode: int) -> None:
        """The inode has got a name (which may be gone again: then `unlinked` says so)."""
        if (file := self._inodes.get(inode)) is not None:
            file.unnamed = False

    async def close(self, number: int) -> None:
        """The last handle of an inode flushes what is left (after mmap there may be something)."""
        handle = self._handles.pop(number)
        file = handle.file
        try:
            # Again as long as others, who closed while this one flushed, have left something.
            while file.handles == 1 and file.writer.has_dirty and not file.unlinked:
                await file.writer.flush(durable=False, last=True)
        finally:
            file.handles -= 1
            if file.handles == 0:
                file.writer.discard()
                del self._inodes[file.inode]
                self._tell_closed(file.inode)
                if file.unlinked or file.unnamed:
                    self._release(file.inode)

    def handle(self, number: int) -> Handle:
        """Raises BadHandle; InputOutput when it is fenced."""
        try:
            handle = self._handles[number]
        except KeyError as problem:
            raise BadHandle(f"no open file with handle {number}") from problem
        if handle.fenced:
            raise InputOutput(
                f"inode {handle.file.inode}: the session was lost with locks on it; open it again"
            )
        return handle

    def inode(self, number: int) -> int:
        """Of a handle, fenced or not."""
        return self._handles[number].file.inode

    def writer(self, inode: int) -> Writer | None:
        """The writer of an open inode, if it has anything to say."""
        file = self._inodes.get(inode)
        return file.writer if file is not None and file.writer.has_dirty else None

    def any_writer(self, inode: int) -> Writer | None:
        """The writer of an open inode, dirty or not."""
        file = self._inodes.get(inode)
        return file.writer if file is not None else None

    # Data

    async def read(self, number: int, offset: int, length: int, attr: Attr) -> Octets:
        """Bytes of the file, dirty ones laid over clean ones; short only at the end of the file.

        A view that is returned is good until the caller next awaits.
        """
        handle = self.handle(number)
        writer = handle.file.writer
        size = max(attr.size, writer.dirty_end)
        length = max(0, min(length, size - offset))
        if not length or not writer.has_dirty:
            return await handle.reader.read(offset, length, size) if length else b""
        dirty = writer.overlay(offset, length)
        if len(dirty) == 1 and len(dirty[0][1]) == length:
            return dirty[0][1]
        # A dirty range may be committed while the clean bytes are fetched, too late for that fetch
        # and gone from the overlay after it: so what was dirty before is kept (copied), and what is
        # dirty afterwards is laid on top.
        before = [(at, bytes(data)) for at, data in dirty]
        clean = await handle.reader.read(offset, length, size)
        result = bytearray(clean)
        result.extend(bytes(length - len(result)))
        for at, data in [*before, *writer.overlay(offset, length)]:
            result[at - offset : at - offset + len(data)] = data
        return result

    async def write(self, number: int, offset: int, data: Octets, now_ns: int) -> int:
        await self.handle(number).file.writer.write(offset, data, now_ns)
        return len(data)

    async def flush(self, number: int, *, durable: bool = False, closing: bool = False) -> None:
        """Store what is dirty; raise a lost write that this handle has not reported yet.

        `closing`: for close(2) of one of its descriptors, probably the only one.
        """
        handle = self.handle(number)
        writer = handle.file.writer
        last = closing and handle.file.handles == 1 and not handle.flushed
        handle.flushed = handle.flushed or closing
        try:
            if writer.has_dirty or durable:
                await writer.flush(durable=durable, last=last)
        finally:
            seen, handle.errors_seen = handle.errors_seen, writer.error_count
        writer.check_error(seen)

    async def flush_inode(self, inode: int, *, last: bool = False) -> None:
        """Store what is dirty of an inode, if anything is; `last` as in Writer.flush."""
        if (writer := self.writer(inode)) is not None:
            await writer.flush(durable=False, last=last)

    def may_be_mapped(self, inode: int) -> bool:
        """May the kernel have dirty pages of it?"""
        return inode in self._inodes and self._inodes[inode].may_be_mapped

    async def flush_all(self) -> None:
        """At unmounting."""
        for file in list(self._inodes.values()):
            if file.writer.has_dirty:
                await file.writer.flush(durable=True)

    # Inodes without a name

    async def while_removing(
        self, inode: int | None, remove: Callable[[bool], Awaitable[list[Attr]]]
    ) -> list[Attr]:
        """Run `remove(held)`, which may take the last name of `inode`; opens wait.

        Another client may have given the name to another inode meanwhile, one that is open here.
        metad keeps that too, as it keeps `inode` when it is `held`, until this client releases it.
        """
        if inode is None:
            return self._removed(None, True, await remove(True))
        removal = self._removals.setdefault(inode, _Removal())
        removal.count += 1
        try:
            held = inode in self._inodes
            return self._removed(inode, held, await remove(held))
        finally:
            removal.count -= 1
            if removal.count == 0:
                del self._removals[inode]
                removal.done.set()

    def _removed(self, inode: int | None, held: bool, attrs: list[Attr]) -> list[Attr]:
        for attr in attrs:
            if attr.nlink == 0 and (held or attr.inode != inode or inode in self._inodes):
                self.unlinked_elsewhere(attr.inode)
        return attrs

    def changed_elsewhere(self, inode: int) -> None:
        """Another client has changed it, which nobody can while this one has it exclusively."""
        if inode in self._inodes:
            self._inodes[inode].writer.superseded()

    def unlinked_elsewhere(self, inode: int) -> None:
        """The last name is gone; metad waits for this client to release the inode."""
        if inode in self._inodes:
            self._inodes[inode].unlinked = True
        else:
            self._release(inode)

    def open_inodes(self) -> list[int]:
        return list(self._inodes)

    def session_lost(self, locked: Collection[int] = ()) -> None:
        """What was not committed can't be any more; every handle hears of it once.

        Who had `locked` inodes believes that it still has them, and others may have the locks by
        now: what is open of these inodes must neither write nor read another byte.
        """
        for handle in self._handles.values():
            handle.fenced = handle.fenced or handle.file.inode in locked
        for file in self._inodes.values():
            if file.writer.has_dirty:
                file.writer.fail("the session with metad was lost before this data was committed")
        self._tell_session_lost()


def wants_write(flags: int) -> bool:
    """Do these open(2) flags allow writing?"""
    return flags & os.O_ACCMODE != os.O_RDONLY
