"""Writing a file: bytes go into packs, packs become chunks, chunks are committed in order.

One `Writer` belongs to one inode and is shared by all its handles.  `write` only copies into the
open pack (or waits for the dirty budget).  A full pack is sealed and handed over to `commits.py`,
which makes it a part of the file in the background.  A write that can't be stored is dropped and
remembered as an error with a number, so that every handle reports it once (`check_error`).  Changes
of a new file's attributes travel with its bytes.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

from dfsmount.files.commits import Commits
from dfsmount.files.dirtyattributes import DirtyAttributes
from dfsmount.files.extents import RangeMap
from dfsmount.files.packs import Octets, Pack
from dfsmount.files.writeback import WriteBack
from dfsmount.files.writeerrors import WriteErrors
from dfswire.batches import OpResult
from dfswire.errors import DFSError, InputOutput
from dfswire.messages import FILE_MAX_BYTES, Attr
from dfswire.operations import SetAttr

log = logging.getLogger(__name__)

WHOLE_SHARE = 16  # a write of up to this share of a chunk goes into one pack

R = TypeVar("R")


class Writer:
    """The dirty data of one inode.

    `on_attr` gets the inode's new attributes after each commit, before the bytes leave the
    overlay. `size` is the file's committed size if known: only small files are kept inline.
    """

    def __init__(
        self,
        inode: int,
        shared: WriteBack,
        *,
        on_attr: Callable[[Attr], None] | None = None,
        size: int = 0,
    ) -> None:
        self._inode = inode
        self._shared = shared
        self._dirty: RangeMap[Pack] = RangeMap()
        self._open: Pack | None = None
        self._streams = False  # a pack was filled: the next one is taken at full size
        self._attributes = DirtyAttributes()
        self._errors = WriteErrors()
        self._commits = Commits(
            inode,
            shared,
            self._dirty,
            self._attributes,
            self._errors,
            is_filling=lambda: self._open is not None,
            on_attr=on_attr,
            size=size,
        )

    # What the vfs asks

    @property
    def has_dirty(self) -> bool:
        """Is there anything of which it is not known that it is committed?"""
        return len(self._dirty) > 0 or self.has_attributes or self._commits.are_under_way

    @property
    def has_attributes(self) -> bool:
        """Are there changes of attributes that are not committed?"""
        return bool(self._attributes)

    @property
    def dirty_end(self) -> int:
        """The first offset behind the dirty bytes; 0 when there are none."""
        return self._dirty.end

    def overlay(self, offset: int, length: int) -> list[tuple[int, memoryview]]:
        """The dirty bytes in a range, as (offset, view) in order.

        The views are good until the caller next awaits: after that a write may have changed them in
        place, or a commit may have given the memory to another pack.  To keep them, copy.
        """
        return [
            (piece.offset, piece.value.view(piece.value_offset, piece.length))
            for piece in self._dirty.covered(offset, offset + length)
        ]

    def overlaid(self, attr: Attr) -> Attr:
        """Committed attributes, with what is not committed yet."""
        return self._attributes.overlaid(attr, self.dirty_end)

    def superseded(self) -> None:
        """Another client has changed the file: what is being committed is older."""
        self._commits.superseded()

    def change_attributes(self, change: SetAttr, now_ns: int) -> None:
        """To be committed with what is written, or soon.  It must not have a size."""
        self._attributes.change(change, now_ns)
        if self._open is None:
            self._new_pack()  # with its age it brings them to metad

    def check_error(self, since: int) -> int:
        """The present error count.  Raises the last error if it is newer than `since`."""
        return self._errors.check(since)

    @property
    def error_count(self) -> int:
        """For `check_error` of a handle that begins now."""
        return self._errors.count

    # Writing

    async def write(self, offset: int, data: Octets, now_ns: int) -> None:
        """Take over a copy of `data`.  Waits while too much is dirty."""
        view = memoryview(data)
        step = self._shared.settings.chunk_size_bytes
        for start in range(0, len(view), step):
            part = view[start : start + step]
            await self._shared.budget.acquire(len(part), self._shared.relieve)
            self._attributes.touch(now_ns)
            self._take(offset + start, part)

    def _take(self, offset: int, data: memoryview) -> None:
        """Put bytes into packs; no await, so a write is seen as a whole or not at all."""
        covered = self._dirty.covered(offset, offset + len(data))
        if len(covered) == 1 and covered[0].value is self._open and covered[0].length == len(data):
            self._open.overwrite(covered[0].value_offset, data)
            self._shared.budget.release(len(data))
            return
        if self._open is not None:
            self._open.limit_bytes = self._shared.chunk_size_bytes(self._inode)
        if self._would_be_torn(len(data)) or (self._open is not None and not self._open.room):
            self._fill()
        while len(data):
            pack = self._open or self._new_pack()
            part = data[: pack.room]
            self._dirty.lay(offset, len(part), pack, pack.append(offset, part))
            offset, data = offset + len(part), data[len(part) :]
            if not pack.room:
                self._fill()

    def _would_be_torn(self, length: int) -> bool:
        """If this client died between the commits of two packs, half of a write would be there:
        no record that is appended to a log should end so.  Long ones may, or packs would have
        much unused room."""
        whole = length * WHOLE_SHARE <= self._shared.chunk_size_bytes(self._inode)
        return whole and self._open is not None and self._open.room < length

    def _fill(self) -> None:
        """The open pack is full."""
        self._streams = True
        self._seal()

    def _new_pack(self) -> Pack:
        limit_bytes = self._shared.chunk_size_bytes(self._inode)
        pack = self._open = Pack(self._shared.buffers, limit_bytes, small=not self._streams)
        self._shared.opened(pack, self._seal)
        return pack

    def _seal(self, *, durable: bool = False) -> None:
        """End the open pack and start its way to the servers."""
        pack, self._open = self._open, None
        if pack is None:
            return
        self._shared.closed(pack)
        end = max(self._commits.size, self.dirty_end)
        pack.inline = end <= self._shared.settings.inline_max_bytes
        pack.durable = durable
        self._commits.add(pack)

    # Waiting for it

    async def flush(self, durable: bool, *, last: bool = False) -> None:
        """Return when everything written so far is committed, and with `durable` on disk as well.

        `last`: the exclusive lease on the inode may end with it.  Never raises for lost data:
        `check_error` tells it to each handle.
        """
        self._commits.last = last
        self._seal(durable=durable)
        packs = self._commits.packs
        for pack in packs:
            pack.durable = pack.durable or durable  # of use where the upload has not begun
        try:
            for pack in packs:
                await pack.finished.wait()
        finally:
            self._commits.last = False
        if durable:
            try:
                await self._shared.durability.settle(self._inode)
            except DFSError as problem:
                self._errors.remember(problem)
                log.warning("inode %d: fsync failed: %s", self._inode, problem)

    async def truncate(self, size: int, submit: Callable[[], Awaitable[R]]) -> R:
        """Set the file's size by `submit()`, in order with this inode's commits.

        Dirty bytes below `size` are committed before, those behind it never.  Raises what `submit`
        raises; then nothing is dropped.
        """
        if self._dirty.covered(0, size) or self._attributes.are_waiting:
            await self.flush(durable=False)
        async with self._commits.turn:
            result = await submit()
            self._dirty.cut(size, FILE_MAX_BYTES)
            for pack in self._packs():
                pack.ranges.cut(size, FILE_MAX_BYTES)
            self._shared.layouts.truncate(self._inode, size)
            self._commits.size = size
        return result

    async def in_order(self, submit: Callable[[], Awaitable[OpResult]]) -> OpResult:
        """Run a change of this file that metad makes: after all that was written before, and
        between this inode's commits.  Raises what `submit` raises."""
        if self.has_dirty:
            await self.flush(durable=False)
        async with self._commits.turn:
            result = await submit()
            self._commits.learn(result, 0)
        return result

    def fail(self, reason: str) -> None:
        """What is not committed can't be any more (the session is lost); every handle hears it."""
        problem = InputOutput(reason)
        self._commits.lose(self._packs(), problem)
        if self._attributes.are_waiting:
            self._commits.lose_attributes(problem)
        self.discard()

    def discard(self) -> None:
        """Drop all dirty data: nobody will read it (the inode is gone)."""
        for pack in self._packs():
            pack.ranges.clear()
        self._dirty.clear()
        self._attributes.drop()
        dropped, self._open = self._open, None
        if dropped is not None:
            self._shared.closed(dropped)
            self._shared.budget.release(dropped.used)
            dropped.free()

    def _packs(self) -> list[Pack]:
        return [*self._commits.packs, self._open] if self._open else self._commits.packs
