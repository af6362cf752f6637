"""A restore from what is left: damaged, torn, of several histories, or not enough."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing

import msgspec
import pytest

from dfswire.errors import UsageError
from dfswire.journal import seal
from tests.t2_chunkd.journals import encoded, keep_snapshot
from tests.t2_metad.kept_for_tests import ADD, CLUSTER, History, Kept


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
    kept.refused("none of these chunkds has a snapshot", epoch=7)
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


def test_an_epoch_that_was_not_yet(history: History, kept: Kept) -> None:
    kept.keep("one:1", history.start, history.add(b"a"), history.copy())
    for more in ({}, {"at_ns": history.now_ns}):
        kept.refused("there is no epoch 7, the newest is 1", epoch=7, **more)
    assert kept.restore(epoch=1).epoch == 2


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
