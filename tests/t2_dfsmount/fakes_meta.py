"""A metad of a few lines, spoken to through the interface of dfswire.client.Client.

It grants sessions, executes nothing, and does as the test says: answer, lose replies, be away, end
the session, push events.
"""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, cast

import msgspec
import trio
import trio.testing

from dfsmount.ports import Forgotten
from dfsmount.remote.leaseclock import LeaseClock
from dfsmount.remote.metaclient import MetaClient
from dfsmount.remote.session import Session
from dfswire.batches import Batch, BatchReply, OpResult
from dfswire.client import Client
from dfswire.errors import SessionLost, Stale, Unavailable, WrongCluster
from dfswire.locks import HeldLocks
from dfswire.messages import Attr, Empty, Event, Invalidation, Lease
from dfswire.metadata import (
    AckEvents,
    FollowEvents,
    GiveBack,
    LeaseReply,
    LeaseRequest,
    OpenSession,
    Renewed,
    RenewSession,
    SessionGrant,
)

LEASE_S, RENEW_S, SIGN_OF_LIFE_S = 20.0, 5.0, 5.0
INTRODUCTION = OpenSession(host="h", mount_point="/m", pid=1, software="0")


def attr(inode: int, ctime_ns: int = 1, size: int = 0) -> Attr:
    """The attributes of a file."""
    return Attr(
        inode=inode,
        mode=0o100644,
        uid=0,
        gid=0,
        size=size,
        atime_ns=0,
        mtime_ns=0,
        ctime_ns=ctime_ns,
    )


class FakeMetad:
    """See the module's text."""

    def __init__(self) -> None:
        self.sessions = 0
        self.cluster_id = "c"
        self.introductions: list[OpenSession] = []
        self.instance = "first"
        self.away = False
        self.has_streams = True
        self.lose_replies = 0
        self.gate = trio.Event()  # batches wait for it
        self.gate.set()
        self.batches: list[Batch] = []  # as they arrived, repeats included
        self.executed: dict[tuple[str, int], BatchReply] = {}
        self.acked: list[int] = []
        self.followed: list[FollowEvents] = []
        self.calls: list[str] = []
        self.answers: dict[str, Callable[[Any], Any]] = {}
        self.lease_number = 0
        self.take_gate = trio.Event()  # a lease that was asked for is granted, its reply waits
        self.take_gate.set()
        self.given_back: list[Lease] = []
        self.back_gate = trio.Event()
        self.back_gate.set()
        self._events: trio.MemorySendChannel[Event] | None = None
        self._number = 0

    @property
    def session(self) -> str:
        return f"session-{self.sessions}"

    def end_session(self) -> None:
        """metad forgets the session; the next open gives another."""
        self.sessions += 100
        self.break_stream()

    async def push(
        self, *invalidations: Invalidation, drop_all: bool = False, recalls: Sequence[Lease] = ()
    ) -> int:
        assert self._events is not None, "nobody follows"
        self._number += 1
        event = Event(
            number=self._number,
            tick=self._number - 1,  # the first is a sign of life
            invalidations=list(invalidations),
            drop_all=drop_all,
            recalls=list(recalls),
        )
        await self._events.send(event)
        return self._number

    def lease(self, inode: int, parts: int = 3) -> Lease:
        """A new exclusive lease."""
        self.lease_number += 1
        return Lease(inode=inode, parts=parts, number=self.lease_number)

    def break_stream(self) -> None:
        if self._events is not None:
            self._events.close()
            self._events = None

    async def call(self, name: str, address: str, request: msgspec.Struct, **_options: Any) -> Any:
        await trio.lowlevel.checkpoint()
        self.calls.append(name)
        if self.away:
            raise Unavailable("away")
        if getattr(request, "cluster_id", "") not in ("", self.cluster_id):
            raise WrongCluster(f"this metad is of cluster {self.cluster_id}")
        if isinstance(request, OpenSession):
            self.introductions.append(request)
            self.sessions += 1
            return SessionGrant(
                session=self.session,
                instance=self.instance,
                lease_s=LEASE_S,
                renew_s=RENEW_S,
                cluster_id=self.cluster_id,
                chunk_size_bytes=1 << 22,
                inline_max_bytes=8192,
                replicas=2,
            )
        if getattr(request, "session", self.session) != self.session:
            raise SessionLost("unknown")
        if isinstance(request, Batch):
            return await self._execute(request)
        if isinstance(request, AckEvents):
            self.acked.append(request.number)
        if isinstance(request, GiveBack):
            self.given_back += request.leases
            await self.back_gate.wait()
        if isinstance(request, LeaseRequest):
            lease = self.lease(request.inode, request.parts)
            await self.take_gate.wait()
            if name not in self.answers:
                return LeaseReply(lease=lease, attr=attr(request.inode))
        if name in self.answers:
            return self.answers[name](request)
        return Renewed(instance=self.instance) if isinstance(request, RenewSession) else Empty()

    async def _execute(self, batch: Batch) -> BatchReply:
        self.batches.append(batch)
        key = (batch.session, batch.sequence)
        if key not in self.executed:
            results = [OpResult() for _ in batch.operations]
            answer = self.answers.get("meta.batch")
            self.executed[key] = answer(batch) if answer else BatchReply(results=results)
        await self.gate.wait()
        if self.lose_replies:
            self.lose_replies -= 1
            raise Unavailable("the reply was lost")
        return self.executed[key]

    @asynccontextmanager
    async def stream(
        self, name: str, address: str, request: msgspec.Struct
    ) -> AsyncIterator[AsyncIterator[Event]]:
        await trio.lowlevel.checkpoint()
        if self.away or not self.has_streams:
            raise Unavailable("away")
        assert isinstance(request, FollowEvents)
        if request.session != self.session:
            raise SessionLost("unknown")
        self.followed.append(request)
        if request.instance != self.instance:
            raise Stale("another start")
        send, receive = trio.open_memory_channel[Event](100)
        self._events, self._number = send, 0
        await self.push()

        async def events() -> AsyncIterator[Event]:
            while True:
                event = Event(number=self._number, tick=self._number - 1)  # a sign of life
                with trio.move_on_after(SIGN_OF_LIFE_S):
                    try:
                        event = await receive.receive()
                    except trio.EndOfChannel:
                        raise Unavailable("the stream broke") from None
                yield event

        yield events()

    async def aclose(self) -> None:
        self.break_stream()


class FakeKernel:
    """`gate` stands for an operation under way in the kernel, for which a notification waits;
    `learning` says how often an inode is not known yet, since its first answer is on its way."""

    def __init__(self) -> None:
        self.heard: list[tuple[int, object]] = []
        self.expires = False  # knows how to let all names expire
        self.gate = threading.Event()
        self.gate.set()
        self.learning: dict[int, int] = {}

    def forget_inode(self, inode: int, data: bool) -> bool:
        self.gate.wait()
        self.heard.append((inode, data))
        return self._knows(inode)

    def forget_pages(self, inode: int, offset: int, end: int | None) -> bool:
        self.heard.append((inode, (offset, end)))
        return self._knows(inode)

    def _knows(self, inode: int) -> bool:
        self.learning[inode] = self.learning.get(inode, 0) - 1
        return self.learning[inode] < 0

    def forget_name(self, parent: int, name: bytes) -> None:
        self.gate.wait()
        self.heard.append((parent, name))

    def expire_names(self) -> bool:
        if self.expires:
            self.heard.append((0, "all names"))
        return self.expires

    def inodes(self) -> list[int]:
        return [1, 7]


class Recorder:
    """A listener that writes down what it is told; `blocked` holds its kernel back."""

    def __init__(self) -> None:
        self.heard: list[Any] = []
        self.blocked: trio.Event | None = None  # the kernel does not answer before
        self.told_kernel: list[Forgotten] = []
        self.news = trio.Event()
        self.leases = [Lease(inode=7, parts=3, number=5)]
        self.opened = 0

    def _note(self, item: Any) -> None:
        self.heard.append(item)
        self.news.set()
        self.news = trio.Event()

    def forget(self, invalidations: list[Invalidation]) -> Forgotten:
        self._note(invalidations)
        return Forgotten({each.inode: False for each in invalidations})

    def forget_all(self) -> Forgotten:
        self._note("forget all")
        return Forgotten(everything=True)

    async def tell_kernel(self, left: Forgotten) -> None:
        if self.blocked is not None:
            await self.blocked.wait()
        self.told_kernel.append(left)

    async def drop_all(self) -> None:
        self._note("drop")

    def open_inodes(self) -> list[int]:
        return [7, 9]

    def held_locks(self) -> HeldLocks:
        return HeldLocks(number=3)

    def recall(self, leases: list[Lease]) -> None:
        self._note(leases)

    def leases_in_use(self) -> list[Lease]:
        return self.leases

    def stream_opened(self) -> None:
        self.opened += 1

    async def session_lost(self) -> None:
        self._note("lost")


@asynccontextmanager
async def running(
    clock: LeaseClock | None = None,
) -> AsyncIterator[tuple[FakeMetad, Session, Recorder]]:
    """A session with such a metad that is kept, and its listener."""
    metad, listener = FakeMetad(), Recorder()
    session = Session(cast(Client, metad), "metad:1", INTRODUCTION, clock=clock)
    await session.open()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(session.run, listener)
        await trio.testing.wait_all_tasks_blocked()
        yield metad, session, listener
        nursery.cancel_scope.cancel()


async def client(
    soft_timeout_s: float | None = None, nursery: trio.Nursery | None = None
) -> tuple[FakeMetad, Session, MetaClient]:
    """An open session with such a metad, and what speaks in it."""
    metad = FakeMetad()
    session = Session(cast(Client, metad), "metad:1", INTRODUCTION)
    await session.open()
    meta = MetaClient(cast(Client, metad), session, soft_timeout_s=soft_timeout_s, nursery=nursery)
    return metad, session, meta
