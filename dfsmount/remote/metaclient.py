"""This client's conversation with metad: mutations, questions, leases, each a typed call.

Mutations travel in batches (batches.py), questions alone; both are repeated until they are answered
(retries.py).  A lost session is no obstacle to a question, which is asked again under the next one.
The vfs, the reader, the writer, the leases and the locks are its users.
"""

from __future__ import annotations

from typing import Any

import msgspec
import trio

from dfsmount.remote.batches import Batches
from dfsmount.remote.retries import Fleeting, Retries
from dfsmount.remote.session import Session
from dfswire import metadata
from dfswire.batches import OpResult
from dfswire.client import Client
from dfswire.locks import GetLock, GetLockReply, Lock
from dfswire.messages import Attr, DirEntry, Lease, Xattr
from dfswire.operations import AnyOperation


class MetaClient:
    """Typed metad calls under one session.

    A batch whose carrier is cancelled goes on in `nursery`, for it has operations of others.  Of
    what must not be kept of an answer `fleeting` is told before anybody has it (see Answer).
    """

    def __init__(
        self,
        client: Client,
        session: Session,
        fleeting: Fleeting = lambda attributes, names: None,
        *,
        soft_timeout_s: float | None = None,
        nursery: trio.Nursery | None = None,
    ) -> None:
        self._retries = Retries(client, session, fleeting, soft_timeout_s=soft_timeout_s)
        self._batches = Batches(session, self._retries, nursery)

    # Mutations

    async def submit(self, operation: AnyOperation) -> OpResult:
        """Execute one mutation, exactly once.

        Raises the error of metad's answer; SessionLost when the session ended before an answer came
        (then nobody knows whether it happened); Unavailable on a soft mount.
        """
        return await self._batches.submit(operation)

    async def landed(self) -> None:
        """Wait until every batch that is under way now has been answered or given up."""
        await self._batches.landed()

    # Questions

    async def lookup(self, parent: int, name: bytes) -> Attr | None:
        """The attributes of a name, or None when there is none."""
        reply: metadata.LookupReply = await self._retries.ask(
            "meta.lookup", metadata.LookupRequest, parent=parent, name=name
        )
        return reply.attr

    async def getattr(self, inode: int) -> Attr:
        reply: metadata.AttrReply = await self._retries.ask(
            "meta.getattr", metadata.InodeRequest, inode=inode
        )
        return reply.attr

    async def readlink(self, inode: int) -> bytes:
        reply: metadata.ReadlinkReply = await self._retries.ask(
            "meta.readlink", metadata.InodeRequest, inode=inode
        )
        return reply.target

    async def xattrs(self, inode: int) -> list[Xattr]:
        reply: metadata.XattrsReply = await self._retries.ask(
            "meta.xattrs", metadata.InodeRequest, inode=inode
        )
        return reply.xattrs

    async def readdir(self, inode: int, cookie: int) -> tuple[list[DirEntry], bool, Attr]:
        """Entries after `cookie`, whether they are the last ones, and the directory's parent."""
        reply: metadata.ReaddirReply = await self._retries.ask(
            "meta.readdir", metadata.ReaddirRequest, inode=inode, cookie=cookie
        )
        return reply.entries, reply.end, reply.parent

    async def layout(self, inode: int, offset: int, length: int) -> metadata.LayoutReply:
        reply: metadata.LayoutReply = await self._retries.ask(
            "meta.layout", metadata.LayoutRequest, inode=inode, offset=offset, length=length
        )
        return reply

    async def seek(self, inode: int, offset: int, whence: int) -> int:
        """Raises NoData when there is none before the end."""
        reply: metadata.SeekReply = await self._retries.ask(
            "meta.seek", metadata.SeekRequest, inode=inode, offset=offset, whence=whence
        )
        return reply.offset

    async def statfs(self) -> metadata.StatfsReply:
        reply: metadata.StatfsReply = await self._retries.ask("meta.statfs", metadata.StatfsRequest)
        return reply

    async def grant(self, count: int, avoid: list[str], inode: int) -> metadata.GrantReply:
        """New chunks of a file.  Raises NoSpace."""
        reply: metadata.GrantReply = await self._retries.ask(
            "meta.grant", metadata.GrantRequest, count=count, avoid=avoid, inode=inode
        )
        return reply

    async def report_bad(self, chunk: bytes, disk: str, reason: str) -> None:
        """Tell metad that a replica did not give its bytes."""
        await self._retries.ask(
            "meta.bad_replica", metadata.BadReplica, chunk=chunk, disk=disk, reason=reason
        )

    async def get_lock(self, lock: Lock) -> GetLockReply:
        """What is in the way of this lock."""
        reply: GetLockReply = await self._retries.ask("lock.get", GetLock, lock=lock)
        return reply

    async def repeat(self, call: str, request: msgspec.Struct) -> Any:
        """A call of a session, which the caller may repeat, until it is answered.

        Raises SessionLost, Unavailable on a soft mount, and what metad answers.
        """
        return await self._retries.persist(call, request)

    async def take_lease(self, inode: int, parts: int) -> metadata.LeaseReply:
        """Have an inode exclusively, waiting for those who have something of it.

        Raises SessionLost: under another session it is another question.
        """
        request = metadata.LeaseRequest(session=await self.current(), inode=inode, parts=parts)
        reply: metadata.LeaseReply = await self._retries.persist("lease.take", request)
        return reply

    async def give_back(self, leases: list[Lease]) -> None:
        """Raises SessionLost: then they have ended."""
        await self._retries.persist(
            "lease.give_back",
            metadata.GiveBack(session=await self.current(), leases=leases),
        )

    # Patience

    async def current(self) -> str:
        """The session; waits while there is none.  Raises Unavailable on a soft mount."""
        return await self._retries.current()

    async def told(self) -> None:
        """Wait until metad tells this client of changes.  Raises Unavailable on a soft mount."""
        await self._retries.told()

    async def heard(self) -> None:
        """Wait until metad takes this client for alive.  Raises Unavailable on a soft mount."""
        await self._retries.heard()

    async def passed(self, gate: trio.Event) -> None:
        """Wait for what metad must be told first.  Raises Unavailable on a soft mount."""
        await self._retries.in_patience(gate.wait)
