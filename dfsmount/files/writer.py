"""Writing a file: bytes go into packs, packs become chunks, chunks are committed in order.

One `Writer` belongs to one inode and is shared by all its handles.  `write` only copies into the
open pack (or waits for the dirty budget).  A full pack is sealed and uploaded in the background,
several at a time; commits of the inode follow one after the other in the order of sealing, so what
metad has is always the file as it was at some moment, never a later write without an earlier one.
A write that can't be stored is dropped and remembered as an error with a number, so that every
handle reports it once (`check_error`).  Changes of a new file's attributes travel with its bytes.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

import msgspec
import trio

from dfsmount.files.extents import RangeMap
from dfsmount.files.packs import Octets, Pack, extents_of, layered, span_of
from dfsmount.files.writeback import WriteBack
from dfswire.errors import DFSError, InputOutput, SessionLost, UnknownChunk
from dfswire.messages import FILE_MAX_BYTES, Attr
from dfswire.operations import Commit, OpResult, SetAttr, changed, merged

log = logging.getLogger(__name__)

WHOLE_SHARE = 16  # a write of up to this share of a chunk goes into one pack
COMMIT_RANGES_MAX = 32_768  # extents of one commit: about 2 MiB of message

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
        self._on_attr = on_attr
        self._size = size
        self._dirty: RangeMap[Pack] = RangeMap()
        self._open: Pack | None = None
        self._sealed: deque[Pack] = deque()  # in the order of sealing, until committed or lost
        self._committing = trio.Lock()
        self._last = False  # what is being flushed is all that will be written for now
        self._streams = False  # a pack was filled: the next one is taken at full size
        self._error: DFSError | None = None
        self.error_count = 0
        self._mtime_ns = 0
        self._ctime_ns = 0
        self._attributes: SetAttr | None = None  # changed, and not sent yet
        self._sending: SetAttr | None = None

    # What the vfs asks

    @property
    def has_dirty(self) -> bool:
        """Is there anything that is not committed?"""
        return len(self._dirty) > 0 or self.has_attributes

    @property
    def has_attributes(self) -> bool:
        """Are there changes of attributes that are not committed?"""
        return self._attributes is not None or self._sending is not None

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
        for change in (self._sending, self._attributes):
            if change is not None:
                attr = changed(attr, change)
        return msgspec.structs.replace(
            attr,
            size=max(attr.size, self.dirty_end),
            mtime_ns=self._mtime_ns if len(self._dirty) else attr.mtime_ns,
            ctime_ns=max(attr.ctime_ns, self._ctime_ns),
        )

    def change_attributes(self, change: SetAttr, now_ns: int) -> None:
        """To be committed with what is written, or soon.  It must not have a size."""
        self._attributes = merged(self._attributes, change)
        self._ctime_ns = now_ns
        if change.mtime_ns is not None:
            self._mtime_ns = change.mtime_ns  # commits of what is dirty now keep it
        if self._open is None:
            self._new_pack()  # with its age it brings them to metad

    def check_error(self, since: int) -> int:
        """The present error count.  Raises the last error if it is newer than `since`."""
        if self._error is not None and self.error_count > since:
            raise type(self._error)(str(self._error)) from self._error
        return self.error_count

    # Writing

    async def write(self, offset: int, data: Octets, now_ns: int) -> None:
        """Take over a copy of `data`.  Waits while too much is dirty."""
        view = memoryview(data)
        step = self._shared.settings.chunk_size_bytes
        for start in range(0, len(view), step):
            part = view[start : start + step]
            await self._shared.budget.acquire(len(part), self._shared.relieve)
            self._touch(now_ns)
            self._take(offset + start, part)

    def _touch(self, now_ns: int) -> None:
        self._mtime_ns = self._ctime_ns = now_ns
        if self._attributes is not None:
            self._attributes = msgspec.structs.replace(self._attributes, mtime_ns=None)

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
        end = max(self._size, self.dirty_end)
        pack.inline = end <= self._shared.settings.inline_max_bytes
        pack.durable = durable
        self._sealed.append(pack)
        self._shared.nursery.start_soon(self._store_and_commit, pack)

    # From pack to file

    async def _store_and_commit(self, pack: Pack) -> None:
        if not pack.inline:
            async with self._shared.uploads:
                await self._store(pack)
        pack.ready = True
        async with self._committing:
            while batch := self._next_batch():
                await self._commit(batch)

    async def _store(self, pack: Pack) -> None:
        if not len(pack.ranges):  # truncated or discarded meanwhile
            return
        try:
            pack.stored = await self._shared.uploader.store(
                self._inode, pack.view(0, pack.used), durable=pack.durable
            )
        except DFSError as problem:
            pack.problem = problem

    def _next_batch(self) -> list[Pack]:
        """The packs at the head of the queue whose turn to be committed has come."""
        batch: list[Pack] = []
        ranges = 0
        for pack in self._sealed:
            ranges += len(pack.ranges)
            if not pack.ready or (batch and ranges > COMMIT_RANGES_MAX):
                break
            batch.append(pack)
        return batch

    async def _commit(self, batch: list[Pack]) -> None:
        """Make the packs part of the file, or lose them."""
        for pack in batch:
            if pack.problem is not None:
                self._lose([pack], pack.problem)
        try:
            await self._submit([pack for pack in batch if pack.problem is None])
        except UnknownChunk as problem:
            log.info("inode %d: grants expired, storing again: %s", self._inode, problem)
            await self._commit_again(batch)
        except DFSError as problem:
            self._lose(batch, problem)
        self._finish(batch)

    async def _commit_again(self, batch: list[Pack]) -> None:
        """Once more under new chunk ids."""
        self._shared.uploader.distrust_grants()
        for pack in batch:
            if pack.stored is not None:
                await self._store(pack)
                if pack.problem is not None:
                    self._lose([pack], pack.problem)
        try:
            await self._submit([pack for pack in batch if pack.problem is None])
        except DFSError as problem:
            self._lose(batch, problem)

    async def _submit(self, batch: list[Pack]) -> None:
        """One operation: a Commit, or a SetAttr alone.  Raises what metad answers."""
        layers = layered(batch)
        self._sending, self._attributes = self._attributes, None
        try:
            if len(layers):
                await self._submit_commit(batch, layers)
            elif self._sending is not None:
                self._learn(await self._shared.metadata.submit(self._sending), 0)
        except UnknownChunk:
            if self._sending is not None:
                self._attributes = merged(self._sending, self._attributes or self._sending)
            raise
        except DFSError as problem:
            if self._sending is not None and not len(layers):
                self._remember(problem)
                log.warning("inode %d: changed attributes are lost: %s", self._inode, problem)
            raise
        finally:
            self._sending = None

    async def _submit_commit(self, batch: list[Pack], layers: RangeMap[Pack]) -> None:
        used = {range_.value for range_ in layers}
        stored = [pack.stored for pack in batch if pack in used and pack.stored is not None]
        extents = extents_of(layers)
        ticket = self._shared.layouts.ticket(self._inode)
        commit = Commit(
            inode=self._inode,
            extents=extents,
            size=layers.end,
            mtime_ns=self._mtime_ns,
            chunks=[one.written for one in stored],
            attributes=self._sending,
        )
        try:
            result = await self._shared.metadata.submit(
                commit, ends_lease=self._last and self._is_all(batch)
            )
        except DFSError:  # it may have happened all the same
            self._shared.layouts.invalidate(self._inode)
            raise
        locations = {one.location.chunk: one.location for one in stored}
        self._shared.layouts.apply_commit(self._inode, ticket, extents, locations)
        for one in stored:
            if not one.durable:
                self._shared.durability.note(
                    self._inode, one, *span_of(extents, one.location.chunk)
                )
        self._learn(result, layers.end)

    def _is_all(self, batch: list[Pack]) -> bool:
        """Is nothing dirty but what is in these packs?"""
        return self._open is None and not self._attributes and set(self._sealed) <= set(batch)

    def _learn(self, result: OpResult, end: int) -> None:
        self._size = max(self._size, end)
        for attr in result.attrs:
            if attr.inode == self._inode:
                self._size = attr.size
                if self._on_attr is not None:
                    self._on_attr(attr)

    def _finish(self, batch: list[Pack]) -> None:
        """The packs are committed or lost: their bytes leave the overlay and memory."""
        self._dirty.discard(set(batch))
        for pack in batch:
            self._sealed.remove(pack)
            self._shared.budget.release(pack.used)
            pack.free()
            pack.finished.set()

    def _lose(self, packs: Iterable[Pack], problem: DFSError) -> None:
        """Nothing more can be done for these bytes; forget them and remember that."""
        lost = sum(range_.length for pack in packs for range_ in pack.ranges)
        for pack in packs:
            pack.ranges.clear()
        if lost:
            self._remember(problem)
            log.warning("inode %d: %d written bytes are lost: %s", self._inode, lost, problem)

    def _remember(self, problem: DFSError) -> None:
        """To be told to the application, which knows no sessions: EIO."""
        self._error = InputOutput(str(problem)) if isinstance(problem, SessionLost) else problem
        self.error_count += 1

    # Waiting for it

    async def flush(self, durable: bool, *, last: bool = False) -> None:
        """Return when everything written so far is committed, and with `durable` on disk as well.

        `last`: the exclusive lease on the inode may end with it.  Never raises for lost data:
        `check_error` tells it to each handle.
        """
        self._last = last
        self._seal(durable=durable)
        for pack in list(self._sealed):
            pack.durable = pack.durable or durable  # of use where the upload has not begun
        try:
            for pack in list(self._sealed):
                await pack.finished.wait()
        finally:
            self._last = False
        if durable:
            try:
                await self._shared.durability.settle(self._inode)
            except DFSError as problem:
                self._remember(problem)
                log.warning("inode %d: fsync failed: %s", self._inode, problem)

    async def truncate(self, size: int, submit: Callable[[], Awaitable[R]]) -> R:
        """Set the file's size by `submit()`, in order with this inode's commits.

        Dirty bytes below `size` are committed before, those behind it never.  Raises what `submit`
        raises; then nothing is dropped.
        """
        if self._dirty.covered(0, size) or self._attributes is not None:
            await self.flush(durable=False)
        async with self._committing:
            result = await submit()
            self._dirty.cut(size, FILE_MAX_BYTES)
            for pack in self._packs():
                pack.ranges.cut(size, FILE_MAX_BYTES)
            self._shared.layouts.truncate(self._inode, size)
            self._size = size
        return result

    async def in_order(self, submit: Callable[[], Awaitable[OpResult]]) -> OpResult:
        """Run a change of this file that metad makes: after all that was written before, and
        between this inode's commits.  Raises what `submit` raises."""
        if self.has_dirty:
            await self.flush(durable=False)
        async with self._committing:
            result = await submit()
            self._learn(result, 0)
        return result

    def fail(self, reason: str) -> None:
        """What is not committed can't be any more (the session is lost); every handle hears it."""
        problem = InputOutput(reason)
        self._lose(self._packs(), problem)
        if self._attributes is not None:
            self._remember(problem)
            log.warning("inode %d: changed attributes are lost: %s", self._inode, problem)
        self.discard()

    def discard(self) -> None:
        """Drop all dirty data: nobody will read it (the inode is gone)."""
        for pack in self._packs():
            pack.ranges.clear()
        self._dirty.clear()
        self._attributes = None
        dropped, self._open = self._open, None
        if dropped is not None:
            self._shared.closed(dropped)
            self._shared.budget.release(dropped.used)
            dropped.free()

    def _packs(self) -> list[Pack]:
        return [*self._sealed, self._open] if self._open else list(self._sealed)
