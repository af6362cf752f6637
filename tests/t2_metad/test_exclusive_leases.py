"""Exclusive leases as clients meet them: taken, recalled, given back, and waited for."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import msgspec
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from dfswire.errors import DFSError, NoEntry
from dfswire.messages import ROOT_INODE, Lease
from dfswire.metadata import SessionRequest
from dfswire.operations import Commit, Create, SetAttr
from metad.database import Database
from tests.t2_metad.metad_for_tests import FILE, FakeClient, Metad


class Clients:
    """A metad with three clients."""

    def __init__(self, metad: Metad, nursery: trio.Nursery) -> None:
        self.metad = metad
        self._nursery = nursery
        self.a, self.b, self.c = (FakeClient(metad, nursery, f"h{name}") for name in "abc")

    async def doing(self, action: Callable[..., Awaitable[Any]], *arguments: Any) -> Doing:
        """A call in the background, as far as it comes by itself."""
        doing = Doing()
        self._nursery.start_soon(doing.run, action, *arguments)
        await wait_all_tasks_blocked()
        return doing


class Doing:
    """A call that is under way, or its outcome."""

    def __init__(self) -> None:
        self.done = False
        self.result: Any = None
        self.problem: DFSError | None = None

    async def run(self, action: Callable[..., Awaitable[Any]], *arguments: Any) -> None:
        try:
            self.result = await action(*arguments)
        except DFSError as problem:
            self.problem = problem
        self.done = True


@pytest.fixture
async def clients(
    db: Database, nursery: trio.Nursery, mock_clock: MockClock
) -> AsyncIterator[Clients]:
    metad = Metad(db, nursery)
    await metad.start()
    clients = Clients(metad, nursery)
    for each in (clients.a, clients.b, clients.c):
        await each.open()
    yield clients
    metad.crash()


async def test_a_lease_comes_with_what_metad_knows(clients: Clients) -> None:
    inode = await clients.a.make(b"f")
    await clients.b.do(SetAttr(inode=inode, mode=0o600))
    reply = await clients.a.take(inode)
    assert (reply.lease.inode, reply.lease.parts) == (inode, FILE)
    assert reply.attr.mode & 0o777 == 0o600
    with pytest.raises(NoEntry):
        await clients.a.take(12345)


async def test_a_reader_waits_until_the_lease_is_given_back(clients: Clients) -> None:
    inode = await clients.a.make(b"f")
    lease = (await clients.a.take(inode)).lease
    reading = await clients.doing(clients.b.getattr, inode)
    assert not reading.done
    assert clients.a.recalled == [Lease(inode=inode, parts=1, number=lease.number)]
    commit = Commit(inode=inode, extents=[], size=7, mtime_ns=1)
    await clients.a.do(commit)
    assert not reading.done
    await clients.a.give_back(lease)
    await wait_all_tasks_blocked()
    assert reading.result.size == 7


async def test_a_change_waits_too(clients: Clients) -> None:
    inode = await clients.a.make(b"f")
    lease = (await clients.a.take(inode)).lease
    changing = await clients.doing(clients.b.do, SetAttr(inode=inode, size=3))
    assert not changing.done
    await clients.a.do(Commit(inode=inode, extents=[], size=7, mtime_ns=1, give_back=lease))
    await wait_all_tasks_blocked()
    assert changing.done
    assert (await clients.a.getattr(inode)).size == 3


async def test_a_new_file_may_come_with_its_lease(clients: Clients) -> None:
    create = Create(parent=ROOT_INODE, name=b"f", mode=0o100644, uid=0, gid=0, lease=FILE)
    (result,) = await clients.a.do(create)
    inode = result.attrs[0].inode
    assert result.lease is not None and result.lease.parts == FILE
    looking = await clients.doing(clients.b.lookup, b"f")
    assert not looking.done
    await clients.a.give_back(result.lease)
    await wait_all_tasks_blocked()
    assert looking.result.inode == inode


async def test_a_dead_holder_is_fenced_at_the_very_time(
    clients: Clients, mock_clock: MockClock
) -> None:
    inode = await clients.a.make(b"f")
    await clients.a.take(inode)
    died_s = trio.current_time()
    for _ in range(2):
        mock_clock.jump(14.0)
        request = SessionRequest(session=clients.b.session)
        await clients.metad.call("session.renew", request)
    reading = await clients.doing(clients.b.getattr, inode)
    mock_clock.jump(1.9)
    await wait_all_tasks_blocked()
    assert not reading.done
    mock_clock.jump(0.11)
    await wait_all_tasks_blocked()
    assert reading.done and trio.current_time() - died_s < 30.1


async def test_a_batch_that_does_not_want_to_wait_does_what_it_can(clients: Clients) -> None:
    """Else two clients might wait for each other: what one must commit to give its lease back may
    travel with what waits for the lease of the other."""
    a, b = clients.a, clients.b
    mine, other = await a.make(b"f"), await a.make(b"g")
    of_a, of_b = (await a.take(mine)).lease, (await b.take(other)).lease
    for client, own, wanted, lease in ((a, mine, other, of_a), (b, other, mine, of_b)):
        commit = Commit(inode=own, extents=[], size=7, mtime_ns=1, give_back=lease)
        batch = client.batch(commit, SetAttr(inode=wanted, mode=0o600))
        done, refused = await client.send(msgspec.structs.replace(batch, no_wait=True))
        assert done.fault is None
        code = refused.fault.code if refused.fault is not None else ""
        assert code == ("leased" if client is a else ""), "a has given back when b asks"
        assert await client.send(batch) == [done, refused], "that was the answer"
    assert [each.inode for each in b.recalled] == [other]
    assert [each.inode for each in a.recalled] == []
