"""What is added to the event log is in the table soon, and whoever follows hears of it."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from dfswire.admin import RemoveTarget
from dfswire.errors import InputOutput, NoSpace, UsageError
from dfswire.messages import ROOT_INODE, Empty
from dfswire.observe import EventsReply, EventsRequest
from dfswire.operations import Unlink
from metad.copies import replicas
from metad.observe import eventlog
from metad.observe.eventlog import KINDS, EventLog
from metad.storage.database import Database
from tests.t2_metad.metad_for_tests import FakeClient, FakeServer, Metad

ROOT = Path(__file__).resolve().parents[2]


async def ask(metad: Metad, **fields: Any) -> EventsReply:
    await trio.testing.wait_all_tasks_blocked()
    reply: EventsReply = await metad.call("cluster.events", EventsRequest(**fields))
    return reply


async def kinds(metad: Metad, **fields: Any) -> list[str]:
    return [each.kind for each in (await ask(metad, **fields)).events]


def test_every_kind_in_the_code_is_in_the_table() -> None:
    texts = [path.read_text("utf-8") for path in (ROOT / "metad").rglob("*.py")]
    pattern = r'(?:add|tell|_tell)\(\s*f?"([a-z]+\.[a-z_{}.]+)"'
    used = {kind for text in texts for kind in re.findall(pattern, text)}
    names = {kind for kind in used if "{" not in kind}
    assert names <= set(KINDS)
    assert len(used) > 5, "the pattern finds them"


def test_an_unknown_kind_is_a_mistake(db: Database) -> None:
    log = EventLog(db, clock=lambda: 0.0, wall_ns=lambda: 0)
    with pytest.raises(ValueError, match="odd"):
        log.add("server.odd", "s", "m")


async def test_what_was_added_is_told(metad: Metad, autojump_clock: MockClock) -> None:
    reply = await ask(metad)
    (event,) = reply.events
    assert (event.number, event.kind, event.severity) == (1, "metad.started", "info")
    assert (reply.first, reply.last, reply.next_after) == (1, 1, 1)
    metad.service.state.event_log.add("disk.failed", "d" * 2000, "x" * 2000)
    (event,) = (await ask(metad, after=1)).events
    assert (event.number, event.severity, event.times) == (2, "error", 1)
    assert len(event.subject) == len(event.message) == eventlog.TEXT_MAX_CHARS
    assert event.time_ns == metad.now_ns()


async def test_events_outlive_metad(metad: Metad, autojump_clock: MockClock) -> None:
    await ask(metad)
    await metad.restart()
    assert await kinds(metad) == ["metad.started", "metad.started"]


async def test_filters_and_pages(metad: Metad, autojump_clock: MockClock) -> None:
    log = metad.service.state.event_log
    for kind in ("disk.failed", "server.down", "disk.back", "server.up"):
        await trio.sleep(1)
        log.add(kind, "s", kind)
    assert await kinds(metad, kinds=["disk"]) == ["disk.failed", "disk.back"]
    assert await kinds(metad, kinds=["disk.back", "metad"]) == ["metad.started", "disk.back"]
    assert await kinds(metad, since_ns=metad.now_ns() - 10**9) == ["disk.back", "server.up"]
    page = await ask(metad, limit=2)
    assert [each.number for each in page.events] == [1, 2]
    assert [each.number for each in (await ask(metad, after=page.next_after)).events] == [3, 4, 5]
    newest = await ask(metad, limit=2, newest=True)
    assert ([each.number for each in newest.events], newest.next_after) == ([4, 5], 5)
    for kind in ("dis", "server.", "*", "odd"):
        with pytest.raises(UsageError, match="there are"):
            await ask(metad, kinds=[kind])


async def test_waiting_for_the_next(
    metad: Metad, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    replies: list[EventsReply] = []

    async def follow() -> None:
        replies.append(await ask(metad, after=1, kinds=["disk"], wait_s=20))

    nursery.start_soon(follow)
    await trio.sleep(5)
    metad.service.state.event_log.add("server.up", "s", "not this one")
    await trio.sleep(5)
    assert replies == []
    metad.service.state.event_log.add("disk.back", "d", "this one")
    await trio.testing.wait_all_tasks_blocked()
    (reply,) = replies
    assert [each.number for each in reply.events] == [3]
    began = trio.current_time()
    reply = await ask(metad, after=3, wait_s=1000)
    assert (reply.events, reply.next_after) == ([], 3)
    assert trio.current_time() - began == pytest.approx(30)


async def test_the_table_is_bounded(
    metad: Metad, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(eventlog, "ROWS_MAX", 3)
    for number in range(5):
        metad.service.state.event_log.add("disk.back", str(number), "m")
        await trio.sleep(1)
    reply = await ask(metad)
    assert [each.number for each in reply.events] == [4, 5, 6]
    assert reply.first == 4


async def test_a_full_disk_delays_events(
    metad: Metad,
    autojump_clock: MockClock,
    monkeypatch: pytest.MonkeyPatch,
    tolerate_log: Callable[[str], None],
) -> None:
    write, full = metad.db.write, [True]

    async def fail(work: Callable[[], Any]) -> Any:
        if full:
            await trio.lowlevel.checkpoint()
            raise NoSpace("full")
        return await write(work)

    monkeypatch.setattr(metad.db, "write", fail)
    metad.service.state.event_log.add("disk.back", "d", "m")
    await trio.sleep(10)
    assert await kinds(metad) == ["metad.started"]
    full.clear()
    await trio.sleep(2)
    assert await kinds(metad) == ["metad.started", "disk.back"]


async def test_a_metad_that_is_stopped_says_so(metad: Metad, autojump_clock: MockClock) -> None:
    log = metad.service.state.event_log
    for _ in range(10):
        log.add("disk.back", "d", "m")
    await metad.service.stop()
    reply = await ask(metad)
    assert [each.kind for each in reply.events][-1] == "disk.back", "merged ones too"
    assert sum(each.times for each in reply.events if each.kind == "disk.back") == 10
    assert "metad.stopped" in [each.kind for each in reply.events]


async def test_servers_come_and_go(metad: Metad, autojump_clock: MockClock) -> None:
    one = await FakeServer(metad, "s1").register()
    await one.beat()
    await trio.sleep(20)
    await one.beat()
    await trio.sleep(1)
    one.failed = True
    await one.beat()
    one.failed = False
    await one.beat()
    assert await kinds(metad, after=1) == [
        "server.registered",
        "server.suspect",
        "server.down",
        "server.up",
        "disk.failed",
        "disk.back",
    ]
    down = (await ask(metad, kinds=["server.down"])).events[0]
    assert (down.subject, down.message) == ("s1", "s1:9500 was last heard 8 s ago")
    await metad.restart()
    await one.register()
    await one.beat()
    await trio.sleep(1)
    assert (await kinds(metad))[-1] == "metad.started", "a restart of metad is no news of servers"


async def test_a_removed_server_is_not_missed(
    metad: Metad, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    """Nor after a start of metad, which knows it from the database like one that is away."""
    for name in ("s1", "s2"):
        await FakeServer(metad, name).register()
    await trio.sleep(20)
    await metad.call("admin.remove", RemoveTarget(server="s1", accept_loss=True))
    await metad.restart()
    await trio.sleep(20)
    *_, down = (await ask(metad, kinds=["server.down"])).events
    assert (down.subject, down.times) == ("s2", 1)
    assert down.message == "s2:9500 was not heard since metad started 8 s ago"
    assert [each.subject for each in (await ask(metad, kinds=["server.down"])).events] == [
        *("s1", "s2"),
        "s2",
    ]


async def test_a_session_that_is_not_heard(
    metad: Metad, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    client = await FakeClient(metad, nursery).open()
    await trio.sleep(40)
    (event,) = (await ask(metad, kinds=["session"])).events
    assert (event.kind, event.subject) == ("session.fenced", client.session)
    assert event.message == "/mnt on host was not heard for too long"


async def test_chunks_that_get_lost(
    metad: Metad,
    autojump_clock: MockClock,
    nursery: trio.Nursery,
    expect_log: Callable[[str], None],
) -> None:
    expect_log("has no good replica left")
    servers = [await FakeServer(metad, name).register() for name in ("s1", "s2")]
    client = await FakeClient(metad, nursery).open()
    written = await client.store(await client.make(b"f"))
    await servers[0].report(written.chunk, "missing")
    await servers[1].report(written.chunk, "bad")
    await servers[1].report(written.chunk, "good")
    events = (await ask(metad, kinds=["chunk"])).events
    assert [each.kind for each in events] == ["chunk.missing", "chunk.bad", "chunk.lost"]
    assert {each.subject for each in events} == {written.chunk.hex()}
    await metad.call("cluster.status", Empty())


async def test_repair_begins_and_ends(
    metad: Metad, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    servers = [await FakeServer(metad, name).register() for name in ("s1", "s2", "s3")]
    client = await FakeClient(metad, nursery).open()
    written = await client.store(await client.make(b"f"))
    holder = next(each for each in servers if each.disk in written.disks)
    await holder.report(written.chunk, "bad")
    for _ in range(4):
        for server in servers:
            await server.beat()
            await server.obey()
        await trio.sleep(1.5)
    assert await kinds(metad, kinds=["repair"]) == ["repair.begun", "repair.finished"]


@pytest.mark.parametrize("lost", [0, 1])
async def test_repair_ends_though_the_server_never_returns(
    metad: Metad,
    autojump_clock: MockClock,
    nursery: trio.Nursery,
    lost: int,
) -> None:
    """Twice; the second time begins like the first.  The lost are told of."""
    servers = {each: await FakeServer(metad, each).register() for each in ("s1", "s2", "s3", "s4")}
    client = await FakeClient(metad, nursery).open()
    written = await client.store(await client.make(b"f"))
    gone = await client.store(await client.make(b"g"))
    with metad.db.transaction():
        for disk in gone.disks[: 2 * lost]:
            replicas.remove_replica(metad.db, gone.chunk, disk)
    for times in (1, 2):
        holders = dict(replicas.replicas_of(metad.db, written.chunk))
        del servers[next(name for name, each in servers.items() if each.disk in holders)]
        for _ in range(45):
            for server in servers.values():
                await server.beat()
                if lost:
                    server.orders = [each for each in server.orders if each.chunk != gone.chunk]
                await server.obey()
            await trio.sleep(1)
        events = (await ask(metad, kinds=["repair"])).events
        assert [each.kind for each in events] == ["repair.begun", "repair.finished"] * times
        assert ("but 1" in events[-1].message) == bool(lost)
    client = await FakeClient(metad, nursery).open()  # the session has expired
    await client.do(Unlink(parent=ROOT_INODE, name=b"g"))


async def test_a_database_error_is_not_hidden(
    metad: Metad, autojump_clock: MockClock, expect_log: Callable[[str], None]
) -> None:
    """A row that can't be inserted makes the write fail, and the event waits."""
    expect_log("metadata database")
    await ask(metad)
    log = metad.service.state.event_log
    metad.db._writer.execute("ALTER TABLE event RENAME TO elsewhere")
    log.add("disk.back", "d", "m")
    await trio.sleep(1.5)
    with pytest.raises(InputOutput):
        metad.db.read("SELECT * FROM event")
    metad.db._writer.execute("ALTER TABLE elsewhere RENAME TO event")
    await trio.sleep(1.5)
    assert await kinds(metad) == ["metad.started", "disk.back"]
