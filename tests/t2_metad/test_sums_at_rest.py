"""Checksums of the database's pages at a start: no rotten bit is served, nothing whole refused."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from dfswire.errors import UsageError
from metad.storage.sumsfile import (
    SumsFile,
    damaged_at_rest,
    differing,
    forget_sums,
    page_sum,
)
from metad.storage.verification import verify_at_once
from metad.storage.writeaheadlog import FRAME, LOG_HEADER_BYTES
from tests.t2_metad import pages


def test_every_bit_counts(paged: Path, rng: random.Random) -> None:
    """F19: bits anywhere in the file."""
    bits = paged.stat().st_size * 8
    before = paged.read_bytes()
    for _round in range(200):
        pages.flip(paged, rng.randrange(bits))
        with pytest.raises(UsageError, match=r"page [0-9]+ is damaged, restore a backup"):
            pages.opened(paged)
        paged.write_bytes(before)
    pages.opened(paged).close()


def test_every_bit_counts_beside_a_log(paged: Path, rng: random.Random) -> None:
    """A process that died has left one: pages in it come from there, all others are looked at."""
    db = pages.opened(paged)
    pages.fill(db, 1000, 5)
    copy = pages.copied(paged, "copy", "-wal", "-sums")
    db.close()
    kept = {file: file.read_bytes() for file in copy.parent.iterdir()}
    refused = 0
    for _round in range(100):
        pages.flip(copy, rng.randrange(len(kept[copy]) * 8))
        try:
            again = pages.opened(copy)
        except UsageError:
            refused += 1
        else:
            assert pages.rows(again) == 105
            again.close()
        for file, data in kept.items():
            file.write_bytes(data)
    assert 50 < refused < 100


def test_bits_of_pages_that_the_log_had_once(paged: Path) -> None:
    """When it begins anew, what was in it before stays in its file, and hides no page."""
    db = pages.opened(paged)
    pages.fill(db, 1000, 11, size=pages.FRAMES * pages.PAGE // 10)
    end = pages.log_of(paged).stat().st_size
    pages.fill(db, 2000, 1)
    assert pages.log_of(paged).stat().st_size == end, "it has begun anew"
    copy = pages.copied(paged, "copy", "-wal", "-sums")
    db.close()
    pages.flip(copy, (copy.stat().st_size - pages.PAGE // 2) * 8)
    with pytest.raises(UsageError, match=r"page [0-9]+ is damaged"):
        pages.opened(copy)


def test_bits_of_a_page_in_an_unfinished_commit(paged: Path) -> None:
    """Nothing of that counts, so the page is what its sum says."""
    db = pages.opened(paged)
    pages.fill(db, 1000, 1)
    copy = pages.copied(paged, "copy", "-wal", "-sums")
    db.close()
    with pages.log_of(copy).open("r+b") as log:
        salt = log.read(LOG_HEADER_BYTES)[16:24]
        log.seek(0, os.SEEK_END)
        log.write(FRAME.pack(21, salt) + bytes(pages.PAGE))
    pages.flip(copy, 20 * pages.PAGE * 8)
    damaged, doubtful = damaged_at_rest(str(copy))
    assert not damaged and 21 in doubtful
    with pytest.raises(UsageError, match="page 21 is damaged"):
        pages.opened(copy)


def test_two_pages_that_are_exchanged(paged: Path) -> None:
    data = paged.read_bytes()
    last = len(data) // pages.PAGE
    one, other = data[-2 * pages.PAGE : -pages.PAGE], data[-pages.PAGE :]
    paged.write_bytes(data[: -2 * pages.PAGE] + other + one)
    with pytest.raises(UsageError, match=rf"2 pages \({last - 1}, {last}\) are damaged"):
        pages.opened(paged)


def test_a_database_that_was_cut_off(paged: Path) -> None:
    os.truncate(paged, paged.stat().st_size - 5 * pages.PAGE)
    with pytest.raises(UsageError, match="damaged, restore a backup"):
        pages.opened(paged)


def test_sums_are_learned_where_there_are_none(paged: Path) -> None:
    forget_sums(str(paged))
    pages.opened(paged).close()
    pages.flip(paged, 20 * pages.PAGE * 8)
    with pytest.raises(UsageError, match=r"page 21 is damaged.*remove .*db-sums"):
        pages.opened(paged)


def test_sums_that_were_not_finished_are_learned_again(paged: Path) -> None:
    os.truncate(paged.with_name("db-sums"), 0)
    pages.opened(paged).close()
    SumsFile(str(paged)).close()
    pages.opened(paged).close()
    pages.flip(paged, 20 * pages.PAGE * 8)
    with pytest.raises(UsageError, match="page 21 is damaged"):
        pages.opened(paged)


def test_text_that_is_none_is_damage(paged: Path) -> None:
    """Without sums SQLite's driver meets it, as a ValueError."""
    forget_sums(str(paged))
    data = paged.read_bytes().replace(b"CREATE TABLE extra", b"CR\xff\xffTE TABLE extra")
    paged.write_bytes(data)
    with pytest.raises(UsageError, match=r"damaged, restore a backup.*decode"):
        pages.opened(paged)


def test_an_older_database_in_its_place(paged: Path) -> None:
    before = paged.read_bytes()
    db = pages.opened(paged)
    pages.fill(db, 1000, 10)
    db.close()
    paged.write_bytes(before)
    with pytest.raises(UsageError, match="put here on purpose"):
        pages.opened(paged)


def test_a_new_database_in_its_place(paged: Path) -> None:
    paged.unlink()
    db = pages.opened(paged)
    db.close()
    pages.opened(paged).close()


def test_pages_that_were_never_written(paged: Path) -> None:
    """Taken and freed in one transaction: SQLite makes the file longer, and leaves them out."""
    db = pages.opened(paged)
    with db.transaction():
        db.change("INSERT INTO extra VALUES (5000, zeroblob(400000))", ())
        db.change("DELETE FROM extra WHERE id = 5000", ())
    verify_at_once(db)
    pages.sums_of(db).checkpoint()
    verify_at_once(db)
    db.close()
    pages.opened(paged).close()


def test_pages_that_are_gone(paged: Path) -> None:
    """Of a database that became smaller, and grows again."""
    db = pages.opened(paged)
    pages.fill(db, 1000, 10, size=50 * pages.PAGE)
    with db.transaction():
        db.change("DELETE FROM extra WHERE id >= 1000", ())
    pages.sums_of(db).checkpoint()
    before = paged.stat().st_size
    db._writer.execute("VACUUM")
    pages.sums_of(db).checkpoint()
    assert paged.stat().st_size < before // 2
    with db.transaction():
        db.change("INSERT INTO extra VALUES (5000, zeroblob(1000000))", ())
        db.change("DELETE FROM extra WHERE id = 5000", ())
    pages.sums_of(db).checkpoint()
    assert paged.stat().st_size > before // 2
    db.close()
    pages.opened(paged).close()


def test_the_page_that_sqlite_keeps_for_its_locks() -> None:
    """Of a database of more than a GiB; nothing is ever written there."""
    first = (1 << 30) // pages.PAGE
    three = [b"a" * pages.PAGE, bytes(pages.PAGE), b"c" * pages.PAGE]
    sums = [page_sum(first, three[0]), 0, page_sum(first + 2, three[2])]
    assert differing(b"".join(three), sums, pages.PAGE, first) == []


def test_damaged_sums(paged: Path) -> None:
    pages.flip(paged.with_name("db-sums"), 3)
    with pytest.raises(UsageError, match="db-sums is damaged: remove it"):
        pages.opened(paged)


def test_sums_of_a_newer_version(paged: Path) -> None:
    with paged.with_name("db-sums").open("r+b") as file:
        file.write(b"DFSsums2")
    with pytest.raises(UsageError, match=r"db-sums was written by a newer metad \(version 2"):
        pages.opened(paged)


def test_sums_that_cannot_be_opened(paged: Path) -> None:
    paged.with_name("db-sums").unlink()
    paged.with_name("db-sums").mkdir()
    with pytest.raises(UsageError, match=r"cannot use database .*db-sums"):
        pages.opened(paged)
