"""What metad tells Prometheus, and that counting stays cheap."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import pytest
import trio
from trio.testing import MockClock

from dfswire.dispatch import Dispatcher
from dfswire.journal import AckJournal, FollowJournal
from dfswire.messages import Empty
from metad.operators import totals
from metad.storage.database import Database
from tests.t1_wire.test_metrics import ask, samples
from tests.t2_metad.metad_for_tests import FakeClient, FakeServer, Metad


@pytest.fixture
async def metad(db: Database, nursery: trio.Nursery, mock_clock: MockClock) -> AsyncIterator[Metad]:
    one = Metad(db, nursery)
    await one.start(background=False)
    yield one
    one.crash()


async def scrape(metad: Metad) -> dict[tuple[str, tuple[str, ...]], float]:
    where = Dispatcher("metad", metad.service.handlers, metad.service.metrics)
    status, body = await ask(where, "GET", "/metrics")
    assert status == 200
    return samples(body)


async def test_the_page(metad: Metad, mock_clock: MockClock, nursery: trio.Nursery) -> None:
    one = await FakeServer(metad, "s1").register()
    await FakeServer(metad, "s2").register()
    client = await FakeClient(metad, nursery).open()
    written = await client.store(await client.make(b"f"), 1000)
    await one.report(written.chunk, "bad")
    assert await metad.service.repairer.run_once() == 1
    found = await scrape(metad)
    expected = {
        ("dfs_sessions", ("yes",)): 1,
        ("dfs_sessions", ("no",)): 0,
        ("dfs_inodes", ()): 2,
        ("dfs_chunks", ("0",)): 0,
        ("dfs_chunks", ("1",)): 1,
        ("dfs_chunk_bytes", ()): 1000,
        ("dfs_under_replicated_chunks", ()): 1,
        ("dfs_lost_chunks", ()): 0,
        ("dfs_dead_chunks", ()): 0,
        ("dfs_servers", ("up",)): 2,
        ("dfs_servers", ("down",)): 0,
        ("dfs_failed_disks", ()): 0,
        ("dfs_orders", ("copy",)): 1,
        ("dfs_repair_queue_bytes", ()): 1000,
        ("dfs_events_total", ("metad.started",)): 1,
        ("dfs_journal_copies", ()): 0,
        ("dfs_journal_wanted_copies", ()): 0,
        ("dfs_journal_waits_total", ()): 0,
        ("dfs_events_total", ("chunk.bad",)): 1,
    }
    assert {key: found.get(key) for key in expected} == expected
    assert found["dfs_committed_works_total", ()] >= found["dfs_commits_total", ()] > 3
    assert found["dfs_journal_entry", ()] == metad.db.position.number > 3
    assert found["dfs_journal_bytes_total", ()] > 300
    assert found["dfs_held_inodes", ()] >= 1
    assert (found["dfs_locks", ()], found["dfs_exclusive_leases", ()]) == (0, 0)
    await client.take(await client.make(b"g"))
    found = await scrape(metad)
    assert found["dfs_exclusive_leases", ()] == 1
    mock_clock.jump(20)
    found = await scrape(metad)
    assert found["dfs_servers", ("down",)] == 2
    assert found["dfs_lost_chunks", ()] == 1, "seen at once, whatever counting costs"


async def test_who_follows_the_journal(metad: Metad, nursery: trio.Nursery) -> None:
    cluster_id = metad.service.state.cluster_id
    streams = []
    for name in ("s1", "s2", "s3"):
        request = FollowJournal(server_id=name, incarnation=1, cluster_id=cluster_id)
        streams.append(await metad.service.state.followers.follow(request))
    frame = await anext(streams[0])
    number = metad.db.position.number
    ack = AckJournal(server_id="s1", stream=frame.stream, number=number)
    await metad.call("journal.ack", ack)
    await FakeServer(metad, "s1").register()
    found = await scrape(metad)
    entry = metad.db.position.number
    assert entry > number
    assert found["dfs_journal_copies", ()] == 1
    lags = {labels: n for (name, labels), n in found.items() if name == "dfs_journal_lag_entries"}
    # The third only stands by: no copies are wanted, and two are ready to take over.
    assert lags == {("s1", "in step"): entry - number, ("s2", "catching up"): entry}


async def test_counting_is_not_repeated_all_the_time(
    metad: Metad, mock_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    counting = metad.service.totals
    for _ in range(3):
        await metad.call("cluster.status", Empty())
    assert counting.counts == 3, "what costs nothing is counted each time"
    read_in_thread = metad.db.read_in_thread

    async def slow(work: Callable[[Database], object]) -> object:
        mock_clock.jump(0.1)
        return await read_in_thread(work)

    monkeypatch.setattr(metad.db, "read_in_thread", slow)
    for _ in range(3):
        await metad.call("cluster.status", Empty())
    assert counting.counts == 4
    mock_clock.jump(0.1 * totals.AGE_PER_COST)
    await metad.call("cluster.status", Empty())
    assert counting.counts == 5
    await FakeServer(metad, "s1").register()
    await metad.call("cluster.status", Empty())
    assert counting.counts == 6, "another disk"


async def test_many_askers_share_one_count(
    metad: Metad, mock_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    counting, read_in_thread, go_on = metad.service.totals, metad.db.read_in_thread, trio.Event()

    async def slow(work: Callable[[Database], object]) -> object:
        await go_on.wait()
        mock_clock.jump(1)
        return await read_in_thread(work)

    monkeypatch.setattr(metad.db, "read_in_thread", slow)
    async with trio.open_nursery() as askers:
        for _ in range(10):
            askers.start_soon(counting.get)
        await trio.testing.wait_all_tasks_blocked()
        go_on.set()
    assert counting.counts == 1
