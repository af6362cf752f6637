"""metad as clients meet it: coherence between sessions, exactly once, orphans, restarts.

Each test ends with a clean fsck (the fixture db sees to that).
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

import msgspec
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from dfswire.errors import NoEntry, SessionLost, Stale, Unavailable
from dfswire.fsck import FsckReport, FsckRequest
from dfswire.hosts import Hello
from dfswire.messages import PROTOCOL_VERSION, ROOT_INODE, Empty, EventPosition, Invalidated
from dfswire.metadata import AttrReply, InodeRequest, OpenSession, SessionRequest
from dfswire.operations import Create, Release, SetAttr, Unlink
from metad.names import chunkmap
from metad.sessions import rows as sessions
from metad.storage.database import Database
from tests.t2_metad.metad_for_tests import ADDRESS, FakeClient, Metad

GONE = Invalidated.GONE


@dataclass
class Pair:
    """A metad with two clients."""

    metad: Metad
    one: FakeClient
    other: FakeClient


@pytest.fixture
async def pair(db: Database, nursery: trio.Nursery, mock_clock: MockClock) -> AsyncIterator[Pair]:
    metad = Metad(db, nursery)
    await metad.start()
    one = await FakeClient(metad, nursery, "h1").open()
    other = await FakeClient(metad, nursery, "h2").open()
    yield Pair(metad, one, other)
    metad.crash()


class Doing:
    """A call in the background."""

    def __init__(self, nursery: trio.Nursery, client: FakeClient, *operations: SetAttr) -> None:
        self.done = False
        nursery.start_soon(self._run, client, operations)

    async def _run(self, client: FakeClient, operations: tuple[SetAttr, ...]) -> None:
        await client.do(*operations)
        self.done = True


async def settle(mock_clock: MockClock, seconds: float) -> None:
    """Let time pass in small steps, so that timers and what they cause come in order."""
    for _ in range(int(seconds * 2)):
        mock_clock.jump(0.5)
        await wait_all_tasks_blocked()


async def test_hello(pair: Pair, mock_clock: MockClock) -> None:
    hello: Hello = await pair.metad.call("metad.hello", Empty())
    assert (hello.service, hello.protocol) == ("metad", PROTOCOL_VERSION)
    assert hello.cluster_id == pair.metad.service.state.cluster_id


async def test_a_change_reaches_the_holder_before_the_changer_hears_of_success(
    pair: Pair, nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    inode = await pair.one.make(b"f")
    assert await pair.other.lookup(b"f")
    pair.other.silent = True
    change = Doing(nursery, pair.one, SetAttr(inode=inode, mode=0o600))
    await wait_all_tasks_blocked()
    assert pair.other.told_of(inode) & Invalidated.ATTR
    assert not change.done, "the other has not confirmed yet"
    pair.other.silent = False
    await pair.other._obey(pair.other.events[-1])
    await wait_all_tasks_blocked()
    assert change.done
    assert not pair.one.told, "nobody is told of its own changes"


async def test_an_answer_names_the_news_that_it_may_have_overtaken(
    pair: Pair, nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    inode = await pair.one.make(b"f")
    question = InodeRequest(session=pair.other.session, inode=inode)
    answer: AttrReply = await pair.metad.call("meta.getattr", question)
    assert answer.told is None
    pair.other.silent = True
    Doing(nursery, pair.one, SetAttr(inode=inode, mode=0o600))
    await wait_all_tasks_blocked()
    news = pair.other.events[-1]
    answer = await pair.metad.call("meta.getattr", question)
    assert answer.attr.mode & 0o777 == 0o644, "not executed before the other has forgotten it"
    assert answer.told == EventPosition(stream=pair.other.streams, tick=news.tick)
    with pytest.raises(NoEntry) as caught:
        await pair.metad.call("meta.getattr", msgspec.structs.replace(question, inode=999))
    assert caught.value.told == answer.told
    pair.other.silent = False
    await pair.other._obey(news)
    answer = await pair.metad.call("meta.getattr", question)
    assert answer.told is None


async def test_a_name_that_was_absent_is_announced(pair: Pair, mock_clock: MockClock) -> None:
    assert await pair.other.lookup(b"new") is None
    await pair.one.make(b"new")
    assert [(each.what, each.name) for each in pair.other.told if each.name] == [
        (Invalidated.NAME, b"new")
    ]


async def test_who_holds_nothing_is_not_told(pair: Pair, mock_clock: MockClock) -> None:
    inode = await pair.one.make(b"f")
    await pair.one.do(SetAttr(inode=inode, mode=0o600))
    assert pair.other.told == []


async def test_a_silent_holder_is_waited_out_and_fenced(
    pair: Pair, nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    inode = await pair.one.make(b"f")
    await pair.other.lookup(b"f")
    pair.other.silent = True
    change = Doing(nursery, pair.one, SetAttr(inode=inode, mode=0o600))
    await settle(mock_clock, 25)
    await pair.metad.call("session.renew", SessionRequest(session=pair.one.session))
    assert not change.done
    await settle(mock_clock, 6)
    assert change.done
    with pytest.raises(SessionLost):
        await pair.other.getattr(inode)
    with pytest.raises(SessionLost):
        await pair.other.do(SetAttr(inode=inode, mode=0o644))
    assert [each.session for each in sessions.list_sessions(pair.metad.db)] == [pair.one.session]


async def test_a_session_that_renews_lives_on(pair: Pair, mock_clock: MockClock) -> None:
    for _ in range(5):
        await settle(mock_clock, 10)
        await pair.metad.call("session.renew", SessionRequest(session=pair.one.session))
    await pair.one.make(b"f")
    with pytest.raises(SessionLost):
        await pair.other.make(b"g")


async def test_a_broken_stream_blocks_changes_until_it_is_reopened(
    pair: Pair, nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    inode = await pair.one.make(b"f")
    await pair.other.lookup(b"f")
    pair.other.disconnect()
    await wait_all_tasks_blocked()
    change = Doing(nursery, pair.one, SetAttr(inode=inode, mode=0o600))
    await wait_all_tasks_blocked()
    assert not change.done
    await pair.other.follow()
    await wait_all_tasks_blocked()
    assert change.done


async def test_replaced_and_closed_sessions_are_gone(pair: Pair, mock_clock: MockClock) -> None:
    request = OpenSession(
        host="h", mount_point="/", pid=2, software="t", replaces=[pair.other.session, "unknown"]
    )
    await pair.metad.call("session.open", request)
    with pytest.raises(SessionLost):
        await pair.other.lookup(b"f")
    for _ in range(2):
        await pair.metad.call("session.close", SessionRequest(session=pair.one.session))
    with pytest.raises(SessionLost):
        await pair.one.lookup(b"f")
    assert len(sessions.list_sessions(pair.metad.db)) == 1


# exactly once


async def test_a_repeated_batch_is_answered_but_not_executed(
    pair: Pair, mock_clock: MockClock
) -> None:
    create = Create(parent=ROOT_INODE, name=b"f", mode=0o100644, uid=0, gid=0)
    batch = pair.one.batch(create)
    (first,) = await pair.one.send(batch)
    assert first.bare
    # Somebody may have given it xattrs since.
    assert await pair.one.send(batch) == [msgspec.structs.replace(first, bare=False)]
    (result,) = await pair.one.send(pair.one.batch(create, acknowledged=1))
    assert result.fault is not None and result.fault.code == "exists"


async def test_a_batch_that_was_acknowledged_is_refused(pair: Pair, mock_clock: MockClock) -> None:
    create = Create(parent=ROOT_INODE, name=b"f", mode=0o100644, uid=0, gid=0)
    late = pair.one.batch(create)
    for _ in range(130):  # stored replies are pruned now and then
        await pair.one.send(pair.one.batch(create, acknowledged=pair.one.sequence - 1))
    with pytest.raises(Stale):
        await pair.one.send(late)


async def test_a_repeated_batch_has_present_attributes(pair: Pair, mock_clock: MockClock) -> None:
    batch = pair.one.batch(Create(parent=ROOT_INODE, name=b"f", mode=0o100644, uid=0, gid=0))
    (result,) = await pair.one.send(batch)
    inode = result.attrs[0].inode
    await pair.other.do(SetAttr(inode=inode, mode=0o600))
    (again,) = await pair.one.send(batch)
    assert again.attrs[0].mode == 0o100600
    await pair.other.do(Unlink(parent=ROOT_INODE, name=b"f"))
    await pair.one.do(Release(inode=inode))
    await wait_all_tasks_blocked()
    (again,) = await pair.one.send(batch)
    assert again.attrs[0].inode == inode, "purged, but that is what was created"


async def test_a_repetition_does_not_overtake_the_announcement(
    pair: Pair, nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    inode = await pair.one.make(b"f")
    await pair.other.lookup(b"f")
    pair.other.silent = True
    batch = pair.one.batch(SetAttr(inode=inode, mode=0o600))
    with pytest.raises(Unavailable):
        nursery.start_soon(settle, mock_clock, 3)
        await pair.metad.client.call("meta.batch", ADDRESS, batch, deadline_s=1.0, attempts=1)
    answered = trio.Event()

    async def repeat() -> None:
        await pair.one.send(batch)
        answered.set()

    nursery.start_soon(repeat)
    await wait_all_tasks_blocked()
    assert not answered.is_set()
    pair.other.silent = False
    await pair.other._obey(pair.other.events[-1])
    await answered.wait()


async def test_a_copy_that_arrives_while_the_first_is_under_way(
    pair: Pair, nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    inode = await pair.one.make(b"f")
    await pair.other.lookup(b"f")
    pair.other.silent = True
    batch = pair.one.batch(SetAttr(inode=inode, mode=0o600))
    answers = []

    async def send() -> None:
        answers.append(await pair.one.send(batch))

    nursery.start_soon(send)
    nursery.start_soon(send)
    await wait_all_tasks_blocked()
    assert answers == [] and len(pair.other.events) == 1
    await pair.metad.call("session.close", SessionRequest(session=pair.other.session))
    await wait_all_tasks_blocked()
    assert len(answers) == 2


# unlinked but open


def orphans(pair: Pair) -> list[int]:
    return chunkmap.orphans(pair.metad.db)


async def test_an_unlinked_file_that_nobody_has_goes_at_once(
    pair: Pair, mock_clock: MockClock
) -> None:
    await pair.one.make(b"f")
    await pair.one.do(Unlink(parent=ROOT_INODE, name=b"f"))
    await wait_all_tasks_blocked()
    assert orphans(pair) == []


async def test_an_unlinked_file_lives_until_the_last_release(
    pair: Pair, mock_clock: MockClock
) -> None:
    inode = await pair.one.make(b"f")
    await pair.other.lookup(b"f")
    await pair.one.do(Unlink(parent=ROOT_INODE, name=b"f", held=True))
    await wait_all_tasks_blocked()
    assert pair.other.told_of(inode) & GONE
    assert orphans(pair) == [inode]
    await pair.other.do(Release(inode=inode))
    await wait_all_tasks_blocked()
    assert (await pair.one.getattr(inode)).nlink == 0
    await pair.one.do(Release(inode=inode))
    await wait_all_tasks_blocked()
    assert orphans(pair) == []


async def test_the_end_of_its_session_releases_an_unlinked_file(
    pair: Pair, mock_clock: MockClock
) -> None:
    await pair.one.make(b"f")
    await pair.one.do(Unlink(parent=ROOT_INODE, name=b"f", held=True))
    await settle(mock_clock, 31)
    assert orphans(pair) == []


# restarts


async def test_after_a_restart_sessions_go_on(pair: Pair, mock_clock: MockClock) -> None:
    batch = pair.one.batch(Create(parent=ROOT_INODE, name=b"f", mode=0o100644, uid=0, gid=0))
    (first,) = await pair.one.send(batch)
    await pair.metad.restart()
    await pair.other.follow()
    assert await pair.one.send(batch) == [msgspec.structs.replace(first, bare=False)]
    await pair.one.make(b"g")


async def test_after_a_restart_changes_wait_for_those_who_may_have_anything(
    pair: Pair, nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    inode = await pair.one.make(b"f")
    repeated = pair.one.batch(SetAttr(inode=inode, mode=0o644))
    await pair.one.send(repeated)
    await pair.metad.restart()
    await pair.one.follow()
    change = Doing(nursery, pair.one, SetAttr(inode=inode, mode=0o600))
    answers = []

    async def repeat() -> None:
        answers.append(await pair.one.send(repeated))

    nursery.start_soon(repeat)
    await settle(mock_clock, 20)
    assert not change.done and not answers
    await pair.metad.call("session.renew", SessionRequest(session=pair.one.session))
    await settle(mock_clock, 11)
    assert change.done and answers, "the other was fenced"


async def test_after_a_restart_open_files_are_kept_and_others_go(
    pair: Pair, mock_clock: MockClock
) -> None:
    kept = await pair.one.make(b"kept")
    gone = await pair.one.make(b"gone")
    for name in (b"kept", b"gone"):
        await pair.one.do(Unlink(parent=ROOT_INODE, name=name, held=True))
    await pair.metad.restart()
    await wait_all_tasks_blocked()
    assert orphans(pair) == [kept, gone]
    await pair.one.follow([kept])
    await pair.other.follow()
    await wait_all_tasks_blocked()
    assert orphans(pair) == [kept]
    await pair.one.do(Release(inode=kept))
    await wait_all_tasks_blocked()
    assert orphans(pair) == []


async def test_orphans_without_any_session_go_at_the_start(
    pair: Pair, mock_clock: MockClock
) -> None:
    await pair.one.make(b"f")
    await pair.one.do(Unlink(parent=ROOT_INODE, name=b"f", held=True))
    pair.metad.crash()
    with pair.metad.db.transaction():
        for stored in sessions.list_sessions(pair.metad.db):
            sessions.close_session(pair.metad.db, stored.session, 1)
    await pair.metad.start()
    await wait_all_tasks_blocked()
    assert orphans(pair) == []


async def test_too_much_held_drops_everything(
    db: Database, nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    metad = Metad(db, nursery, held_inodes_max=3)
    await metad.start()
    one = await FakeClient(metad, nursery).open()
    for number in range(6):
        await one.make(b"f%d" % number)
    await wait_all_tasks_blocked()
    assert any(event.drop_all for event in one.events)
    metad.crash()


async def test_fsck_call(pair: Pair, mock_clock: MockClock) -> None:
    await pair.one.make(b"f")
    report: FsckReport = await pair.metad.call("cluster.fsck", FsckRequest())
    assert (report.count, report.inodes, report.dentries) == (0, 2, 1)
