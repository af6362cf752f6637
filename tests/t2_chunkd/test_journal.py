"""The journal directory of a chunkd: what a crash, bit rot or a lost file leaves is never believed,
and what stands before it is not lost."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from chunkd.filesystem import FileSystem, Space
from chunkd.journal import Journal
from dfswire.errors import InputOutput, NoEntry, NoSpace, ProtocolError
from dfswire.journalfile import parse_segment
from tests.t2_chunkd.journals import (
    CLUSTER,
    START,
    encoded,
    entries,
    keep_snapshot,
    opened,
    snapshot_of,
)

HISTORY = entries(START, 30)


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    """A directory with a snapshot and a history in several segments."""
    journal = opened(tmp_path)
    journal.begin(CLUSTER, START)
    keep_snapshot(journal, START)
    for data in encoded(HISTORY):
        journal.append(CLUSTER, [data])
    journal.close()
    return tmp_path


def segments(root: Path) -> list[Path]:
    return sorted((root / "journal").glob("*.journal"))


def readable(root: Path) -> int:
    """How many entries a restore would find."""
    return sum(len(parse_segment(each.read_bytes()).entries) for each in segments(root))


def test_a_new_process_knows_what_is_there(kept: Path) -> None:
    assert len(segments(kept)) > 3
    journal = opened(kept)
    assert journal.position == HISTORY[-1].position
    assert journal.previous == HISTORY[-1].previous
    assert journal.newest_snapshot == 0
    files, damaged = journal.list_files()
    assert min(each.base.number for each in files) == 0
    assert damaged == []
    assert readable(kept) == len(HISTORY)


@pytest.mark.parametrize("lost_bytes", [1, 50, 200])
def test_a_torn_tail(kept: Path, lost_bytes: int) -> None:
    """What was being written when the power failed was not acknowledged."""
    last = segments(kept)[-1]
    os.truncate(last, last.stat().st_size - lost_bytes)
    journal = opened(kept)
    before = journal.position
    assert before.number < HISTORY[-1].number
    # It goes on behind that, in a segment of its own.
    journal.begin(CLUSTER, msgspec.structs.replace(before, term=2))
    journal.append(CLUSTER, encoded(HISTORY[before.number :]))
    journal.close()
    assert opened(kept).position == HISTORY[-1].position
    assert readable(kept) == len(HISTORY)
    assert journal.run == 0, "no hole: the snapshot is still good for all of it"


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_bit_rot(kept: Path, share: float) -> None:
    """Of a segment what stands before the rot is good; other servers have the rest."""
    victim = segments(kept)[1]
    whole = len(parse_segment(victim.read_bytes()).entries)
    data = bytearray(victim.read_bytes())
    data[int(len(data) * share)] ^= 1
    victim.write_bytes(data)
    journal = opened(kept)
    assert journal.position == HISTORY[-1].position
    found = parse_segment(victim.read_bytes())
    assert not found.is_whole
    assert len(found.entries) < whole
    assert found.entries == HISTORY[found.header.base.number :][: len(found.entries)]


def test_a_rotten_header(kept: Path, expect_log: Callable[[str], None]) -> None:
    expect_log("cannot be used")
    victim = segments(kept)[1]
    data = bytearray(victim.read_bytes())
    data[30] ^= 1
    victim.write_bytes(data)
    journal = opened(kept)
    files, damaged = journal.list_files()
    assert damaged == [victim.name]
    assert victim.name not in [each.name for each in files]
    with pytest.raises(NoEntry):
        journal.read_part(victim.name, 0, 10)


@pytest.mark.parametrize("suffix", [".journal", ".snapshot"])
def test_files_of_a_newer_format(
    kept: Path, suffix: str, expect_log: Callable[[str], None]
) -> None:
    """After a downgrade: left as they are, and what follows stands in files of our own."""
    expect_log("format 2; this software reads format 1")
    newer = {}
    for path in (kept / "journal").glob(f"*{suffix}"):
        data = bytearray(path.read_bytes())
        assert data[7:8] == b"1"
        data[7:8] = b"2"
        path.write_bytes(data)
        newer[path] = bytes(data)
    journal = opened(kept)
    _, unusable = journal.list_files()
    assert sorted(unusable) == sorted(path.name for path in newer)
    journal.begin(CLUSTER, HISTORY[-1].position)
    keep_snapshot(journal, HISTORY[-1].position)
    journal.drop_old(now_ns=1 << 62)
    journal.close()
    assert {path: path.read_bytes() for path in newer} == newer


def test_the_last_segment_is_missing(kept: Path) -> None:
    """The server knows that it lacks the rest, and asks for it."""
    segments(kept)[-1].unlink()
    journal = opened(kept)
    assert 0 < journal.position.number < HISTORY[-1].number
    assert journal.position == HISTORY[journal.position.number - 1].position


def test_a_snapshot_that_was_not_finished(kept: Path) -> None:
    journal = opened(kept)
    writer = journal.begin_snapshot(snapshot_of(HISTORY[5].position))
    writer.add(b"data")
    assert len(list((kept / "journal").glob("*.tmp"))) == 1
    again = opened(kept)  # a crash
    assert again.newest_snapshot == 0
    assert list((kept / "journal").glob("*.tmp")) == []


def test_a_snapshot_that_was_damaged_on_its_way(kept: Path) -> None:
    journal = opened(kept)
    writer = journal.begin_snapshot(snapshot_of(HISTORY[5].position))
    writer.add(b"not the database")
    with pytest.raises(ProtocolError):
        writer.finish()
    writer.abandon()
    assert list((kept / "journal").glob("*.tmp")) == []
    assert journal.newest_snapshot == 0


def test_entries_that_do_not_follow(tmp_path: Path) -> None:
    journal = opened(tmp_path)
    journal.begin(CLUSTER, START)
    journal.append(CLUSTER, encoded(HISTORY[:3]))
    for wrong in (HISTORY[4:5], HISTORY[2:3], [msgspec.structs.replace(HISTORY[3], body=b"x")]):
        with pytest.raises(ProtocolError):
            journal.append(CLUSTER, encoded(wrong))
    journal.append(CLUSTER, encoded(HISTORY[3:5]))
    journal.close()
    assert opened(tmp_path).position == HISTORY[4].position


def test_a_hole_makes_older_snapshots_useless(kept: Path) -> None:
    """Entries that this server has not got can't be replayed from here."""
    journal = opened(kept)
    far = entries(HISTORY[-1].position, 10)[-1].position
    journal.begin(CLUSTER, far)
    assert journal.newest_snapshot == -1
    keep_snapshot(journal, far)
    assert journal.newest_snapshot == far.number


class BrokenDisk(FileSystem):
    """Refuses to sync."""

    code = 0

    def fsync(self, fd: int) -> None:
        if self.code:
            raise OSError(self.code, os.strerror(self.code))
        super().fsync(fd)


@pytest.mark.parametrize(("code", "kind"), [(errno.ENOSPC, NoSpace), (errno.EIO, InputOutput)])
def test_a_failed_sync_is_not_repeated(tmp_path: Path, code: int, kind: type[Exception]) -> None:
    """What came before is good; the segment is never written again."""
    disk = BrokenDisk()
    journal = Journal(tmp_path, disk, kept_s=1000.0, max_bytes=1 << 30)
    journal.load()
    journal.begin(CLUSTER, START)
    journal.append(CLUSTER, encoded(HISTORY[:2]))
    disk.code = code
    with pytest.raises(kind):
        journal.append(CLUSTER, encoded(HISTORY[2:3]))
    assert journal.position == HISTORY[1].position
    disk.code = 0
    journal.begin(CLUSTER, HISTORY[1].position)
    assert len(segments(tmp_path)) == 2
    journal.append(CLUSTER, encoded(HISTORY[2:4]))
    journal.close()
    assert opened(tmp_path).position == HISTORY[3].position


def filled(journal: Journal) -> Journal:
    """With five snapshots of 1000 bytes and something, and five entries after each."""
    journal.load()
    journal.begin(CLUSTER, START)
    for number in range(5):
        keep_snapshot(journal, journal.position, bytes(1000))
        journal.append(CLUSTER, encoded(HISTORY[5 * number : 5 * number + 5]))
    return journal


def snapshots_in(journal: Journal) -> int:
    """How many there are; with all entries after the oldest, and none from long before it."""
    files, _damaged = journal.list_files()
    kept = [each.snapshot.position.number for each in files if each.snapshot is not None]
    bases = [each.base.number for each in files if each.snapshot is None]
    assert bases[0] <= kept[0] and bases == sorted(bases) and bases[-1] == 20
    assert len(kept) > 3 or bases[0] > 0
    return len(kept)


def test_what_is_too_much_goes(tmp_path: Path, expect_log: Callable[[str], None]) -> None:
    expect_log("cannot be restored from here any more")
    journal = filled(Journal(tmp_path, kept_s=1.0, max_bytes=9500, segment_bytes=500))
    journal.drop_old(0)
    assert snapshots_in(journal) == 3
    journal.close()


class SmallDisk(FileSystem):
    """Says how much is free."""

    total_bytes, free_bytes = 1_000_000, 500_000

    def space(self, path: Path) -> Space:
        return Space(self.total_bytes, self.free_bytes)


def test_the_journal_makes_room_for_others(
    tmp_path: Path, expect_log: Callable[[str], None]
) -> None:
    """Of old moments, in time, but never so much that nothing could be restored."""
    expect_log("cannot be restored from here any more")
    disk = SmallDisk()
    journal = filled(Journal(tmp_path, disk, kept_s=1.0, max_bytes=1 << 30, segment_bytes=500))
    journal.drop_old(0)
    assert snapshots_in(journal) == 5
    disk.free_bytes = 199_000  # 200,000 are to be free
    journal.drop_old(0)
    assert snapshots_in(journal) == 4
    disk.free_bytes = 201_000
    journal.drop_old(0, coming_bytes=1500)
    assert snapshots_in(journal) == 3
    disk.free_bytes = 0
    journal.drop_old(0)
    assert snapshots_in(journal) == 2
    journal.close()
