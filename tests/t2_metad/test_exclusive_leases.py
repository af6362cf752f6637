"""Exclusive leases as clients meet them: taken, recalled, given back, and waited for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from dfswire.errors import NoEntry
from dfswire.messages import ROOT_INODE, Invalidated, Lease, Part
from dfswire.metadata import (
    InodeRequest,
    LayoutRequest,
    LeaseRequest,
    LookupRequest,
    ReaddirReply,
    ReaddirRequest,
    SessionRequest,
)
from dfswire.operations import Commit, Create, Release, SetAttr, Unlink
from tests.t2_metad.lease_holders import Clients
from tests.t2_metad.metad_for_tests import FILE


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


async def test_a_directory_is_listed_up_to_what_is_leased(clients: Clients) -> None:
    """Whoever waited for all leases of a directory at once might never see its end."""
    a, b = clients.a, clients.b
    inodes = [await a.make(b"f%d" % number) for number in range(5)]
    leases = {inode: (await a.take(inode)).lease for inode in (inodes[2], inodes[4])}

    async def page(cookie: int) -> ReaddirReply:
        request = ReaddirRequest(session=b.session, inode=ROOT_INODE, cookie=cookie)
        reply: ReaddirReply = await clients.metad.call("meta.readdir", request)
        return reply

    first = await page(0)
    assert [entry.attr.inode for entry in first.entries] == inodes[:2] and not first.end
    await wait_all_tasks_blocked()
    assert {lease.inode for lease in a.recalled} == leases.keys(), "all are recalled at once"
    reading = await clients.doing(page, first.entries[-1].cookie)
    assert not reading.done
    await a.give_back(leases[inodes[2]])
    await wait_all_tasks_blocked()
    second: ReaddirReply = reading.result
    assert [entry.attr.inode for entry in second.entries] == inodes[2:4] and not second.end
    await a.give_back(leases[inodes[4]])
    await wait_all_tasks_blocked()
    last = await page(second.entries[-1].cookie)
    assert [entry.attr.inode for entry in last.entries] == inodes[4:] and last.end


ASKING: dict[str, Callable[[str, int], Any]] = {
    "meta.lookup": lambda session, inode: LookupRequest(
        session=session, parent=ROOT_INODE, name=b"f"
    ),
    "meta.getattr": lambda session, inode: InodeRequest(session=session, inode=inode),
    "meta.readlink": lambda session, inode: InodeRequest(session=session, inode=inode),
    "meta.xattrs": lambda session, inode: InodeRequest(session=session, inode=inode),
    "meta.readdir": lambda session, inode: ReaddirRequest(session=session, inode=ROOT_INODE),
    "meta.layout": lambda session, inode: LayoutRequest(
        session=session, inode=inode, offset=0, length=1
    ),
}


@pytest.mark.parametrize("call", ASKING)
async def test_every_question_settles_leases_first(clients: Clients, call: str) -> None:
    a, b = clients.a, clients.b
    create = Create(parent=ROOT_INODE, name=b"f", mode=0o120777, uid=0, gid=0, target=b"t")
    (made,) = await a.do(create)
    inode = made.attrs[0].inode
    lease = (await a.take(inode)).lease
    own = ASKING[call](a.session, inode)
    await clients.metad.call(call, own)
    asking = await clients.doing(clients.metad.call, call, ASKING[call](b.session, inode))
    assert not asking.done
    assert [each.number for each in a.recalled] == [lease.number]
    await a.give_back(lease)
    await wait_all_tasks_blocked()
    assert asking.done and asking.problem is None
    taking = await clients.doing(a.take, inode)
    assert taking.done and b.told_of(inode) & Invalidated.ATTR, "b was registered"


async def test_attributes_and_data_are_apart(clients: Clients) -> None:
    a, b = clients.a, clients.b
    inode = await a.make(b"f")
    await a.take(inode, int(Part.DATA))
    await b.getattr(inode)
    layout = LayoutRequest(session=b.session, inode=inode, offset=0, length=1)
    assert not (await clients.doing(clients.metad.call, "meta.layout", layout)).done


async def test_names_can_be_leased(clients: Clients) -> None:
    a, b = clients.a, clients.b
    await b.lookup(b"f")
    lease = (await a.take(ROOT_INODE, int(Part.NAMES))).lease
    assert b.told_of(ROOT_INODE) & Invalidated.ALL_NAMES
    assert await a.make(b"f")
    assert not (await clients.doing(b.lookup, b"f")).done
    making = await clients.doing(b.make, b"g")
    assert not making.done
    await a.give_back(lease)
    await wait_all_tasks_blocked()
    assert making.done


async def test_a_slow_holder_is_mentioned(
    clients: Clients, mock_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    a, b = clients.a, clients.b
    inode = await a.make(b"f")
    await a.take(inode)
    caplog.set_level("INFO", "metad.clients.recalls")
    reading = await clients.doing(b.getattr, inode)
    for _ in range(5):
        mock_clock.jump(5.0)
        await wait_all_tasks_blocked()
    mentioned = [each.message for each in caplog.records if "has not given back" in each.message]
    assert len(mentioned) == 1 and a.session in mentioned[0] and f"inode {inode}" in mentioned[0]
    assert not reading.done


async def test_who_gives_up_waiting_is_not_waited_for(clients: Clients) -> None:
    """A take whose caller is gone leaves its place to those behind it."""
    a, b, c = clients.a, clients.b, clients.c
    inode = await a.make(b"f")
    lease = (await a.take(inode)).lease
    with trio.CancelScope() as scope:
        clients._nursery.start_soon(cancel_soon, scope)
        request = LeaseRequest(session=b.session, inode=inode, parts=FILE)
        await clients.metad.service.leases.take(request)
    assert scope.cancelled_caught
    await a.give_back(lease)
    await c.getattr(inode)
    assert not clients.metad.service.state.leases._turns.any_exclusive


async def test_those_behind_it_go_on_when_somebody_gives_up(clients: Clients) -> None:
    a, b, c = clients.a, clients.b, clients.c
    inode = await b.make(b"f")
    b.silent = True
    request = LeaseRequest(session=a.session, inode=inode, parts=FILE)
    scope = trio.CancelScope()
    taking = await clients.doing(in_scope, scope, clients.metad.service.leases.take, request)
    reading = await clients.doing(c.getattr, inode)
    assert not taking.done and not reading.done, "b has not confirmed"
    scope.cancel()
    await wait_all_tasks_blocked()
    assert reading.done


async def in_scope(scope: trio.CancelScope, action: Callable[[Any], Any], request: Any) -> None:
    with scope:
        await action(request)


async def test_a_repeated_answer_tells_nothing_that_is_leased(clients: Clients) -> None:
    a, b = clients.a, clients.b
    batch = a.batch(Create(parent=ROOT_INODE, name=b"f", mode=0o100644, uid=0, gid=0))
    (made,) = await a.send(batch)
    lease = (await b.take(made.attrs[0].inode)).lease
    repeating = await clients.doing(a.send, batch)
    assert not repeating.done
    await b.do(Commit(inode=lease.inode, extents=[], size=7, mtime_ns=1, give_back=lease))
    await wait_all_tasks_blocked()
    assert repeating.result[0].attrs[0].size == 7


async def test_what_is_leased_may_be_open(clients: Clients) -> None:
    a, b = clients.a, clients.b
    inode = await a.make(b"f")
    await b.take(inode, int(Part.DATA))
    await a.do(Unlink(parent=ROOT_INODE, name=b"f"))
    await wait_all_tasks_blocked()
    assert (await b.getattr(inode)).nlink == 0
    await b.do(Release(inode=inode))
    await wait_all_tasks_blocked()
    with pytest.raises(NoEntry):
        await b.getattr(inode)


async def cancel_soon(scope: trio.CancelScope) -> None:
    await wait_all_tasks_blocked()
    scope.cancel()


async def test_takers_are_served_in_the_order_in_which_they_came(clients: Clients) -> None:
    a, b, c = clients.a, clients.b, clients.c
    inode = await a.make(b"f")
    lease = (await a.take(inode)).lease
    first = await clients.doing(b.take, inode)
    second = await clients.doing(c.take, inode)
    again = await clients.doing(a.take, inode)
    for taking in (first, second, again):
        assert not taking.done
        await {first: a, second: b, again: c}[taking].give_back(lease)
        await wait_all_tasks_blocked()
        assert taking.done
        lease = taking.result.lease


async def test_a_lease_that_ends_before_one_has_begun_to_wait_for_it(
    clients: Clients, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look, in the transaction, and the waiting others run: what they change counts."""
    inode = await clients.a.make(b"f")
    lease = (await clients.a.take(inode)).lease
    looked, go_on = trio.Event(), trio.Event()
    write = clients.metad.db.write

    async def slow(work: Callable[[], Any]) -> Any:
        try:
            return await write(work)
        finally:
            looked.set()
            await go_on.wait()

    monkeypatch.setattr(clients.metad.db, "write", slow)
    changing = await clients.doing(clients.b.do, SetAttr(inode=inode, size=3))
    assert looked.is_set()
    await clients.a.give_back(lease)
    go_on.set()
    await wait_all_tasks_blocked()
    assert changing.done and changing.result[0].attrs[0].size == 3
