"""From pack to file: sealed packs are uploaded, and committed in the order of sealing.

The Writer of an inode hands its full packs over.  Several are uploaded at a time, but commits
follow one after the other, so what metad has is always the file as it was at some moment, never a
later write without an earlier one.  A pack that cannot be stored or committed is lost: its bytes
leave the overlay, and the error is remembered.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable

import trio

from dfsmount.files.dirtyattributes import DirtyAttributes
from dfsmount.files.extents import RangeMap
from dfsmount.files.packs import Pack, extents_of, layered, span_of
from dfsmount.files.writeback import WriteBack
from dfsmount.files.writeerrors import WriteErrors
from dfswire.batches import OpResult
from dfswire.errors import DFSError, UnknownChunk
from dfswire.messages import Attr
from dfswire.operations import Commit

log = logging.getLogger(__name__)

COMMIT_RANGES_MAX = 32_768  # extents of one commit: about 2 MiB of message


class Commits:
    """The sealed packs of one inode.

    `dirty` is the writer's overlay, `is_filling` says whether it has an open pack; `on_attr` gets
    the inode's new attributes after each commit, before the bytes leave the overlay.  `size` is
    the file's committed size, as far as it is known.
    """

    def __init__(
        self,
        inode: int,
        shared: WriteBack,
        dirty: RangeMap[Pack],
        attributes: DirtyAttributes,
        errors: WriteErrors,
        *,
        is_filling: Callable[[], bool],
        on_attr: Callable[[Attr], None] | None,
        size: int,
    ) -> None:
        self._inode = inode
        self._shared = shared
        self._dirty = dirty
        self._attributes = attributes
        self._errors = errors
        self._is_filling = is_filling
        self._on_attr = on_attr
        self._sealed: deque[Pack] = deque()  # in the order of sealing, until committed or lost
        self._sent: list[Pack] = []  # of these, what a commit under way is about
        self.size = size
        self.turn = trio.Lock()
        """Held by whoever changes the file at metad."""
        self.last = False
        """What is being flushed is all that will be written for now."""

    @property
    def packs(self) -> list[Pack]:
        """Those that are neither committed nor lost, in the order of sealing."""
        return list(self._sealed)

    @property
    def are_under_way(self) -> bool:
        """Are there bytes in packs that are neither committed nor lost?"""
        return any(len(pack.ranges) for pack in self._sealed)

    def superseded(self) -> None:
        """Another client has changed the file.

        While a lease holds nobody can; so it has ended, along with the commit under way, which is
        executed: only its answer is not here yet.  Until it is, what it was about is found at metad
        like everything else, perhaps changed since.  (Without a lease at home nobody knows whether
        it is executed, but then nothing of it was acknowledged either.)
        """
        self._dirty.discard(set(self._sent))
        self._attributes.superseded()

    def add(self, pack: Pack) -> None:
        """A sealed pack, which starts its way to the servers."""
        self._sealed.append(pack)
        self._shared.nursery.start_soon(self._store_and_commit, pack)

    def learn(self, result: OpResult, end: int) -> None:
        """What metad says of the file after a change that reached up to `end`."""
        self.size = max(self.size, end)
        for attr in result.attrs:
            if attr.inode == self._inode:
                self.size = attr.size
                if self._on_attr is not None:
                    self._on_attr(attr)

    def lose(self, packs: Iterable[Pack], problem: DFSError) -> None:
        """Nothing more can be done for these bytes; forget them and remember that."""
        lost = sum(range_.length for pack in packs for range_ in pack.ranges)
        for pack in packs:
            pack.ranges.clear()
        if lost:
            self._errors.remember(problem)
            log.warning("inode %d: %d written bytes are lost: %s", self._inode, lost, problem)

    def lose_attributes(self, problem: DFSError) -> None:
        """The same for changed attributes."""
        self._errors.remember(problem)
        log.warning("inode %d: changed attributes are lost: %s", self._inode, problem)

    async def _store_and_commit(self, pack: Pack) -> None:
        if not pack.inline:
            async with self._shared.uploads:
                await self._store(pack)
        pack.ready = True
        async with self.turn:
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
                self.lose([pack], pack.problem)
        try:
            await self._submit([pack for pack in batch if pack.problem is None])
        except UnknownChunk as problem:
            log.info("inode %d: grants expired, storing again: %s", self._inode, problem)
            await self._commit_again(batch)
        except DFSError as problem:
            self.lose(batch, problem)
        self._finish(batch)

    async def _commit_again(self, batch: list[Pack]) -> None:
        """Once more under new chunk ids."""
        self._shared.uploader.distrust_grants()
        for pack in batch:
            if pack.stored is not None:
                await self._store(pack)
                if pack.problem is not None:
                    self.lose([pack], pack.problem)
        try:
            await self._submit([pack for pack in batch if pack.problem is None])
        except DFSError as problem:
            self.lose(batch, problem)

    async def _submit(self, batch: list[Pack]) -> None:
        """One operation: a Commit, or a SetAttr alone.  Raises what metad answers."""
        layers = layered(batch)
        change = self._attributes.send()
        self._sent = batch
        try:
            if len(layers):
                await self._submit_commit(batch, layers)
            elif change is not None:
                self.learn(await self._shared.metadata.submit(change), 0)
        except UnknownChunk:
            self._attributes.send_again()
            raise
        except DFSError as problem:
            if change is not None and not len(layers):
                self.lose_attributes(problem)
            raise
        finally:
            self._sent = []
            self._attributes.sent()

    async def _submit_commit(self, batch: list[Pack], layers: RangeMap[Pack]) -> None:
        used = {range_.value for range_ in layers}
        stored = [pack.stored for pack in batch if pack in used and pack.stored is not None]
        extents = extents_of(layers)
        ticket = self._shared.layouts.ticket(self._inode)
        commit = Commit(
            inode=self._inode,
            extents=extents,
            size=layers.end,
            mtime_ns=self._attributes.mtime_ns,
            chunks=[one.written for one in stored],
            attributes=self._attributes.sending,
        )
        try:
            result = await self._shared.metadata.submit(
                commit, ends_lease=self.last and self._is_all(batch)
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
        self.learn(result, layers.end)

    def _is_all(self, batch: list[Pack]) -> bool:
        """Is nothing dirty but what is in these packs?"""
        waits = self._is_filling() or self._attributes.are_waiting
        return not waits and set(self._sealed) <= set(batch)

    def _finish(self, batch: list[Pack]) -> None:
        """The packs are committed or lost: their bytes leave the overlay and memory."""
        self._dirty.discard(set(batch))
        for pack in batch:
            self._sealed.remove(pack)
            self._shared.budget.release(pack.used)
            pack.free()
            pack.finished.set()
