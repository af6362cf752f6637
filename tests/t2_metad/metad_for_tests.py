"""A whole metad in the test's own trio run, and clients and chunkds as plain as possible.

Calls go through the codec and the dispatcher, without sockets.  `Metad.restart` is a crash: the
database stays, everything in memory is new.
"""

from __future__ import annotations

import random
import stat
from collections.abc import Sequence
from typing import Any

import trio

from dfswire.batches import Batch, BatchReply, OpResult
from dfswire.client import Client
from dfswire.dispatch import Dispatcher
from dfswire.errors import Unavailable
from dfswire.heartbeats import HeartbeatReply, ReplicaReport
from dfswire.locks import HeldLocks
from dfswire.messages import (
    ROOT_INODE,
    Attr,
    Event,
    Extent,
    Invalidation,
    Lease,
    Part,
    WrittenChunk,
)
from dfswire.metadata import (
    AckEvents,
    FollowEvents,
    GiveBack,
    GrantRequest,
    InodeRequest,
    LeaseReply,
    LeaseRequest,
    LookupRequest,
    OpenSession,
    RenewSession,
)
from dfswire.operations import AnyOperation, Commit, Create
from dfswire.orders import Order, OrderResult
from metad.config import MetadConfig
from metad.service import Service, create_service
from metad.storage.database import Database
from tests.fakes import DirectTransport
from tests.t2_metad.machines_for_tests import GIB, disk, heartbeat, register

ADDRESS = "metad:9400"
PATIENCE_S = 120.0
FILE = int(Part.ATTR | Part.DATA)


class Metad:
    """See the module's text.  `now_ns` follows trio's clock."""

    def __init__(self, db: Database, nursery: trio.Nursery, **settings: Any) -> None:
        self.db = db
        # None of the servers here follows the journal, and some tests have a clock that stands.
        self.config = MetadConfig(url="sqlite://", **{"journal_copies": 0, **settings})
        self.client: Client
        self.service: Service
        self._starts = 0
        self._nursery = nursery
        self._network = DirectTransport({}, nursery=nursery)
        self._background = trio.CancelScope()
        self.client = Client(transport=self._network)

    def now_ns(self) -> int:
        return 10**18 + int(trio.current_time() * 1e9)

    async def start(self, *, background: bool = True) -> None:
        """Answer calls; with `background` also expire, repair and reclaim."""
        self._starts += 1
        self.service = create_service(
            self.db, self.config, now_ns=self.now_ns, rng=random.Random(self._starts)
        )
        self._network.up(ADDRESS, Dispatcher("metad", self.service.handlers))
        self._background = trio.CancelScope()
        if background:
            await self._nursery.start(self._run)

    async def _run(self, *, task_status: trio.TaskStatus[None]) -> None:
        with self._background:
            await self.service.run(task_status=task_status)

    def crash(self) -> None:
        """Nothing in memory survives."""
        self._background.cancel()
        self._network.down(ADDRESS)

    async def restart(self, *, background: bool = True) -> None:
        self.crash()
        await self.start(background=background)

    async def call(self, name: str, request: Any) -> Any:
        return await self.client.call(name, ADDRESS, request, deadline_s=PATIENCE_S)


class FakeClient:
    """A session; `follow` collects events, and acknowledges them unless `silent`.

    Leases are given back when a test says so.
    """

    def __init__(self, metad: Metad, nursery: trio.Nursery, host: str = "host") -> None:
        self.metad = metad
        self.host = host
        self.session = ""
        self.sequence = 0
        self.silent = False
        self.events: list[Event] = []
        self.recalled: list[Lease] = []
        self._nursery = nursery
        self._stream = trio.CancelScope()
        self.streams = 0

    async def open(self, *, follow: bool = True) -> FakeClient:
        request = OpenSession(host=self.host, mount_point="/mnt", pid=1, software="test")
        self.session = (await self.metad.call("session.open", request)).session
        self.sequence = 0
        if follow:
            await self.follow()
        return self

    async def follow(
        self,
        open_inodes: Sequence[int] = (),
        leases: Sequence[Lease] = (),
        locks: HeldLocks | None = None,
    ) -> FollowEvents:
        """Open the stream; returns what it was asked for with when the first event has come."""
        self._stream = trio.CancelScope()
        renewed = await self.metad.call("session.renew", RenewSession(session=self.session))
        self.streams += 1
        request = FollowEvents(
            session=self.session,
            instance=renewed.instance,
            number=self.streams,
            open_inodes=list(open_inodes),
            leases=list(leases),
            locks=locks or HeldLocks(),
        )
        await self._nursery.start(self._follow, request)
        return request

    async def _follow(self, request: FollowEvents, *, task_status: trio.TaskStatus[None]) -> None:
        with self._stream:
            try:
                async with self.metad.client.stream("session.events", ADDRESS, request) as events:
                    async for event in events:
                        task_status.started()
                        task_status = trio.TASK_STATUS_IGNORED
                        await self._obey(event)
            except Unavailable:
                return  # metad crashed; the test follows again if it likes

    async def _obey(self, event: Event) -> None:
        self.recalled += event.recalls
        if event.invalidations or event.drop_all:
            self.events.append(event)
            if not self.silent:
                ack = AckEvents(session=self.session, number=event.number)
                await self.metad.call("session.ack", ack)

    def disconnect(self) -> None:
        self._stream.cancel()

    @property
    def told(self) -> list[Invalidation]:
        return [each for event in self.events for each in event.invalidations]

    def told_of(self, inode: int) -> int:
        """Everything that this client was told about an inode, or'ed."""
        what = 0
        for each in self.told:
            if each.inode == inode:
                what |= each.what
        return what

    def batch(self, *operations: AnyOperation, acknowledged: int = 0) -> Batch:
        self.sequence += 1
        return Batch(
            session=self.session,
            sequence=self.sequence,
            operations=list(operations),
            acknowledged=acknowledged,
        )

    async def send(self, batch: Batch) -> list[OpResult]:
        reply: BatchReply = await self.metad.call("meta.batch", batch)
        return reply.results

    async def do(self, *operations: AnyOperation) -> list[OpResult]:
        """A batch, every operation of which succeeds."""
        results = await self.send(self.batch(*operations))
        assert [each.fault for each in results] == [None] * len(results)
        return results

    async def make(self, name: bytes, parent: int = ROOT_INODE, mode: int = 0o644) -> int:
        mode = mode if stat.S_IFMT(mode) else mode | stat.S_IFREG
        (result,) = await self.do(Create(parent=parent, name=name, mode=mode, uid=0, gid=0))
        return result.attrs[0].inode

    async def lookup(self, name: bytes, parent: int = ROOT_INODE) -> Attr | None:
        request = LookupRequest(session=self.session, parent=parent, name=name)
        found: Attr | None = (await self.metad.call("meta.lookup", request)).attr
        return found

    async def getattr(self, inode: int) -> Attr:
        request = InodeRequest(session=self.session, inode=inode)
        attr: Attr = (await self.metad.call("meta.getattr", request)).attr
        return attr

    async def take(self, inode: int, parts: int = FILE) -> LeaseReply:
        request = LeaseRequest(session=self.session, inode=inode, parts=parts)
        reply: LeaseReply = await self.metad.call("lease.take", request)
        return reply

    async def give_back(self, *leases: Lease) -> None:
        request = GiveBack(session=self.session, leases=list(leases))
        await self.metad.call("lease.give_back", request)

    async def store(self, inode: int, length: int = 1000) -> WrittenChunk:
        """A chunk, stored everywhere it was granted to, becomes the file's contents."""
        reply = await self.metad.call("meta.grant", GrantRequest(session=self.session, count=1))
        (grant,) = reply.grants
        disks = [each.disk for each in grant.targets]
        chunk = WrittenChunk(chunk=grant.chunk, length=length, digest=b"d" * 16, disks=disks)
        extent = Extent(offset=0, length=length, chunk=grant.chunk)
        await self.do(
            Commit(inode=inode, extents=[extent], size=length, mtime_ns=1, chunks=[chunk])
        )
        return chunk


class FakeServer:
    """A chunkd with one disk; it carries out orders by saying so."""

    def __init__(self, metad: Metad, server_id: str) -> None:
        self.metad = metad
        self.server_id = server_id
        self.disk = f"{server_id}-d"
        self.failed = False
        self.free = 50 * GIB
        self.orders: list[Order] = []

    async def register(self, incarnation: int = 1) -> FakeServer:
        message = register(self.server_id, incarnation=incarnation)
        await self.metad.call("server.register", message)
        return self

    async def beat(
        self, *, results: Sequence[OrderResult] = (), reports: Sequence[ReplicaReport] = ()
    ) -> HeartbeatReply:
        """One heartbeat; its orders are kept in `orders`."""
        figures = disk(self.disk, free=self.free, failed=self.failed)
        message = heartbeat(self.server_id, disks=[figures], results=results, reports=reports)
        reply: HeartbeatReply = await self.metad.call("server.heartbeat", message)
        self.orders += reply.orders
        return reply

    async def obey(self, *, ok: bool = True) -> None:
        """Report all orders as done (or failed), with a heartbeat."""
        results = [OrderResult(order_id=each.order_id, ok=ok) for each in self.orders]
        self.orders = []
        await self.beat(results=results)

    async def report(self, chunk: bytes, state: Any) -> None:
        await self.beat(reports=[ReplicaReport(chunk=chunk, disk=self.disk, state=state)])
