"""A chunkd keeps metad's journal: through large entries, a full disk, half a snapshot."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from chunkd.follower import FollowerTask
from chunkd.identity import ServerIdentity
from chunkd.journal import Journal
from chunkd.storage import run_inline
from dfswire.bodies import BodySource
from dfswire.client import Client
from dfswire.dispatch import Handler, Reply
from dfswire.errors import NoSpace, UsageError
from dfswire.journal import ENTRIES_BYTES, AckJournal, FollowJournal, SnapshotRequest
from dfswire.messages import Empty
from tests.fakes import DirectTransport
from tests.t1_wire.services import dispatcher
from tests.t2_chunkd.journals import opened, snapshot_of
from tests.t2_metad.followers_for_tests import CLUSTER, Copies

METAD = "metad:9400"
DATABASE = b"database" * 100


class Metad:
    """Its half of the journal, and how it misbehaves."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.copies = Copies()
        self.problem: Exception | None = None
        self.connections = 0
        self.cut_bytes = 0  # of each part of a snapshot
        self.snapshot_after_s = 0.0
        self._network = DirectTransport({}, nursery=nursery)
        handlers: dict[str, Handler] = {
            "journal.follow": self.follow,
            "journal.ack": self.acknowledge,
            "journal.snapshot": self.snapshot,
        }
        self._network.up(METAD, dispatcher("metad", handlers))
        self.client = Client(transport=self._network)

    async def follow(self, request: FollowJournal, body: BodySource) -> Any:
        self.connections += 1
        if self.problem is not None:
            raise self.problem
        return await self.copies.followers.follow(request)

    async def acknowledge(self, request: AckJournal, body: BodySource) -> Empty:
        await self.copies.followers.acknowledge(request)
        return Empty()

    async def snapshot(self, request: SnapshotRequest, body: BodySource) -> Reply:
        await trio.sleep(self.snapshot_after_s)
        snapshot = snapshot_of(self.copies.followers.offered, DATABASE)
        part = DATABASE[request.offset : request.offset + request.length]
        return Reply(snapshot, part[: len(part) - self.cut_bytes] if self.cut_bytes else part)

    async def until_in_step(self) -> None:
        with trio.fail_after(60):
            while not self.copies.followers.in_step:  # noqa: ASYNC110 - virtual time
                await trio.sleep(0.1)


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path, kept_s=60.0, max_bytes=1 << 30)


@pytest.fixture
async def metad(nursery: trio.Nursery, journal: Journal) -> Metad:
    made = Metad(nursery)
    identity = ServerIdentity("one", 1, CLUSTER)
    task = FollowerTask(journal, made.client, METAD, identity, run_inline, random.Random(1))
    nursery.start_soon(task.run_forever)
    return made


async def test_large_entries_are_put_together(
    autojump_clock: MockClock, metad: Metad, journal: Journal
) -> None:
    await metad.until_in_step()
    for size in (10, 3 * ENTRIES_BYTES, 10):
        number = metad.copies.offer(bytes(size)).number
        assert await metad.copies.waited_s(number) < 1
    assert journal.position == metad.copies.followers.offered
    assert opened(journal._directory.parent).position == journal.position, "it is on the disk"


async def test_a_full_disk_is_tried_again(
    autojump_clock: MockClock,
    metad: Metad,
    journal: Journal,
    monkeypatch: pytest.MonkeyPatch,
    expect_log: Callable[[str], None],
) -> None:
    expect_log("this server keeps the journal no longer: full")
    await metad.until_in_step()

    def fail(*_arguments: object) -> None:
        raise NoSpace("full")

    with monkeypatch.context() as patch:
        patch.setattr(journal, "append", fail)
        patch.setattr(journal, "begin", fail)
        assert await metad.copies.waited_s(metad.copies.offer().number) < 1
        await trio.sleep(25)
    assert metad.copies.followers.in_step == 0
    assert metad.connections <= 5, "not all the time"
    await metad.until_in_step()
    assert journal.position == metad.copies.followers.offered


async def test_old_moments_make_room(
    autojump_clock: MockClock, metad: Metad, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For a snapshot, every minute, and when the disk was full."""
    coming: list[int] = []
    monkeypatch.setattr(journal, "drop_old", lambda _now_ns, size=0: coming.append(size))
    await metad.until_in_step()
    assert coming == [len(DATABASE), 0]
    for _second in range(130):
        metad.copies.offer()
        await trio.sleep(1)
    assert coming == [len(DATABASE), 0, 0, 0]


async def test_after_a_full_disk_old_moments_go_first(
    autojump_clock: MockClock,
    metad: Metad,
    journal: Journal,
    monkeypatch: pytest.MonkeyPatch,
    expect_log: Callable[[str], None],
) -> None:
    expect_log("this server keeps the journal no longer: full")
    await metad.until_in_step()
    is_full = True
    append = journal.append

    def fail(*arguments: Any) -> None:
        if is_full:
            raise NoSpace("full")
        append(*arguments)

    def make_room(_now_ns: int, _coming_bytes: int = 0) -> None:
        nonlocal is_full
        is_full = False

    monkeypatch.setattr(journal, "append", fail)
    monkeypatch.setattr(journal, "drop_old", make_room)
    metad.copies.offer()
    await trio.sleep(1)
    assert is_full
    await metad.until_in_step()
    assert journal.position == metad.copies.followers.offered


async def test_a_metad_that_must_not_run(
    autojump_clock: MockClock, metad: Metad, expect_log: Callable[[str], None]
) -> None:
    expect_log("metad does not take this server as a follower: an old copy")
    metad.problem = UsageError("an old copy")
    await trio.sleep(5)
    metad.problem = None
    await metad.until_in_step()


async def test_without_a_whole_snapshot_nothing_is_confirmed(
    autojump_clock: MockClock, metad: Metad, journal: Journal
) -> None:
    metad.cut_bytes = len(DATABASE)
    await trio.sleep(5)
    assert metad.connections > 5
    assert (metad.copies.followers.in_step, journal.newest_snapshot) == (0, -1)
    metad.cut_bytes = 0
    await metad.until_in_step()
    assert journal.newest_snapshot == 0


async def test_nor_before_it_is_there(autojump_clock: MockClock, metad: Metad) -> None:
    metad.snapshot_after_s = 4.0
    metad.copies.offer()
    await trio.sleep(7)  # two parts
    assert metad.copies.states() == {"one": "catching up"}
    await trio.sleep(2)
    assert metad.copies.states() == {"one": "in step"}
