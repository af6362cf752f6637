"""An in-memory metad beside chunkds (fakes_chunkd.py), as the client's data path sees them.

`FakeCluster` is both: it answers `Metadata` and `Caller` calls directly, takes delays from trio's
clock, and has a switch for each way in which metad can misbehave.
"""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import trio

from dfsmount.files.datapath import DataPath, DataSettings
from dfsmount.files.extents import RangeMap
from dfsmount.files.writeback import WriteSettings
from dfsmount.files.writer import Writer
from dfsmount.remote.followed import FollowedPolicies
from dfswire.batches import OpResult
from dfswire.chunks import (
    block_checksums,
    chunk_digest,
)
from dfswire.errors import (
    DFSError,
    NoData,
    NoEntry,
    NoSpace,
    UnknownChunk,
)
from dfswire.messages import (
    FILE_MAX_BYTES,
    Attr,
    ChunkGrant,
    ChunkLocation,
    Extent,
)
from dfswire.metadata import GrantReply, LayoutReply
from dfswire.operations import Commit, Operation, SetAttr
from tests.t2_dfsmount.fakes_chunkd import FakeChunkds

INODE = 7


class FakeCluster(FakeChunkds):
    """metad and `count` chunkds."""

    def __init__(self, count: int = 3, replicas: int = 2) -> None:
        super().__init__(count)
        self.replicas = replicas
        self.commits: list[Commit] = []
        self.changes: list[SetAttr] = []  # of attributes, with or without a commit
        self.layouts_asked: list[tuple[int, int]] = []
        self.bad: list[tuple[bytes, str, str]] = []
        self.avoided: list[list[str]] = []
        self.grant_expires_s = 600.0
        self.policies: dict[int, int] = {}  # inode -> key, where it is not the default
        self.policy_chunk_size_bytes = 0
        self.needed = 0
        self.asked_for: list[int] = []  # inodes, one for each question for grants
        self.followed = FollowedPolicies()
        self.grant_problem: DFSError | None = None
        self.submit_problems: list[DFSError] = []  # one is raised for each submit
        self.ends_lease: list[bool] = []  # what each submit said of it
        self.before_submit: Callable[[], Any] | None = None
        self.before_layout_reply: Callable[[], Any] | None = None
        self.report_problem: DFSError | None = None
        self.on_commit: Callable[[bytes], None] | None = None
        self.extents: RangeMap[ChunkLocation | bytes] = RangeMap()
        self.size = 0
        self.mtime_ns = 0
        self.is_gone = False
        self._granted: dict[bytes, ChunkGrant] = {}
        self._ids = itertools.count(1)
        self._turn = itertools.cycle(range(count))

    # Metadata

    async def submit(self, operation: Operation, *, ends_lease: bool = False) -> OpResult:
        self.ends_lease.append(ends_lease)
        await trio.sleep(0.001)
        if self.before_submit:
            await self.before_submit()
        if self.submit_problems:
            raise self.submit_problems.pop(0)
        if self.is_gone:
            raise NoEntry("gone")
        if isinstance(operation, SetAttr) and operation.size is None:
            self.changes.append(operation)
        elif isinstance(operation, SetAttr):
            assert operation.size is not None
            self.extents.cut(operation.size, FILE_MAX_BYTES)
            self.size = operation.size
        else:
            assert isinstance(operation, Commit)
            self._commit(operation)
        attr = self.attr()
        if self.on_commit:
            self.on_commit(self.content())
        await trio.sleep(0.001)
        return OpResult(attrs=[attr])

    def _commit(self, commit: Commit) -> None:
        locations = {}
        for written in commit.chunks:
            grant = self._granted.pop(written.chunk, None)
            if grant is None:
                raise UnknownChunk("not granted")
            holders = [one for one in grant.targets if one.disk in written.disks]
            assert len(holders) == len(written.disks)
            for holder in holders:
                data = self.servers[holder.address].chunks[written.chunk]
                digest = chunk_digest(
                    written.chunk, len(data), block_checksums(written.chunk, data)
                )
                assert digest == written.digest and len(data) == written.length
            locations[written.chunk] = ChunkLocation(
                chunk=written.chunk, length=written.length, replicas=holders
            )
        for extent in commit.extents:
            source = locations[extent.chunk] if extent.chunk else extent.data
            self.extents.lay(extent.offset, extent.length, source, extent.chunk_offset)
        self.size = max(self.size, commit.size)
        self.mtime_ns = commit.mtime_ns
        self.commits.append(commit)
        if commit.attributes is not None:
            self.changes.append(commit.attributes)

    def attr(self) -> Attr:
        return Attr(
            inode=INODE,
            mode=0o100644,
            uid=0,
            gid=0,
            size=self.size,
            atime_ns=0,
            mtime_ns=self.mtime_ns,
            ctime_ns=0,
        )

    async def seek(self, inode: int, offset: int, whence: int) -> int:
        """SEEK_DATA only."""
        await trio.sleep(0.001)
        if self.is_gone:
            raise NoEntry("gone")
        found = self.extents.covered(offset, FILE_MAX_BYTES)
        if not found:
            raise NoData("no data")
        return found[0].offset

    async def layout(self, inode: int, offset: int, length: int) -> LayoutReply:
        self.calls["layout"] += 1
        self.layouts_asked.append((offset, length))
        await trio.sleep(0.001)
        if self.is_gone:
            raise NoEntry("gone")
        found = self.extents.covered(offset, offset + length)
        chunks = {
            one.value.chunk: ChunkLocation(
                chunk=one.value.chunk,
                length=one.value.length,
                replicas=list(one.value.replicas),
                needed=self.needed,
            )
            for one in found
            if not isinstance(one.value, bytes)
        }
        extents = []
        for one in found:
            if isinstance(one.value, bytes):
                data = one.value[one.value_offset : one.value_offset + one.length]
                extents.append(Extent(offset=one.offset, length=one.length, data=data))
            else:
                extents.append(
                    Extent(
                        offset=one.offset,
                        length=one.length,
                        chunk=one.value.chunk,
                        chunk_offset=one.value_offset,
                    )
                )
        reply = LayoutReply(attr=self.attr(), extents=extents, chunks=list(chunks.values()))
        if self.before_layout_reply:
            await self.before_layout_reply()
        return reply

    async def grant(self, count: int, avoid: list[str], inode: int) -> GrantReply:
        self.calls["grant"] += 1
        self.avoided.append(avoid)
        self.asked_for.append(inode)
        await trio.sleep(0.001)
        if self.grant_problem is not None:
            raise self.grant_problem
        usable = [one for one in self.servers.values() if one.address not in avoid]
        if len(usable) < self.replicas:
            raise NoSpace("no set of disks can take a chunk")
        grants = []
        for _ in range(count):
            first = next(self._turn)
            targets = [
                usable[(first + index) % len(usable)].replica for index in range(self.replicas)
            ]
            grant = ChunkGrant(
                chunk=next(self._ids).to_bytes(16, "big"),
                targets=targets,
                expires_s=self.grant_expires_s,
                needed=self.needed,
            )
            self._granted[grant.chunk] = grant
            grants.append(grant)
        return GrantReply(
            grants=grants,
            policy=self.policies.get(inode, 0),
            uniform=not self.policies,
            chunk_size_bytes=self.policy_chunk_size_bytes,
        )

    def forget_grants(self) -> None:
        self._granted.clear()

    async def report_bad(self, chunk: bytes, disk: str, reason: str) -> None:
        await trio.sleep(0.001)
        if self.report_problem is not None:
            raise self.report_problem
        self.bad.append((chunk, disk, reason))

    # What tests look at

    def content(self) -> bytes:
        """The committed file, from the memory of any holder."""
        data = bytearray(self.size)
        for offset, length, source, start in self.extents:
            if not isinstance(source, bytes):
                holder = self.servers[source.replicas[0].address]
                source = holder.chunks[source.chunk]
            data[offset : offset + length] = source[start : start + length]
        return bytes(data)

    def locations(self) -> list[ChunkLocation]:
        return [one.value for one in self.extents if not isinstance(one.value, bytes)]

    def is_durable(self) -> bool:
        """Is every committed chunk synced on at least two servers?"""
        return all(
            sum(location.chunk in one.synced for one in self.servers.values()) >= 2
            for location in self.locations()
        )

    def put_file(self, data: bytes, chunk_size: int, replicas: int | None = None) -> None:
        """Make `data` the committed file."""
        servers = list(self.servers.values())
        for index, offset in enumerate(range(0, len(data), chunk_size)):
            part = data[offset : offset + chunk_size]
            chunk = next(self._ids).to_bytes(16, "big")
            holders = [
                servers[(index + copy) % len(servers)] for copy in range(replicas or self.replicas)
            ]
            for holder in holders:
                holder.chunks[chunk] = part
            location = ChunkLocation(
                chunk=chunk, length=len(part), replicas=[one.replica for one in holders]
            )
            self.extents.lay(offset, len(part), location, 0)
        self.size = max(self.size, len(data))

    def repair(self) -> None:
        """What metad's repair does: full redundancy on servers that are up, synced."""
        for location in self.locations():
            up = [one for one in self.servers.values() if not one.is_down]
            holders = [one for one in up if one.replica in location.replicas]
            spare = [one for one in up if one not in holders]
            for new in spare[: max(0, self.replicas - len(holders))]:
                new.chunks[location.chunk] = holders[0].chunks[location.chunk]
                new.synced.add(location.chunk)
                location.replicas.append(new.replica)

    def move_replicas(self) -> None:
        """Repair or rebalance: every chunk of the file is on other servers now."""
        for location in self.locations():
            old = {one.address for one in location.replicas}
            data = self.servers[location.replicas[0].address].chunks[location.chunk]
            others = [one for one in self.servers.values() if one.address not in old]
            for address in old:
                self.servers[address].chunks.pop(location.chunk, None)
            for other in others:
                other.chunks[location.chunk] = data
                other.synced.add(location.chunk)
            location.replicas[:] = [one.replica for one in others]


@asynccontextmanager
async def data_path(
    cluster: FakeCluster,
    *,
    chunk_size_bytes: int = 1000,
    inline_max_bytes: int = 0,
    dirty_max_bytes: int = 1 << 20,
    cache_bytes: int = 64 << 20,
    uploads_max: int = 8,
    replicas: int = 0,
) -> AsyncIterator[DataPath]:
    """A running data path on the cluster.  `replicas`: as the session says, if not the truth."""
    async with trio.open_nursery() as nursery:
        write = WriteSettings(
            chunk_size_bytes=chunk_size_bytes,
            inline_max_bytes=inline_max_bytes,
            dirty_max_bytes=dirty_max_bytes,
            uploads_max=uploads_max,
        )
        settings = DataSettings(
            write=write, replicas=replicas or cluster.replicas, cache_bytes=cache_bytes
        )
        path = DataPath(cluster, cluster, nursery, settings, cluster.followed)
        nursery.start_soon(path.run)
        yield path
        nursery.cancel_scope.cancel()


async def truncate(cluster: FakeCluster, writer: Writer, size: int) -> None:
    """ftruncate(2) of the file that is being written."""
    await writer.truncate(size, lambda: cluster.submit(SetAttr(inode=INODE, size=size)))


def pattern(length: int, seed: int) -> bytes:
    """Bytes that are not zero and not alike."""
    return bytes(1 + (seed * 31 + index) % 255 for index in range(length))
