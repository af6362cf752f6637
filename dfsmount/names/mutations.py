"""Mutations whose results this client remembers.

The vfs and the writers submit through this: the attributes that come back with a result go into the
attribute cache, unless an invalidation overtook them on the way; of what an unanswered one may have
changed nothing is remembered.  Exclusive leases that come with results, or end with commits, are
told to `Leases`, and policies of new files to `FollowedPolicies`.  Otherwise it is the
`ports.Metadata` of the data path, passed on to the metaclient.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import trio

from dfsmount.leases.attrcache import AttrCache
from dfsmount.leases.exclusive import Leases
from dfsmount.remote.followed import FollowedPolicies
from dfsmount.remote.metaclient import MetaClient
from dfswire.batches import OpResult
from dfswire.errors import DFSError, InputOutput, SessionLost, Unavailable
from dfswire.messages import ROOT_INODE, Lease
from dfswire.metadata import GrantReply, LayoutReply
from dfswire.operations import AnyOperation, Commit, Release

SETTLE_PAUSE_S = 1.0
UNKNOWN = (Unavailable, InputOutput, trio.Cancelled)  # it may have happened, or still will


class Mutations:
    """A metaclient with a memory."""

    def __init__(
        self, meta: MetaClient, attrs: AttrCache, leases: Leases, policies: FollowedPolicies
    ) -> None:
        self._meta = meta
        self._attrs = attrs
        self._leases = leases
        self._policies = policies
        self.created: Callable[[int], None] = lambda inode: None
        """Told of new inodes whose policy metad named."""
        self._given_up = trio.Event()

    async def settle(self) -> None:
        """Wait for a change that is given up, then until it has happened or can't happen any more.

        Whatever was learnt meanwhile may be older than that change, and metad tells nobody of his
        own ones.  (A later batch ends the time of earlier ones: it says that they are answered.)
        """
        await self._given_up.wait()
        self._given_up = trio.Event()
        await self._meta.landed()  # where the one who waited was cancelled
        while True:
            try:
                await self._meta.submit(Release(inode=ROOT_INODE))  # changes nothing
            except SessionLost:
                return
            except DFSError:
                await trio.sleep(SETTLE_PAUSE_S)
            else:
                return

    async def submit(self, operation: AnyOperation, *, ends_lease: bool = False) -> OpResult:
        """As MetaClient.submit.  `ends_lease`: nothing is dirty after this commit."""
        if isinstance(operation, Commit):
            lease = self._leases.returns.begin(operation.inode) if ends_lease else None
            return await self._commit(operation, lease)
        if not getattr(operation, "lease", 0):
            return await self._submit(operation)
        with self._leases.asking() as token:
            result = await self._submit(operation)
            if result.lease is not None:
                self._leases.granted(result.lease, token, new=result.bare)
        return result

    async def _commit(self, commit: Commit, lease: Lease | None) -> OpResult:
        if lease is None:
            return await self._submit(commit)
        done = False
        try:
            commit = msgspec.structs.replace(commit, give_back=lease)
            result = await self._submit(commit)
            done = True
        finally:
            self._leases.returns.end(lease, done)
        return result

    async def _submit(self, operation: AnyOperation) -> OpResult:
        edition = self._policies.edition
        with self._attrs.asking() as token:
            try:
                result = await self._meta.submit(operation)
            except UNKNOWN:
                self._given_up.set()
                for name in ("inode", "parent", "new_parent"):
                    if (inode := getattr(operation, name, None)) is not None:
                        self._attrs.forget_attr(inode)
                raise
            for attr in result.attrs:
                if attr.nlink == 0:
                    self._attrs.forget_attr(attr.inode)
                else:
                    self._attrs.put_attr(attr, token)
        if result.policy is not None:
            inode = result.attrs[0].inode
            self._policies.learn(inode, result.policy, edition)
            self.created(inode)
        return result

    async def layout(self, inode: int, offset: int, length: int) -> LayoutReply:
        return await self._meta.layout(inode, offset, length)

    async def seek(self, inode: int, offset: int, whence: int) -> int:
        return await self._meta.seek(inode, offset, whence)

    async def grant(self, count: int, avoid: list[str], inode: int) -> GrantReply:
        return await self._meta.grant(count, avoid, inode)

    async def report_bad(self, chunk: bytes, disk: str, reason: str) -> None:
        await self._meta.report_bad(chunk, disk, reason)
