"""Copies of the whole database while it is written: each is one moment, whole, and can be had."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from dfswire.bodies import FileRange
from dfswire.errors import InputOutput, Stale, Unavailable
from dfswire.journal import Snapshot, SnapshotRequest, content_digest
from metad.config import MetadConfig
from metad.journal.replay import position_of
from metad.recovery.epoch import NUMBERS_SKIPPED, begin_epoch
from metad.recovery.snapshots import KEPT, Snapshots
from metad.storage.database import Database
from metad.storage.opening import open_database
from metad.storage.sumsfile import forget_sums
from tests.t2_metad.conftest import World
from tests.t2_metad.followers_for_tests import CLUSTER, Copies, Keeper

ADD = "INSERT INTO xattr (inode, name, value) VALUES (1, ?, zeroblob(1000))"
ExpectLog = Callable[[str], None]


@pytest.fixture(params=["disk", "memory"])
def any_db(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """On disk with its thread, and as clusters under a virtual clock have it."""
    url = "sqlite://" if request.param == "memory" else f"sqlite://{tmp_path}/db"
    database = open_database(url, inline=request.param == "memory")
    yield database
    database.close()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Database]:
    database = open_database(f"sqlite://{tmp_path}/db")
    yield database
    database.close()


class Taker:
    """Snapshots of a database that offers its entries to followers."""

    def __init__(self, db: Database, **settings: Any) -> None:
        self.copies = Copies(position=db.position)
        db.followers = self.copies.followers
        self.told: list[str] = []
        config = MetadConfig(url="sqlite://", **settings)
        self.snapshots = Snapshots(
            db,
            self.copies.followers,
            CLUSTER,
            config,
            clock=trio.current_time,
            tell=lambda kind, _cluster, _message: self.told.append(kind),
        )

    async def fetch(self, number: int = 0, part_bytes: int = 50_000) -> tuple[Snapshot, bytes]:
        """As a chunkd does: the newest, in parts."""
        reply = await self.snapshots.read(SnapshotRequest(number=number))
        snapshot = reply.message
        assert isinstance(snapshot, Snapshot)
        return snapshot, await self.parts(snapshot, part_bytes)

    async def parts(self, snapshot: Snapshot, part_bytes: int = 50_000) -> bytes:
        data = b""
        while len(data) < snapshot.size_bytes:
            request = SnapshotRequest(digest=snapshot.digest, offset=len(data), length=part_bytes)
            body = (await self.snapshots.read(request)).body
            assert body is not None
            if isinstance(body, FileRange):
                with os.fdopen(body.fd, "rb") as file:
                    data += os.pread(file.fileno(), body.length, body.offset)
            else:
                data += body
        return data


def names(directory: Path) -> set[str]:
    return {each.name for each in directory.iterdir()}


async def add(db: Database, *names: bytes) -> None:
    await db.write(lambda: db.change_many(ADD, [(name,) for name in names]))


def look(data: bytes, tmp_path: Path) -> tuple[int, int]:
    """The number of the last entry in a snapshot, and how many attributes it has."""
    path = tmp_path / "fetched"
    path.write_bytes(data)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        ((count,),) = connection.execute("SELECT count(*) FROM xattr").fetchall()
        return position_of(connection).number, count


async def test_a_snapshot_is_the_database_at_the_position_that_it_names(
    any_db: Database, tmp_path: Path
) -> None:
    taker = Taker(any_db)
    for number in range(20):
        await add(any_db, b"%d" % number)
    snapshot, data = await taker.fetch()
    digest = content_digest()
    digest.update(data)
    assert digest.digest() == snapshot.digest
    assert (snapshot.cluster_id, snapshot.position) == (CLUSTER, any_db.position)
    assert look(data, tmp_path) == (20, 20)
    assert taker.copies.followers.snapshot == 20, "followers are told"
    taker.snapshots.close()


async def test_it_is_taken_while_others_write(disk: Database, tmp_path: Path) -> None:
    """Each entry adds one attribute, so the two numbers are equal in each single moment."""
    taker = Taker(disk)
    await add(disk, b"first")

    async def write() -> None:
        for number in range(10_000):
            await add(disk, b"%d" % number)

    seen = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(write)
        for _ in range(5):
            snapshot, data = await taker.fetch(disk.visible + 1)
            seen.append(look(data, tmp_path))
            assert snapshot.position.number == seen[-1][0]
        nursery.cancel_scope.cancel()
    assert [count for _number, count in seen] == [number for number, _count in seen]
    assert len(set(seen)) > 1
    taker.snapshots.close()


async def test_the_newest_serves_whoever_needs_no_newer_one(any_db: Database) -> None:
    taker = Taker(any_db)
    await add(any_db, b"a")
    first, _data = await taker.fetch()
    await add(any_db, b"b")
    again, _data = await taker.fetch(first.position.number)
    assert again == first
    newer, _data = await taker.fetch(any_db.position.number)
    assert newer.position.number == first.position.number + 1
    assert taker.snapshots.newest == newer
    taker.snapshots.close()
    assert taker.snapshots.newest is None


async def test_who_is_fetching_can_finish(any_db: Database) -> None:
    taker = Taker(any_db)
    taken = []
    for number in range(KEPT + 1):
        await add(any_db, b"%d" % number)
        taken.append(await taker.fetch(any_db.position.number))
    for snapshot, data in taken[1:]:
        assert await taker.parts(snapshot) == data
    with pytest.raises(Stale):
        await taker.parts(taken[0][0])
    taker.snapshots.close()


async def test_two_that_ask_share_one(disk: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    taker = Taker(disk)
    await add(disk, b"a")
    copies = 0
    copy = taker.snapshots._copy

    def counted() -> object:
        nonlocal copies
        copies += 1
        return copy()

    monkeypatch.setattr(taker.snapshots, "_copy", counted)
    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(taker.fetch, disk.position.number)
    assert copies == 1
    taker.snapshots.close()


async def test_nothing_stays_on_the_disk(disk: Database, tmp_path: Path) -> None:
    (tmp_path / "db.snapshot").write_text("left by a metad that was killed")
    taker = Taker(disk)
    await add(disk, b"a")
    await taker.fetch()
    assert names(tmp_path) == {"db", "db-wal", "db-shm", "db-sums", "db.lock"}
    taker.snapshots.close()


@pytest.mark.parametrize("when", ["copying", "reading"])
async def test_when_none_can_be_taken(
    disk: Database,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    when: str,
    expect_log: ExpectLog,
) -> None:
    taker = Taker(disk)
    await add(disk, b"a")

    def fail(*_arguments: object) -> bytes:
        raise OSError("no")

    with monkeypatch.context() as patch:
        if when == "copying":
            expect_log("db.snapshot stays")
            (tmp_path / "db.snapshot").mkdir()
        else:
            patch.setattr("metad.recovery.snapshots.content_digest", fail)
        with pytest.raises(InputOutput, match="no snapshot of the database could be taken"):
            await taker.fetch()
    if when == "copying":
        (tmp_path / "db.snapshot").rmdir()
    assert (await taker.fetch())[0].position.number == 1
    taker.snapshots.close()


# --- when they are taken -------------------------------------------------------------------------


class Forever:
    """run_forever, and when it took snapshots."""

    def __init__(self, taker: Taker, nursery: trio.Nursery) -> None:
        self._taker = taker
        self._nursery = nursery
        nursery.start_soon(taker.snapshots.run_forever)

    async def kept(self) -> None:
        """From now on somebody keeps the journal."""
        keeper = await Keeper(self._taker.copies, "one").in_step()

        async def keep() -> None:
            while True:
                await keeper.receive()
                await keeper.acknowledge()

        self._nursery.start_soon(keep)

    async def numbers(self, db: Database, seconds: int, *, writing: bool = True) -> list[int]:
        """A change each second; the entries at which there was a new snapshot."""
        found: list[int] = []
        for _ in range(seconds):
            if writing:
                await add(db, os.urandom(8))
            await trio.sleep(1)
            newest = self._taker.snapshots.newest
            if newest is not None and newest.position.number not in found:
                found.append(newest.position.number)
        return found


async def test_they_are_taken_each_hour_if_somebody_keeps_them(
    db: Database, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    taker = Taker(db, snapshot_interval_s=10.0)
    forever = Forever(taker, nursery)
    assert await forever.numbers(db, 30) == [], "nobody keeps them"
    await forever.kept()
    found = await forever.numbers(db, 60)
    assert 5 <= len(found) <= 7
    await forever.numbers(db, 20, writing=False)
    assert await forever.numbers(db, 60, writing=False) == [90], "nothing is new"


async def test_and_earlier_when_much_has_changed(
    db: Database, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    taker = Taker(db, snapshot_interval_s=3600.0, snapshot_journal_bytes=1000)
    forever = Forever(taker, nursery)
    await forever.kept()
    found = await forever.numbers(db, 1000)
    newest = taker.snapshots.newest
    assert newest is not None
    # An entry here has about 270 octets.  Whoever replays should not have more to do than to read
    # half of the database, though the setting says so.
    assert 2 <= len(found) <= 20
    assert newest.size_bytes // 2 > 1000


async def test_operators_hear_once_that_none_can_be_taken(
    db: Database,
    nursery: trio.Nursery,
    autojump_clock: MockClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    taker = Taker(db, snapshot_interval_s=10.0)
    tries: list[float] = []

    def fail() -> None:
        tries.append(trio.current_time())
        raise InputOutput("no room")

    with monkeypatch.context() as patch:
        patch.setattr(taker.snapshots, "_in_memory", fail)
        forever = Forever(taker, nursery)
        await forever.kept()
        assert await forever.numbers(db, 60) == []
    assert taker.told == ["journal.snapshot_failed"]
    assert 4 <= len(tries) <= 6, "not each second"
    assert len(await forever.numbers(db, 9)) == 1
    assert taker.told == ["journal.snapshot_failed"]


# --- a new epoch ---------------------------------------------------------------------------------


def with_raw(db: Database) -> sqlite3.Connection:
    """A copy, as a restore works on one."""
    copy = sqlite3.connect(":memory:", isolation_level=None)
    copy.deserialize(db.image())
    return copy


@pytest.mark.parametrize("leaves_behind", [False, True])
def test_a_restore_begins_an_epoch(world: World, leaves_behind: bool) -> None:
    world.granted("d1")
    inode = world.make(b"f")
    with closing(with_raw(world.db)) as copy:
        before = position_of(copy)
        entry = begin_epoch(copy, 5, leaves_behind=leaves_behind)
        after = position_of(copy)
        assert after == entry.position
        assert (after.epoch, after.number) == (5, before.number + 1)
        assert entry.previous == before.digest
        settings = dict(copy.execute("SELECT name, value FROM setting").fetchall())
        assert settings["epoch"] == "5"
        assert settings["reclaim_held"] == f"restored to entry {before.number} of epoch 1"
        ((sessions,),) = copy.execute("SELECT count(*) FROM session").fetchall()
        ((granted,),) = copy.execute("SELECT count(*) FROM chunk WHERE state = 'granted'")
        ((last,),) = copy.execute("SELECT seq FROM sqlite_sequence WHERE name = 'inode'")
    # What clients have seen of a history that is left behind is no more, nor can it come back.
    assert (sessions, granted) == ((0, 0) if leaves_behind else (1, 1))
    assert last == inode + (NUMBERS_SKIPPED if leaves_behind else 0)


async def test_what_has_rotted_is_not_copied(tmp_path: Path, expect_log: ExpectLog) -> None:
    """A bit that SQLite has nothing against must not become the newest good snapshot."""
    expect_log("is damaged, restore a backup")
    path = tmp_path / "db"
    before = open_database(f"sqlite://{path}", inline=True)
    await add(before, b"a name of an attribute")
    before.close()
    db = open_database(f"sqlite://{path}")
    taker = Taker(db)
    data = bytearray(path.read_bytes())
    data[data.rindex(b"a name of an attribute")] ^= 1
    path.write_bytes(data)
    with pytest.raises(Unavailable, match="is damaged, restore a backup"):
        await taker.fetch()
    assert taker.copies.followers.snapshot == -1, "none was announced"
    taker.snapshots.close()
    db.close()


async def test_snapshots_name_their_epoch(tmp_path: Path) -> None:
    path = tmp_path / "db"
    before = open_database(f"sqlite://{path}", inline=True)
    await add(before, b"a")
    before.close()
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        begin_epoch(connection, 3, leaves_behind=False)
    forget_sums(str(path))
    after = open_database(f"sqlite://{path}")
    taker = Taker(after)
    snapshot, _data = await taker.fetch()
    assert (snapshot.position.epoch, snapshot.position.number) == (3, 2)
    taker.snapshots.close()
    after.close()
