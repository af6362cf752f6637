"""Operations on ranges of open files that move no bytes: seek, fallocate, sharing with other files.

metad does them all on extents, so what this client has written and not committed goes first, and
what it knows of the extents is forgotten afterwards.  The kernel looks after its own pages: it
writes back dirty ones before these calls and drops those of the changed range after them.  Stands
on `Names`; `Vfs` adds open files.
"""

from __future__ import annotations

from dfsmount.files.openfiles import OpenInode
from dfsmount.names.namespace import Names
from dfswire.batches import OpResult
from dfswire.errors import DFSError, Invalid
from dfswire.messages import BLOCK_SIZE_BYTES, FILE_MAX_BYTES
from dfswire.operations import CopyRange, Fallocate

# Less is copied as bytes: to read any part of a chunk a whole block of it is fetched, and every
# shared piece is one more extent.
SHARED_LEAST_BYTES = BLOCK_SIZE_BYTES


class Ranges(Names):
    """Operations on ranges, each of a handle."""

    async def seek(self, handle: int, offset: int, whence: int) -> int:
        """lseek(2) with SEEK_DATA or SEEK_HOLE.  Raises NoData (ENXIO)."""
        file = self._files.handle(handle).file
        await _store(file)
        return await self._meta.seek(file.inode, offset, whence)

    async def fallocate(self, handle: int, mode: int, offset: int, length: int) -> None:
        """fallocate(2) with the kernel's mode bits."""
        file = self._files.handle(handle).file
        operation = Fallocate(inode=file.inode, mode=mode, offset=offset, length=length)
        await self._change_range(file, operation)

    async def _share(
        self, handle_in: int, offset_in: int, handle_out: int, offset_out: int, length: int
    ) -> int | None:
        """Let metad copy; how many bytes it did, or None: so few that they are better copied here.

        A whole small file shares its chunk all the same when it goes into an empty one.
        """
        source, file = (self._files.handle(each).file for each in (handle_in, handle_out))
        await _store(source)
        size = (await self.getattr(source.inode)).size
        if source is file and abs(offset_in - offset_out) < min(length, size - offset_in):
            raise Invalid(f"the ranges overlap in inode {file.inode}")
        if length < SHARED_LEAST_BYTES or size - offset_in < SHARED_LEAST_BYTES:
            whole = not offset_in and not offset_out and length >= size
            if not whole or (await self.getattr(file.inode)).size:
                return None
        operation = CopyRange(
            source=source.inode,
            source_offset=offset_in,
            inode=file.inode,
            offset=offset_out,
            length=min(length, FILE_MAX_BYTES),
        )
        copied = (await self._change_range(file, operation)).length
        if copied:
            self._durability.note_copied(file.inode, offset_out, offset_out + copied)
        return copied

    async def _change_range(self, file: OpenInode, operation: Fallocate | CopyRange) -> OpResult:
        async def submit() -> OpResult:
            try:
                result = await self._mutations.submit(operation)
            except DFSError:  # it may have happened all the same
                self._layouts.invalidate(operation.inode)
                raise
            self._layouts.cut(
                operation.inode, operation.offset, operation.offset + operation.length
            )
            return result

        return await file.writer.in_order(submit)


async def _store(file: OpenInode) -> None:
    """Commit what is dirty.  Raises the error of what could not be."""
    before = file.writer.error_count
    if file.writer.has_dirty:
        await file.writer.flush(durable=False)
    file.writer.check_error(before)
