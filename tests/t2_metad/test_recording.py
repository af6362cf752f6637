"""The journal has every change, once, and nothing that was undone; replayed, it gives the same."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import re
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

import metad
from dfswire.errors import NoEntry, NoSpace, ProtocolError
from dfswire.journal import Entry, decode_changes, encode_changes
from dfswire.messages import Extent
from dfswire.operations import CopyRange, Fallocate, Link, Rename, SetXattr, Unlink
from metad.journal.recording import changes_something
from metad.journal.replay import position_of, replay
from metad.storage.database import Database
from metad.storage.opening import open_database
from tests.replaying import Shadow
from tests.t2_metad.conftest import World

ADD = "INSERT INTO xattr (inode, name, value) VALUES (1, ?, x'')"


@pytest.fixture
def shadow(db: Database) -> Iterator[Shadow]:
    """Follows the database; must be equal to it at the end."""
    following = Shadow(db)
    yield following
    assert following.catch_up() == []
    following.close()


def statements(entry: Entry) -> list[str]:
    return [text for text, _rows in decode_changes(entry.body)]


def test_what_a_transaction_changes_is_one_entry(db: Database, shadow: Shadow) -> None:
    before = db.position
    with db.transaction():
        db.change(ADD, (b"a",))
        db.change_many(ADD, [(b"b",), (b"c",)])
        db.change_many(ADD, [])
        assert db.read("SELECT 1 FROM xattr") == [(1,)] * 3
        assert db.read_one("DELETE FROM xattr WHERE name = ? RETURNING inode", (b"b",)) == (1,)
        assert db.read("UPDATE xattr SET value = x'00' WHERE name = x'61' RETURNING id") == [(1,)]
    (entry,) = shadow.entries
    assert [len(rows) for _text, rows in decode_changes(entry.body)] == [1, 2, 1, 1]
    assert entry.is_sound
    assert entry.previous == before.digest
    assert (entry.number, entry.epoch) == (before.number + 1, 1)
    assert db.position == entry.position == position_of(db._writer)


def test_what_is_undone_is_not_in_the_journal(db: Database, shadow: Shadow) -> None:
    with db.transaction():
        db.change(ADD, (b"a",))
        with pytest.raises(NoEntry), db.savepoint():
            db.change(ADD, (b"b",))
            with db.savepoint():
                db.change(ADD, (b"c",))
            raise NoEntry
        with pytest.raises(sqlite3.IntegrityError):
            db.change(ADD, (b"a",))
    with pytest.raises(NoEntry), db.transaction():
        db.change(ADD, (b"d",))
        raise NoEntry
    assert [statements(entry) for entry in shadow.entries] == [[ADD]]


async def test_a_transaction_that_changes_nothing_is_no_entry(db: Database) -> None:
    before = db.position
    await db.write(lambda: db.read("SELECT 1 FROM inode"))
    with db.transaction():
        pass
    assert db.position == before


async def test_a_group_is_one_entry(tmp_path: Path) -> None:
    db = open_database(f"sqlite://{tmp_path}/db", inline=True)
    shadow = Shadow(db)

    def fail() -> None:
        db.change(ADD, (b"undone",))
        raise NoEntry

    for name in (b"a", b"b"):
        await db.write(lambda name=name: db.change(ADD, (name,)))
    with pytest.raises(NoEntry):
        await db.write(fail)
    assert [entry.number for entry in shadow.entries] == [1, 2]
    assert shadow.catch_up() == []
    shadow.close()
    db.close()


async def test_a_commit_that_failed_leaves_no_entry_and_a_new_term(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, expect_log: Callable[[str], None]
) -> None:
    expect_log("disk is full")
    db = open_database(f"sqlite://{tmp_path}/db", inline=True)
    await db.write(lambda: db.change(ADD, (b"a",)))
    shadow = Shadow(db)
    before = db.position

    def full() -> None:
        problem = sqlite3.OperationalError("disk is full")
        problem.sqlite_errorcode = sqlite3.SQLITE_FULL
        raise problem

    with monkeypatch.context() as patch, pytest.raises(NoSpace):
        patch.setattr(db, "commit", full)
        await db.write(lambda: db.change(ADD, (b"lost",)))
    assert db.position == before == position_of(db._writer)
    (lost,) = shadow.entries
    shadow.entries.clear()
    await db.write(lambda: db.change(ADD, (b"b",)))
    (kept,) = shadow.entries
    assert kept.number == lost.number
    assert kept.previous == lost.previous
    assert kept.position.rank > lost.position.rank
    assert shadow.catch_up() == []
    shadow.close()
    db.close()


def test_each_start_has_a_term_of_its_own(tmp_path: Path) -> None:
    terms = []
    for number in range(3):
        db = open_database(f"sqlite://{tmp_path}/db", inline=True)
        with db.transaction():
            db.change(ADD, (b"%d" % number,))
        terms.append(db.position.term)
        db.close()
    assert terms == sorted(set(terms))


def test_the_journal_goes_on_after_a_restart(tmp_path: Path) -> None:
    times = iter([50, 40, 30, 20, 10])  # of a clock that goes wrong
    positions = []
    for name in (b"a", b"b"):
        db = open_database(f"sqlite://{tmp_path}/db", inline=True, now_ns=lambda: next(times))
        with db.transaction():
            db.change(ADD, (name,))
        positions.append(db.position)
        db.close()
    first, second = positions
    assert second.number == first.number + 1
    assert second.time_ns >= first.time_ns


def test_every_kind_of_change_is_repeated(world: World, shadow: Shadow) -> None:
    directory = world.mkdir(b"d")
    file = world.make(b"f", directory)
    other = world.make(b"o")
    world.live_chunk(file)
    world.commit(file, Extent(offset=200, length=5, data=b"hello"))
    world.do(CopyRange(source=file, source_offset=0, length=205, inode=other, offset=10))
    world.do(Fallocate(inode=other, mode=0, offset=0, length=500))
    world.do(SetXattr(inode=file, name=b"user.a", value=b"\x00\xff"))
    world.do(Link(inode=file, parent=1, name=b"\xff\xfe"))
    world.do(Rename(parent=directory, name=b"f", new_parent=1, new_name=b"o"))
    world.do(Unlink(parent=1, name=b"\xff\xfe"))
    world.do(Unlink(parent=1, name=b"o"))
    world.purge(file)
    world.granted("d1")


def test_replay_refuses_what_does_not_follow(db: Database, shadow: Shadow) -> None:
    for name in (b"a", b"b"):
        with db.transaction():
            db.change(ADD, (name,))
    first, second = shadow.entries
    damaged = [
        msgspec.structs.replace(first, body=encode_changes([(ADD, [(b"x",)])])),
        msgspec.structs.replace(first, number=2),
        msgspec.structs.replace(first, previous=b"x" * 16),
        msgspec.structs.replace(first, term=first.term + 1),
        second,
    ]
    for entry in damaged:
        with pytest.raises(ProtocolError, match=r"damaged|does not follow"):
            replay(shadow.copy, entry)


@pytest.mark.parametrize("body", [b"", b"\x92\x90\x91\x92\x00\x90", b"\x92\x90\x01"])
def test_a_body_that_is_none(body: bytes) -> None:
    with pytest.raises(ProtocolError):
        list(decode_changes(body))


@pytest.mark.parametrize(
    ("sql", "changes"),
    [
        ("SELECT 1", False),
        ("  select name FROM deleted", False),
        ("PRAGMA quick_check", False),
        ("WITH a AS (SELECT 1) SELECT * FROM a", False),
        ("WITH a AS (SELECT 1) DELETE FROM b", True),
        ("UPDATE a SET b = 1 RETURNING c", True),
        ("REPLACE INTO a VALUES (1)", True),
        ("CREATE TABLE a (b)", True),
    ],
)
def test_what_changes_something(sql: str, changes: bool) -> None:
    assert changes_something(sql) == changes


# --- what is repeated must do the same ---------------------------------------------------------


def why_not_repeatable(sql: str) -> str:
    """What in a statement may have another effect the next time; "" for nothing."""
    if found := re.search(
        r"\b(random|randomblob|current_\w+|changes|last_insert_rowid)\b", sql, re.I
    ):
        return found[0]
    if re.search(r"'now'", sql):
        return "now"
    if re.search(r"\bLIMIT\b", sql) and not re.search(r"\bORDER BY\b.*\bLIMIT\b", sql, re.S):
        return "LIMIT without ORDER BY"
    if re.match(r"INSERT.*\bSELECT\b", sql, re.S) and not re.search(r"\bORDER BY\b", sql):
        return "rows are numbered in an order that nobody has chosen"
    return ""


def changing_statements() -> Iterator[tuple[str, str]]:
    """Every text in metad that may be a statement which changes something: (module, text)."""
    for found in pkgutil.walk_packages(metad.__path__, "metad."):
        module = importlib.import_module(found.name)
        assert module.__file__ is not None
        texts = [value for value in vars(module).values() if isinstance(value, str)]
        tree = ast.parse(Path(module.__file__).read_text("utf-8"))
        formatted = [node for node in ast.walk(tree) if isinstance(node, ast.JoinedStr)]
        pieces = {id(part) for node in formatted for part in node.values}
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                texts += [] if id(node) in pieces else [node.value]
            elif isinstance(node, ast.JoinedStr):
                texts.append(
                    "".join(
                        str(part.value) if isinstance(part, ast.Constant) else "?"
                        for part in node.values
                    )
                )
        for text in texts:
            if re.match(
                r"\s*(INSERT|UPDATE|DELETE|REPLACE|WITH)\b.*\b(INTO|SET|FROM)\b", text, re.S
            ):
                yield found.name, text


def test_all_our_statements_can_be_repeated() -> None:
    found = list(changing_statements())
    assert len(found) > 50
    assert [(module, text) for module, text in found if why_not_repeatable(text)] == []


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE a SET b = random()",
        "INSERT INTO a VALUES (CURRENT_TIMESTAMP)",
        "UPDATE a SET b = datetime('now')",
        "DELETE FROM a WHERE b IN (SELECT b FROM c LIMIT 3)",
        "INSERT INTO a SELECT b FROM c",
    ],
)
def test_what_could_not_be_repeated(sql: str) -> None:
    assert why_not_repeatable(sql)
