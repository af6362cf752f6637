"""A metad that tells others what will change, and executes it when they have forgotten it."""

from __future__ import annotations

import stat

import msgspec
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from dfswire.batches import BatchReply
from dfswire.errors import Leased
from dfswire.messages import ROOT_INODE, Invalidated
from dfswire.metadata import (
    AttrReply,
    InodeRequest,
    LayoutRequest,
    LookupReply,
    LookupRequest,
    RenewSession,
)
from dfswire.operations import (
    Access,
    AccessTime,
    AnyOperation,
    Create,
    CreateUnnamed,
    SetAttr,
    Unlink,
)
from metad.clients.mutations import TOGETHER_S
from metad.names import chunkmap
from tests.t2_metad.lease_holders import Clients
from tests.t2_metad.metad_for_tests import FakeClient


async def getattr_(client: FakeClient, inode: int) -> AttrReply:
    request = InodeRequest(session=client.session, inode=inode)
    reply: AttrReply = await client.metad.call("meta.getattr", request)
    return reply


async def lookup(client: FakeClient, name: bytes) -> LookupReply:
    request = LookupRequest(session=client.session, parent=ROOT_INODE, name=name)
    reply: LookupReply = await client.metad.call("meta.lookup", request)
    return reply


async def confirm(client: FakeClient) -> None:
    """What was not answered, and all that comes from now on."""
    client.silent = False
    await client._obey(client.events[-1])
    await wait_all_tasks_blocked()


def mode(reply: AttrReply) -> int:
    return reply.attr.mode & 0o777


async def test_nobody_sees_a_change_that_somebody_else_may_not_see(clients: Clients) -> None:
    a, b, c = clients.a, clients.b, clients.c
    inode = await a.make(b"f")
    await b.lookup(b"f")
    b.silent = True
    change = await clients.doing(a.do, SetAttr(inode=inode, mode=0o600))
    for who in (b, c):
        answer = await getattr_(who, inode)
        assert (mode(answer), answer.fleeting) == (0o644, [inode])
    own = await getattr_(a, inode)
    assert (mode(own), own.fleeting) == (0o644, []), "nobody tells a of its own change"
    assert not change.done
    await confirm(b)
    assert change.done
    assert c.told_of(inode) == 0, "it was told with the answer that it must not keep it"
    for who in (b, c):
        answer = await getattr_(who, inode)
        assert (mode(answer), answer.fleeting) == (0o600, [])


async def test_other_names_of_the_directory_may_be_kept_and_it_goes_on(clients: Clients) -> None:
    a, b = clients.a, clients.b
    await a.make(b"old")
    await b.lookup(b"new")
    b.silent = True
    create = Create(parent=ROOT_INODE, name=b"new", mode=0o100644, uid=0, gid=0)
    change = await clients.doing(a.do, create)
    answer = await lookup(b, b"new")
    assert answer.attr is None and answer.fleeting_names == [ROOT_INODE]
    assert (await lookup(b, b"old")).fleeting_names == [], "that one stays"
    await confirm(b)
    assert change.done, "that it asked meanwhile keeps nobody waiting"
    answer = await lookup(b, b"new")
    assert answer.attr is not None and answer.fleeting_names == []


async def test_two_changes_of_one_directory_go_on_together(clients: Clients) -> None:
    a, b, c = clients.a, clients.b, clients.c
    for who in (a, b, c):
        await who.lookup(b"x")
    c.silent = True
    first = await clients.doing(a.make, b"x")
    second = await clients.doing(b.make, b"y")
    assert not first.done and not second.done
    await confirm(c)
    assert first.done and second.done
    assert {name for _, name in await names(c)} == {b"x", b"y"}


async def names(client: FakeClient) -> list[tuple[int, bytes]]:
    found = []
    for name in (b"x", b"y"):
        answer = await lookup(client, name)
        if answer.attr is not None:
            found.append((answer.attr.inode, name))
    return found


async def test_what_a_change_tells_its_own_client_may_be_fleeting(clients: Clients) -> None:
    a, b, c = clients.a, clients.b, clients.c
    inode = await a.make(b"f")
    request = LayoutRequest(session=c.session, inode=inode, offset=0, length=1)
    await c.metad.call("meta.layout", request)
    await a.do(SetAttr(inode=inode, mode=0o600))  # so c has only its data
    c.silent = True
    change = await clients.doing(a.do, SetAttr(inode=inode, size=0))
    chmod = b.batch(SetAttr(inode=inode, mode=0o640))
    reply: BatchReply = await b.metad.call("meta.batch", chmod)
    assert reply.results[0].attrs[0].mode & 0o777 == 0o640
    assert reply.fleeting == [inode]
    await confirm(c)
    assert change.done


async def test_a_change_that_is_given_up_leaves_nothing_behind(
    clients: Clients, nursery: trio.Nursery
) -> None:
    a, b, c = clients.a, clients.b, clients.c
    inode = await a.make(b"f")
    await b.lookup(b"f")
    b.silent = True
    with trio.CancelScope() as scope:

        async def give_up() -> None:
            await wait_all_tasks_blocked()
            scope.cancel()

        nursery.start_soon(give_up)
        await clients.metad.service.mutations.execute(a.batch(SetAttr(inode=inode, mode=0o600)))
    answer = await getattr_(c, inode)
    assert (mode(answer), answer.fleeting) == (0o644, []), "it never happened"
    await confirm(b)
    assert (await c.take(inode)).lease.inode == inode


async def test_who_wants_it_for_himself_waits_until_it_is_changed(clients: Clients) -> None:
    a, b, c = clients.a, clients.b, clients.c
    inode = await a.make(b"f")
    await b.lookup(b"f")
    b.silent = True
    change = await clients.doing(a.do, SetAttr(inode=inode, mode=0o600))
    take = await clients.doing(c.take, inode)
    assert not take.done
    await confirm(b)
    assert change.done and take.done
    assert take.result.attr.mode & 0o777 == 0o600


async def test_an_inode_that_was_looked_up_meanwhile_is_asked_after(clients: Clients) -> None:
    a, b, c = clients.a, clients.b, clients.c
    inode = await a.make(b"f")
    await b.lookup(b"f")
    b.silent = True
    change = await clients.doing(a.do, Unlink(parent=ROOT_INODE, name=b"f"))
    assert (await lookup(c, b"f")).attr is not None
    await confirm(b)
    assert change.done
    assert c.told_of(inode) & Invalidated.GONE, "it may have opened it by now"
    await clients.metad.service.reclaimer.run_once()
    assert chunkmap.orphans(clients.metad.db) == [inode]


async def test_a_dead_client_delays_writers_only(clients: Clients, mock_clock: MockClock) -> None:
    a, b, c = clients.a, clients.b, clients.c
    inode = await a.make(b"f")
    await b.lookup(b"f")
    b.silent = True
    change = await clients.doing(a.do, SetAttr(inode=inode, mode=0o600))
    for _ in range(25):
        mock_clock.jump(1.0)
        assert mode(await getattr_(c, inode)) == 0o644
        for who in (a, c):
            await who.metad.call("session.renew", RenewSession(session=who.session))
    assert not change.done
    mock_clock.jump(6.0)
    await clients.metad.service.clients.run_once()
    await wait_all_tasks_blocked()
    assert change.done, "b is fenced"


@pytest.mark.parametrize("unnamed", [False, True])
async def test_what_is_undone_has_no_inodes_that_are_made_meanwhile(
    clients: Clients, unnamed: bool
) -> None:
    """The next file gets the number that the file had which was undone."""
    a, b, c = clients.a, clients.b, clients.c
    directory = await b.make(b"d", mode=stat.S_IFDIR | 0o755)
    await c.lookup(b"x")
    c.silent = True
    makes: list[AnyOperation] = [
        Create(parent=ROOT_INODE, name=b"x", mode=0o100644, uid=0, gid=0, exclusive=True)
    ]
    if unnamed:
        makes.insert(0, CreateUnnamed(parent=ROOT_INODE, mode=0o100644, uid=0, gid=0))
    change = await clients.doing(a.do, *makes)
    inode = await b.make(b"y", parent=directory)
    assert (await getattr_(b, inode)).fleeting == []
    take = await clients.doing(b.take, inode)
    assert take.done and not change.done
    await confirm(c)
    made = {attr.inode for result in change.result for attr in result.attrs}
    assert change.done and inode not in made


async def test_times_of_reading_hold_up_nobody_who_writes(clients: Clients) -> None:
    """A message has those of many files; of one of them somebody does not answer."""
    a, b, c = clients.a, clients.b, clients.c
    inodes = [await a.make(name) for name in (b"f", b"g")]
    attrs = [await a.getattr(each) for each in inodes]
    await c.getattr(inodes[1])
    c.silent = True
    times = [
        AccessTime(inode=each.inode, atime_ns=each.ctime_ns + 5, ctime_ns=each.ctime_ns)
        for each in attrs
    ]
    reading = await clients.doing(a.do, Access(times=times))
    assert not reading.done, "c is told, and waited for"
    answer = await getattr_(b, inodes[0])
    assert (answer.attr.atime_ns, answer.fleeting) == (times[0].atime_ns, [])
    take = await clients.doing(b.take, inodes[0])
    assert take.done
    assert c.told_of(inodes[1]) == Invalidated.ATTR
    await confirm(c)
    assert reading.done
    assert (await getattr_(c, inodes[1])).attr.atime_ns == times[1].atime_ns


async def test_what_concerns_nobody_does_not_wait_for_the_dead_along_with_its_batch(
    clients: Clients, mock_clock: MockClock
) -> None:
    a, b = clients.a, clients.b
    known, own = await a.make(b"known"), await a.make(b"own")
    await b.getattr(known)
    b.silent = True
    changes = SetAttr(inode=known, mode=0o600), SetAttr(inode=own, mode=0o600)
    batch = msgspec.structs.replace(a.batch(*changes), no_wait=True)
    together = await clients.doing(a.send, batch)
    mock_clock.jump(TOGETHER_S / 2)
    await wait_all_tasks_blocked()
    assert not together.done, "mostly it takes a moment"
    mock_clock.jump(TOGETHER_S)
    await wait_all_tasks_blocked()
    assert [each.fault.code for each in together.result] == [Leased.code] * 2
    assert not clients.metad.service.state.leases.changes
    known_alone, own_alone = [
        await clients.doing(a.send, msgspec.structs.replace(a.batch(each), no_wait=True))
        for each in changes
    ]
    assert own_alone.done and own_alone.result[0].fault is None
    mock_clock.jump(2 * TOGETHER_S)
    await wait_all_tasks_blocked()
    assert not known_alone.done, "one that is alone waits"
    await confirm(b)
    assert known_alone.done and mode(await getattr_(a, known)) == 0o600
