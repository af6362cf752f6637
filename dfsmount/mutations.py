"""Mutations whose results this client remembers.

The vfs and the writers submit through this: the attributes that come back with a result go into the
attribute cache, unless an invalidation overtook them on the way.  Otherwise it is the
`ports.Metadata` of the data path, passed on to the metaclient.
"""

from __future__ import annotations

from dfsmount.attrcache import AttrCache
from dfsmount.metaclient import MetaClient
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
            result = await self._meta.submit(operation)
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
