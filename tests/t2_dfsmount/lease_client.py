"""A client's leases with a fake metad, and what is dirty under them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import cast

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from dfsmount.leases.attrcache import AttrCache
from dfsmount.leases.exclusive import WRITE_PARTS, Leases
from dfsmount.names.mutations import Mutations
from dfsmount.ports import Forgotten
from dfsmount.remote.followed import FollowedPolicies
from dfsmount.remote.metaclient import MetaClient
from dfsmount.remote.session import Session
from dfswire.batches import BatchReply, OpResult
from dfswire.client import Client
from dfswire.errors import NoEntry
from dfswire.locks import HeldLocks
from dfswire.messages import Invalidation, Lease
from dfswire.operations import Commit, Create
from tests.t2_dfsmount.fakes_meta import INTRODUCTION, FakeMetad, attr

COMMIT = Commit(inode=7, extents=[], size=1, mtime_ns=1)
CREATE = Create(parent=1, name=b"f", mode=0o100644, uid=0, gid=0, lease=WRITE_PARTS)


class Contents:
    """What is dirty, and the order in which it was asked for."""

    def __init__(self) -> None:
        self.dirty: set[int] = set()
        self.heard: list[tuple[str, int]] = []
        self.kernel = trio.Event()  # it answers
        self.kernel.set()
        self.stored = trio.Event()  # storing succeeds
        self.stored.set()

    async def write_back(self, inode: int) -> None:
        self.heard.append(("write back", inode))
        await self.kernel.wait()

    async def store(self, inode: int) -> None:
        self.heard.append(("store", inode))
        await self.stored.wait()
        self.dirty.discard(inode)

    def is_dirty(self, inode: int) -> bool:
        return inode in self.dirty


class Listener:
    def __init__(self, leases: Leases) -> None:
        self._leases = leases

    def forget(self, invalidations: list[Invalidation]) -> Forgotten:
        return Forgotten()

    def forget_all(self) -> Forgotten:
        return Forgotten()

    async def tell_kernel(self, left: Forgotten) -> None: ...

    async def drop_all(self) -> None: ...

    def open_inodes(self) -> list[int]:
        return []

    def held_locks(self) -> HeldLocks:
        return HeldLocks()

    def recall(self, leases: list[Lease]) -> None:
        for lease in leases:
            self._leases.recall(lease)

    def leases_in_use(self) -> list[Lease]:
        return self._leases.keep_used()

    def stream_opened(self) -> None:
        self._leases.stream_opened()

    async def session_lost(self) -> None:
        self._leases.lost()


class World:
    def __init__(self, nursery: trio.Nursery, soft_s: float | None) -> None:
        self.metad = FakeMetad()
        self.session = Session(cast(Client, self.metad), "metad:1", INTRODUCTION)
        self.meta = MetaClient(cast(Client, self.metad), self.session, soft_timeout_s=soft_s)
        self.attrs = AttrCache(lambda: True)
        self.leases = Leases(self.meta, self.session, self.attrs, nursery, hard=soft_s is None)
        self.leases.returns.contents = self.contents = Contents()
        self.mutations = Mutations(self.meta, self.attrs, self.leases, FollowedPolicies())

    def takes(self) -> int:
        return self.metad.calls.count("lease.take")

    async def write(self, inode: int = 7) -> bool:
        """One write; whether it had to be committed at once."""
        writing = self.leases.writing(inode)
        async with writing:
            self.contents.dirty.add(inode)
        return writing.through

    async def refused(self) -> None:
        with pytest.raises(NoEntry):
            await self.write()

    async def commit(self) -> None:
        """All that is dirty."""
        await self.mutations.submit(COMMIT, ends_lease=True)

    @asynccontextmanager
    async def grant_under_way(self, asking: Callable[[], Awaitable[object]]) -> AsyncIterator[None]:
        """Something that wants a lease has asked for it; the answer comes after the body."""
        self.metad.take_gate = trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(asking)
            await wait_all_tasks_blocked()
            yield
            self.metad.take_gate.set()
        await wait_all_tasks_blocked()

    async def recall(self, *leases: Lease) -> None:
        await self.metad.push(recalls=leases)
        await wait_all_tasks_blocked()


@asynccontextmanager
async def running(soft_s: float | None = None) -> AsyncIterator[World]:
    async with trio.open_nursery() as nursery:
        world = World(nursery, soft_s)
        await world.session.open()
        nursery.start_soon(world.session.run, Listener(world.leases))
        nursery.start_soon(world.leases.returns.run)
        await wait_all_tasks_blocked()
        yield world
        nursery.cancel_scope.cancel()


def ending(lease: Lease) -> Commit:
    return Commit(inode=7, extents=[], size=1, mtime_ns=1, give_back=lease)


def granting(world: World, inode: int = 7) -> Lease:
    """The next batch grants a lease."""
    lease = world.metad.lease(inode)
    results = [OpResult(attrs=[attr(inode)], lease=lease)]
    world.metad.answers["meta.batch"] = lambda _batch: BatchReply(results=results)
    return lease
