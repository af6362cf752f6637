"""Mutations whose results this client remembers.

The vfs and the writers submit through this: the attributes that come back with a result go into the
attribute cache, unless an invalidation overtook them on the way; of what an unanswered one may have
changed nothing is remembered.  Otherwise it is the `ports.Metadata` of the data path, passed on to
the metaclient.
"""

from __future__ import annotations

from dfsmount.attrcache import AttrCache
from dfsmount.metaclient import MetaClient
from dfswire.errors import InputOutput, Unavailable
from dfswire.messages import ChunkGrant
from dfswire.metadata import LayoutReply
from dfswire.operations import AnyOperation, OpResult


class Mutations:
    """A metaclient with a memory."""

    def __init__(self, meta: MetaClient, attrs: AttrCache) -> None:
        self._meta = meta
        self._attrs = attrs

    async def submit(self, operation: AnyOperation) -> OpResult:
        """As MetaClient.submit."""
        with self._attrs.asking() as token:
            try:
                result = await self._meta.submit(operation)
            except (Unavailable, InputOutput):  # it may have happened all the same
                for name in ("inode", "parent", "new_parent"):
                    if (inode := getattr(operation, name, None)) is not None:
                        self._attrs.forget_attr(inode)
                raise
            for attr in result.attrs:
                if attr.nlink == 0:
                    self._attrs.forget_attr(attr.inode)
                else:
                    self._attrs.put_attr(attr, token)
        return result

    async def layout(self, inode: int, offset: int, length: int) -> LayoutReply:
        return await self._meta.layout(inode, offset, length)

    async def grant(self, count: int, avoid: list[str]) -> list[ChunkGrant]:
        return await self._meta.grant(count, avoid)

    async def report_bad(self, chunk: bytes, disk: str, reason: str) -> None:
        await self._meta.report_bad(chunk, disk, reason)
