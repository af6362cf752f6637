"""What operators are shown of the journal that chunkds keep."""

from __future__ import annotations

import pytest
import trio

from dfswire.client import Client
from dfswire.errors import UsageError
from metad.recovery.listing import Listing, Range, list_entries
from tests.t2_metad.kept_for_tests import ADD, History, Kept


def listed(kept: Kept, *more: str, statements: bool = False, **wanted: int) -> Listing:
    async def run() -> Listing:
        client = Client(transport=kept.network)
        addresses = [*kept.journals, *more]
        return await list_entries(client, addresses, Range(**wanted), statements=statements)

    return trio.run(run)


def numbers(listing: Listing) -> list[int]:
    return [each.number for each in listing.entries]


def test_an_entry_says_what_it_changed(history: History, kept: Kept) -> None:
    with history.db.transaction():
        history.db.change_many(ADD, [(b"a",), (b"b",), (b"c",)])
        history.db.change("UPDATE xattr SET value = x'00' WHERE name = ?", (b"a",))
        history.db.change("INSERT OR REPLACE INTO setting VALUES ('test', 'x')")
        history.db.change("DELETE FROM setting WHERE name = 'test'")
        history.db.read("WITH a AS (SELECT 1) DELETE FROM orphan RETURNING inode")
        history.db.change("CREATE TABLE t (a)")
    (entry,) = history.entries
    kept.keep("one:1", history.start, [entry])
    listing = listed(kept, statements=True)
    (found,) = listing.entries
    assert listing.warnings == []
    assert found.changes == {
        "create": 1,
        "delete orphan": 1,
        "delete setting": 1,
        "insert setting": 1,
        "insert xattr": 3,
        "update xattr": 1,
    }
    assert (found.number, found.epoch, found.term) == (1, 1, entry.term)
    assert (found.time_ns, found.size_bytes) == (entry.time_ns, len(entry.body))
    assert found.statements[0] == (ADD, 3)
    assert listed(kept).entries[0].statements == []


def test_ranges(history: History, kept: Kept) -> None:
    entries = history.add(*(b"%d" % number for number in range(20)))
    kept.keep("one:1", history.start, entries[:8])
    kept.keep("one:1", entries[7].position, entries[8:15])
    kept.keep("two:1", entries[11].position, entries[12:])
    assert numbers(listed(kept)) == list(range(1, 21))
    assert numbers(listed(kept, last=3)) == [18, 19, 20]
    assert numbers(listed(kept, last=12)) == list(range(9, 21))
    assert numbers(listed(kept, first=5, end=9)) == [5, 6, 7, 8, 9]
    assert numbers(listed(kept, first=18, end=99)) == [18, 19, 20]
    assert numbers(listed(kept, last=2, end=9)) == [8, 9]
    beyond = listed(kept, first=30)
    assert numbers(beyond) == []
    assert beyond.warnings == ["no entry that is kept is in that range; the newest is 20"]
    assert listed(kept, first=20).warnings == []
    since, until = entries[9].time_ns, entries[13].time_ns
    assert numbers(listed(kept, since_ns=since)) == list(range(10, 21))
    assert numbers(listed(kept, since_ns=since, until_ns=until)) == [10, 11, 12, 13, 14]
    assert numbers(listed(kept, until_ns=until, last=2)) == [13, 14]


def test_what_is_missing_is_said(history: History, kept: Kept) -> None:
    entries = history.add(b"a", b"b", b"c", b"d")
    kept.keep("one:1", entries[1].position, entries[2:])
    listing = listed(kept, "two:1")
    assert numbers(listing) == [3, 4]
    assert listing.warnings[0].startswith("two:1 cannot be asked")
    assert listing.warnings[1] == "entries before 3 are not kept any more"
    assert listed(kept, last=2).warnings == []


def test_of_two_histories_the_one_that_counts(history: History, kept: Kept) -> None:
    history.add(b"a")
    copy = history.copy()
    kept.keep("one:1", history.start, [*history.entries, *history.add(b"never")])
    history.back(copy)
    base = history.db.position
    kept.keep("two:1", base, history.add(b"b"))
    found = listed(kept).entries
    assert [each.number for each in found] == [1, 2]
    assert found[1].term > found[0].term


def test_there_is_none(history: History, kept: Kept) -> None:
    kept.chunkd("one:1")
    with pytest.raises(UsageError, match="none of these chunkds has an entry"):
        listed(kept)
