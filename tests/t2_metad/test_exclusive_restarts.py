"""Exclusive leases after a restart of metad, and on a stream that was opened again."""

from __future__ import annotations

from trio.testing import wait_all_tasks_blocked

from dfswire.messages import Lease
from dfswire.metadata import AckEvents
from dfswire.operations import Commit, SetAttr
from tests.t2_metad.lease_holders import Clients
from tests.t2_metad.metad_for_tests import FILE


async def test_after_a_restart_leases_go_on(clients: Clients) -> None:
    a, b, c = clients.a, clients.b, clients.c
    inode = await a.make(b"f")
    lease = (await a.take(inode)).lease
    await clients.metad.restart()
    reading = await clients.doing(b.getattr, inode)
    changing = await clients.doing(b.do, SetAttr(inode=inode, mode=0o600))
    for client in (b, c):
        await client.follow()
        assert not reading.done and not changing.done, "a may have it exclusively"
    await a.follow(leases=[lease])
    await wait_all_tasks_blocked()
    assert not reading.done and not changing.done, "it has"
    assert a.recalled == [Lease(inode=inode, parts=1, number=lease.number)]
    await a.do(Commit(inode=inode, extents=[], size=7, mtime_ns=1, give_back=lease))
    await wait_all_tasks_blocked()
    assert reading.result.size == 7 and changing.done


async def test_a_commit_that_is_repeated_after_a_restart_gives_back_too(clients: Clients) -> None:
    a, b, c = clients.a, clients.b, clients.c
    inode = await a.make(b"f")
    lease = (await a.take(inode)).lease
    batch = a.batch(Commit(inode=inode, extents=[], size=7, mtime_ns=1, give_back=lease))
    await a.send(batch)
    await clients.metad.restart()
    for client in (b, c):
        await client.follow()
    await a.follow(leases=[lease])
    reading = await clients.doing(b.getattr, inode)
    assert not reading.done
    await a.send(batch)
    await wait_all_tasks_blocked()
    assert reading.result.size == 7


async def test_a_recall_is_repeated_on_a_new_stream(clients: Clients) -> None:
    a, b = clients.a, clients.b
    inode = await a.make(b"f")
    lease = (await a.take(inode)).lease
    a.disconnect()
    await wait_all_tasks_blocked()
    reading = await clients.doing(b.getattr, inode)
    assert a.recalled == []
    await a.follow(leases=[lease])
    await wait_all_tasks_blocked()
    assert [each.number for each in a.recalled] == [lease.number]
    await a.give_back(lease)
    await wait_all_tasks_blocked()
    assert reading.done


async def test_a_lease_that_ended_is_forgotten_before_others_go_on(clients: Clients) -> None:
    """A reopened stream confirms what was told before, but not for what is still believed."""
    a, b = clients.a, clients.b
    inode = await a.make(b"f")
    lease = (await a.take(inode)).lease
    await a.give_back(lease)
    a.silent = True
    changing = await clients.doing(b.do, SetAttr(inode=inode, mode=0o600))
    a.disconnect()
    await wait_all_tasks_blocked()
    await a.follow(leases=[lease])
    await wait_all_tasks_blocked()
    assert not changing.done
    assert a.told_of(inode) == FILE
    await clients.metad.call(
        "session.ack", AckEvents(session=a.session, number=a.events[-1].number)
    )
    await wait_all_tasks_blocked()
    assert changing.done
