"""A restore from what is left: damaged, torn, of several histories, or not enough.

Chunkds are their real journal directories; metad is a database whose entries and copies are put
there as a test wants them.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import pytest
import trio

from chunkd.identity import ServerIdentity
from chunkd.journal import Journal
from chunkd.journalcalls import JournalCalls
from dfswire.client import Client
from dfswire.errors import UsageError
from dfswire.journal import Entry, Position, seal
from metad.recovery.restore import Restored, Wish, restore
from metad.storage.database import Database
from metad.storage.opening import open_database
from tests.fakes import DirectTransport
from tests.replaying import Shadow
from tests.t1_wire.services import dispatcher
from tests.t2_chunkd.journals import encoded, keep_snapshot, opened

ADD = "INSERT INTO xattr (inode, name, value) VALUES (1, ?, x'')"
CLUSTER = "c" * 32
T = TypeVar("T")
Copy = tuple[Position, bytes]


class History:
    """A database and its entries; a `copy` is what a snapshot has."""

    def __init__(self) -> None:
        self.now_ns = 10**18
        self.db: Database = open_database("sqlite://", inline=True, now_ns=lambda: self.now_ns)
        self.start = self.db.new_term()
        self._shadow = Shadow(self.db)
        self.entries: list[Entry] = self._shadow.entries

    def add(self, *names: bytes) -> list[Entry]:
        """Each in an entry of its own, a second after the one before."""
        for name in names:
            self.now_ns += 10**9
            with self.db.transaction():
                self.db.change(ADD, (name,))
        return self.entries[-len(names) :]

    def copy(self) -> Copy:
        return self.db.position, self.db.image()

    def back(self, copy: Copy) -> None:
        """metad is started on an old copy of its database, in the next term."""
        self.db._writer.deserialize(copy[1])
        term = self.db.term + (1 << 32)
        self.db._writer.execute("UPDATE journal SET term = ?", (term,))
        self.db.start_recording(lambda: self.now_ns)
        self.db.new_term()

    def close(self) -> None:
        self._shadow.close()
        self.db.close()


class Kept:
    """Chunkds and what they keep, by their names, which are their addresses too."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.target = directory / "db"
        self.journals: dict[str, Journal] = {}
        self.cluster: dict[str, str] = {}
        self._network = DirectTransport({})

    def root(self, name: str) -> Path:
        return self.directory / name.partition(":")[0]

    def chunkd(self, name: str, *, cluster: str = CLUSTER) -> Journal:
        root = self.root(name)
        if not root.exists():
            root.mkdir()
        journal = self.journals[name] = opened(root, segment_bytes=1 << 20)
        identity = ServerIdentity(name, 1, cluster)
        calls = JournalCalls(journal, identity, at_once)
        self._network.up(name, dispatcher("chunkd", calls.handlers))
        return journal

    def keep(
        self, name: str, base: Position, entries: list[Entry], copy: Copy | None = None
    ) -> None:
        """It gets these after `base`, and a snapshot."""
        journal = self.journals.get(name) or self.chunkd(name)
        journal.begin(CLUSTER, base)
        if entries:
            journal.append(CLUSTER, encoded(entries))
        if copy is not None:
            keep_snapshot(journal, *copy)

    def damage(self, name: str, suffix: str, at: float = 0.5) -> None:
        """A bit of its newest such file."""
        path = sorted((self.root(name) / "journal").glob(f"*{suffix}"))[-1]
        data = bytearray(path.read_bytes())
        data[int(at * len(data))] ^= 1
        path.write_bytes(data)

    def restore(self, *more: str, **wish: Any) -> Restored:
        addresses = [*self.journals, *more]

        async def run() -> Restored:
            client = Client(transport=self._network)
            return await restore(client, addresses, self.target, Wish(**wish))

        return trio.run(run)

    def names(self) -> list[bytes]:
        """What the database that was made has."""
        with closing(sqlite3.connect(self.target)) as connection:
            rows = connection.execute("SELECT name FROM xattr ORDER BY id").fetchall()
        return [name for (name,) in rows]

    def refused(self, reason: str, *more: str, **wish: Any) -> None:
        """And nothing is left behind."""
        with pytest.raises(UsageError, match=reason):
            self.restore(*more, **wish)
        assert not self.target.exists()
        assert [each for each in self.directory.iterdir() if "restor" in each.name] == []


async def at_once(work: Callable[[], T]) -> T:
    await trio.lowlevel.checkpoint()
    return work()


@pytest.fixture
def history() -> Iterator[History]:
    made = History()
    yield made
    made.close()


@pytest.fixture
def kept(tmp_path: Path) -> Kept:
    return Kept(tmp_path)


def test_from_a_snapshot_and_what_came_after(history: History, kept: Kept) -> None:
    history.add(b"a")
    copy = history.copy()
    history.add(b"b", b"c")
    kept.keep("one:1", history.start, history.entries, copy)
    kept.keep("two:1", history.start, history.entries[:2], copy)
    done = kept.restore()
    assert (done.snapshot, done.position) == (copy[0], history.db.position)
    assert (done.replayed, done.epoch, done.warnings) == (2, 2, [])
    assert kept.names() == [b"a", b"b", b"c"]


def test_from_a_snapshot_alone(history: History, kept: Kept) -> None:
    history.add(b"a")
    kept.keep("one:1", history.db.position, [], history.copy())
    done = kept.restore()
    assert (done.replayed, done.position) == (0, history.db.position)
    assert kept.names() == [b"a"]


def test_a_snapshot_may_be_newer_than_all_entries(history: History, kept: Kept) -> None:
    entries = history.add(b"a")
    kept.keep("one:1", history.start, entries)
    history.add(b"b")
    keep_snapshot(kept.journals["one:1"], *history.copy())
    assert kept.restore().position == history.db.position
    assert kept.names() == [b"a", b"b"]


def test_without_a_snapshot_nothing_can_be_done(history: History, kept: Kept) -> None:
    kept.refused("none of these chunkds has a snapshot")
    kept.keep("one:1", history.start, history.add(b"a"))
    kept.refused("none of these chunkds has a snapshot")


@pytest.mark.parametrize("how", ["a bit", "not a database", "another position"])
def test_a_damaged_snapshot_is_left_for_an_older_one(
    history: History, kept: Kept, how: str, expect_log: Callable[[str], None]
) -> None:
    expect_log("snapshot .* of one:1: ")
    kept.keep("one:1", history.start, history.add(b"a"), history.copy())
    newer = history.add(b"b", b"c")
    kept.journals["one:1"].append(CLUSTER, encoded(newer))
    position, image = history.copy()
    if how == "not a database":
        image = b"hello" * 1000
    elif how == "another position":
        with history.db.transaction():
            history.db.change(ADD, (b"later",))
        image = history.db.image()
    keep_snapshot(kept.journals["one:1"], position, image)
    if how == "a bit":
        kept.damage("one:1", ".snapshot")
    done = kept.restore()
    assert (done.snapshot.number, done.position.number) == (1, 3)
    assert len(done.warnings) == 1
    assert kept.names() == [b"a", b"b", b"c"]


def test_pages_that_are_damaged_below_a_right_digest(
    history: History, kept: Kept, expect_log: Callable[[str], None]
) -> None:
    """metad itself has sent it so."""
    expect_log("the database in it is damaged")
    history.add(*(b"%0200d" % number for number in range(200)))
    position, image = history.copy()
    ((page,),) = history.db.read("SELECT rootpage FROM sqlite_master WHERE name = 'dentry'")
    spoilt = bytearray(image)
    spoilt[(page - 1) * 4096 : page * 4096] = b"\xff" * 4096
    kept.keep("one:1", position, [], (position, bytes(spoilt)))
    kept.refused("does not go on from any snapshot .* damaged")


def test_a_hole_is_refused_and_another_chunkd_may_fill_it(history: History, kept: Kept) -> None:
    history.add(b"a")
    copy = history.copy()
    entries = history.add(b"b", b"c", b"d", b"e")
    kept.keep("one:1", copy[0], [], copy)
    kept.keep("one:1", entries[1].position, entries[2:])
    kept.refused("entries are missing; ask more chunkds")
    kept.keep("two:1", copy[0], entries[:3])
    assert kept.restore().replayed == 4
    assert kept.names() == [b"a", b"b", b"c", b"d", b"e"]


def test_what_is_torn_or_damaged_is_named_and_others_have_it(history: History, kept: Kept) -> None:
    history.add(b"a")
    copy = history.copy()
    entries = history.add(b"b", b"c", b"d")
    for name in ("one:1", "two:1", "three:1"):
        kept.keep(name, copy[0], entries, copy)
    kept.damage("one:1", ".journal", at=0.6)
    kept.damage("two:1", ".journal", at=0.1)  # its header
    done = kept.restore()
    assert [warning.partition(":")[0] for warning in done.warnings] == ["one", "two"]
    assert kept.names() == [b"a", b"b", b"c", b"d"]


def test_a_file_that_became_shorter(
    history: History, kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    entries = history.add(b"a", b"b")
    copy = history.copy()
    kept.keep("one:1", history.start, entries, copy)
    path = next((kept.root("one:1") / "journal").glob("*.journal"))
    journal = kept.journals["one:1"]
    size = path.stat().st_size
    shown = journal._size
    monkeypatch.setattr(journal, "_size", lambda name: size if name == path.name else shown(name))
    with path.open("r+b") as file:
        file.truncate(size - 3)
    done = kept.restore()
    assert "torn or damaged" in done.warnings[0]
    assert kept.names() == [b"a", b"b"]


def test_a_chunkd_that_does_not_answer_may_know_more(history: History, kept: Kept) -> None:
    kept.keep("one:1", history.start, history.add(b"a"), history.copy())
    kept.refused("two:1 cannot be asked", "two:1")
    done = kept.restore("two:1", accept_loss=True)
    assert done.asked == ["one:1"]
    assert len(done.warnings) == 1


def test_chunkds_of_two_clusters(history: History, kept: Kept) -> None:
    kept.keep("one:1", history.start, history.add(b"a"), history.copy())
    kept.chunkd("two:1", cluster="d" * 32)
    kept.refused("belong to several clusters")


def test_metad_has_run_on_an_old_copy(history: History, kept: Kept) -> None:
    """Both histories were acknowledged, so a person has to say that one of them may go."""
    history.add(b"a")
    copy = history.copy()
    first = history.add(b"b", b"c", b"d")
    kept.keep("one:1", history.start, history.entries[:1], copy)
    kept.keep("one:1", history.entries[0].position, first)
    history.back(copy)
    base = history.db.position
    second = history.add(b"x", b"y")
    kept.keep("two:1", base, second)
    kept.refused(r"another history ends with entry 4 \(term 4294967296\)")
    done = kept.restore(accept_loss=True)
    assert done.position == second[-1].position
    assert "old copy" in done.warnings[0]
    assert kept.names() == [b"a", b"x", b"y"]


def test_to_a_moment(history: History, kept: Kept) -> None:
    history.add(b"a")
    copy = history.copy()
    entries = history.add(b"b", b"c", b"d")
    kept.keep("one:1", copy[0], entries, copy)
    done = kept.restore(at_ns=entries[1].time_ns)
    assert done.position == entries[1].position
    assert kept.names() == [b"a", b"b", b"c"]


def test_to_a_moment_before_everything(history: History, kept: Kept) -> None:
    kept.keep("one:1", history.start, history.add(b"a"), history.copy())
    kept.refused("a snapshot of the metadata from before", at_ns=5)


def test_to_a_moment_of_an_epoch_that_was_left(history: History, kept: Kept) -> None:
    """The way back stands in the answer."""
    history.add(b"a")
    copy = history.copy()
    left = history.add(b"b", b"c")
    kept.keep("one:1", copy[0], left, copy)
    done = kept.restore(at_ns=left[0].time_ns)
    kept.target.rename(kept.directory / "second")
    with closing(sqlite3.connect(kept.directory / "second")) as connection:
        ((number, digest),) = connection.execute("SELECT number, digest FROM journal").fetchall()
    base = msgspec.structs.replace(done.position, epoch=2, number=number, digest=digest)
    kept.keep("one:1", base, [seal(base, base.term, left[1].time_ns + 9, b"")])
    keep_snapshot(
        kept.journals["one:1"],
        msgspec.structs.replace(base, time_ns=left[1].time_ns + 5),
        (kept.directory / "second").read_bytes(),
    )
    at_ns = left[1].time_ns
    kept.refused("was it before the restore that began epoch 2.  Then --epoch 1", at_ns=at_ns)
    assert kept.restore(at_ns=at_ns, epoch=1).position == left[1].position
    assert kept.names() == [b"a", b"b", b"c"]


def test_there_is_a_database_already(history: History, kept: Kept) -> None:
    kept.keep("one:1", history.start, history.add(b"a"), history.copy())
    for name in ("db", "db-wal"):
        path = kept.directory / name
        path.write_text("precious")
        with pytest.raises(UsageError, match="move it away first"):
            kept.restore()
        assert path.read_text() == "precious"
        path.unlink()
    kept.target = kept.directory / "none" / "db"
    with pytest.raises(UsageError, match="make directory"):
        kept.restore()
