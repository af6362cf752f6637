"""Each invariant broken by hand: fsck must report exactly that, and nothing when all is well."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dfswire.batches import Batch
from dfswire.messages import Extent
from dfswire.operations import ACL_ACCESS, Link, SetXattr, Unlink
from metad.checks import fsck, invariants
from metad.clients import batches
from metad.names import acl
from metad.storage.database import Database
from metad.storage.opening import open_database
from tests.t2_metad.conftest import World

Breakage = tuple[str, tuple[str, ...]]

# What the fixture below makes: inode 2 = /d, 3 = /d/e, 4 = /d/f (also /g) with a chunk and inline
# bytes, 5 = /l -> "target", 6 = an orphan; dentries in that order from cookie 3; chunk 1 live on
# disks 1 and 2, chunk 2 granted, chunk 3 dead.
CHUNK = "x'" + "00" * 15 + "01'"
ACL = acl.build(
    (
        acl.Entry(acl.USER_OBJ, 6),
        acl.Entry(acl.USER, 7, 1000),
        acl.Entry(acl.GROUP_OBJ, 4),
        acl.Entry(acl.MASK, 6),
        acl.Entry(acl.OTHER, 0),
    )
)
GRANTED = "x'" + "00" * 15 + "02'"

BREAKAGES: list[Breakage] = [
    ("INSERT INTO dentry VALUES (99, 1, x'61', 77)", ("dentry_inode",)),
    ("INSERT INTO dentry VALUES (99, 4, x'61', 5)", ("dentry_inode", "nlink")),
    ("UPDATE dentry SET name = x'612f' WHERE inode = 5", ("name",)),
    ("UPDATE dentry SET name = x'2e2e' WHERE inode = 5", ("name",)),
    ("UPDATE dentry SET name = x'' WHERE inode = 5", ("name",)),
    ("UPDATE inode SET nlink = 3 WHERE inode = 4", ("nlink",)),
    ("UPDATE inode SET nlink = 4 WHERE inode = 2", ("nlink",)),
    ("UPDATE inode SET nlink = 2 WHERE inode = 1", ("nlink",)),
    ("UPDATE inode SET parent = 1 WHERE inode = 3", ("parent",)),
    ("UPDATE inode SET parent = 1 WHERE inode = 4", ("parent",)),
    ("UPDATE inode SET parent = 2 WHERE inode = 1", ("parent",)),
    ("INSERT INTO dentry VALUES (99, 1, x'61', 3)", ("nlink", "parent")),
    ("UPDATE dentry SET parent = 3 WHERE inode = 2", ("nlink", "parent", "reachable")),
    ("DELETE FROM dentry WHERE inode = 5", ("nlink", "reachable")),
    ("DELETE FROM inode WHERE inode = 1", ("dentry_inode", "reachable")),
    ("DELETE FROM orphan", ("reachable", "orphan")),
    ("INSERT INTO orphan VALUES (5, 1, 0)", ("orphan",)),
    ("INSERT INTO orphan VALUES (55, 1, 0)", ("orphan",)),
    ("UPDATE inode SET size = 5 WHERE inode = 5", ("size",)),
    ("UPDATE inode SET size = 1 WHERE inode = 2", ("size",)),
    ("UPDATE inode SET target = x'61' WHERE inode = 4", ("size",)),
    ("UPDATE inode SET flags = 16 WHERE inode = 5", ("flags",)),
    ("UPDATE inode SET flags = 8 WHERE inode = 4", ("flags",)),
    ("UPDATE xattr SET inode = 77", ("xattr",)),
    ("UPDATE inode SET mode = 33279 WHERE inode = 4", ("acl",)),
    ("UPDATE xattr SET value = x'00' WHERE length(value) > 4", ("acl",)),
    (
        "UPDATE xattr SET name = CAST('system.posix_acl_default' AS BLOB) WHERE length(value) > 4",
        ("acl",),
    ),
    ("UPDATE inode SET size = 109 WHERE inode = 4", ("extent_inode",)),
    ("UPDATE extent SET inode = 77 WHERE data NOT NULL", ("extent_inode", "allocated")),
    ("UPDATE extent SET inode = 5 WHERE data NOT NULL", ("extent_inode", "allocated")),
    ("UPDATE extent SET offset = 99 WHERE offset = 100", ("extent_overlap",)),
    ("UPDATE extent SET data = x'61' WHERE data NOT NULL", ("extent_content",)),
    ("UPDATE extent SET data = NULL WHERE data NOT NULL", ("extent_content",)),
    ("UPDATE extent SET chunk_offset = 1 WHERE chunk NOT NULL", ("extent_content",)),
    ("UPDATE chunk SET length = 99 WHERE state = 'live'", ("extent_content",)),
    ("UPDATE inode SET allocated_bytes = 1 WHERE inode = 4", ("allocated",)),
    ("UPDATE chunk SET refs = 2 WHERE state = 'live'", ("refs",)),
    ("UPDATE chunk SET state = 'dead', dead_since_ns = 1 WHERE state = 'live'", ("chunk_state",)),
    ("UPDATE chunk SET digest = x'' WHERE state = 'live'", ("chunk_state",)),
    ("UPDATE chunk SET session = 'nobody' WHERE state = 'granted'", ("chunk_state",)),
    ("UPDATE chunk SET expires_ns = NULL WHERE state = 'granted'", ("chunk_state",)),
    ("UPDATE chunk SET dead_since_ns = NULL WHERE state = 'dead'", ("chunk_state",)),
    ("UPDATE chunk SET state = 'odd' WHERE state = 'dead'", ("chunk_state",)),
    ("DELETE FROM session", ("chunk_state", "applied")),
    ("UPDATE chunk SET good = 1 WHERE state = 'live'", ("good",)),
    (f"UPDATE replica SET state = 'bad' WHERE chunk = {CHUNK}", ("good", "lost")),
    (f"DELETE FROM chunk WHERE id = {GRANTED}", ("replica",)),
    (f"UPDATE replica SET disk = 77 WHERE chunk = {GRANTED}", ("replica",)),
    (f"UPDATE replica SET state = 'odd' WHERE chunk = {GRANTED}", ("replica",)),
    ("INSERT INTO damage VALUES (x'77', 0, 9, 1)", ("lost_range",)),
    (f"INSERT INTO damage VALUES ({CHUNK}, 90, 11, 1)", ("lost_range",)),
    ("DELETE FROM server WHERE id = 'server1'", ("disk",)),
    ("UPDATE server SET admin = 'odd'", ("admin",)),
    ("UPDATE disk SET admin = '' WHERE identity = 'd1'", ("admin",)),
    ("UPDATE chunk SET policy = 77 WHERE state = 'dead'", ("policy",)),
    ("INSERT INTO directory_policy VALUES (2, 77)", ("policy",)),
    ("INSERT INTO directory_policy VALUES (4, 0)", ("policy",)),
    ("INSERT INTO converging VALUES (77, 0)", ("policy",)),
    ("DELETE FROM policy", ("policy",)),
    ("DELETE FROM applied", ()),
    ("UPDATE applied SET session = 'nobody'", ("applied",)),
]


@pytest.fixture
def populated() -> Iterator[World]:
    """A World with something of everything."""
    world = World(open_database("sqlite://", inline=True))
    populate(world)
    yield world
    world.db.close()


def populate(world: World) -> None:
    directory = world.mkdir(b"d")
    world.mkdir(b"e", directory)
    file = world.make(b"f", directory)
    world.do(Link(inode=file, parent=1, name=b"g"))
    world.live_chunk(file, 0, 100)
    world.granted("d1")
    world.commit(file, chunks=[world.written()])
    world.commit(file, Extent(offset=100, length=10, data=b"x" * 10))
    world.make(b"l", mode=0o120777, target=b"target")
    world.make(b"gone")
    world.do(Unlink(parent=1, name=b"gone"))
    world.do(SetXattr(inode=file, name=b"user.a", value=b"1"))
    world.do(SetXattr(inode=file, name=ACL_ACCESS, value=ACL))
    with world.db.transaction():
        batches.execute(
            world.db,
            Batch(session="s", sequence=1, operations=[SetXattr(inode=2, name=b"a", value=b"")]),
            5,
        )


def test_a_healthy_database_is_clean_and_counted(populated: World) -> None:
    report = fsck.run(populated.db, 10)
    assert report.findings == []
    counted = (report.inodes, report.dentries, report.extents, report.chunks, report.replicas)
    assert (*counted, report.orphans) == (6, 5, 2, 3, 5, 1)


@pytest.mark.parametrize(("breakage", "expected"), BREAKAGES)
def test_each_broken_invariant_is_found(
    populated: World, breakage: str, expected: tuple[str, ...]
) -> None:
    with populated.db.transaction():
        assert populated.db.change(breakage) > 0
    report = fsck.run(populated.db, 100)
    found = tuple(dict.fromkeys(finding.check for finding in report.findings))
    assert found == expected, report.findings
    assert all(finding.subject and finding.message for finding in report.findings)


def test_ids_of_chunks_are_written_as_everywhere(populated: World) -> None:
    """`dfs events` and `dfs info` have them in lower case; one looks for them with grep."""
    other = "x'" + "ab" * 16 + "'"
    with populated.db.transaction():
        for table, column in (("chunk", "id"), ("replica", "chunk")):
            populated.db.change(f"UPDATE {table} SET {column} = {other} WHERE {column} = {CHUNK}")
        populated.db.change(f"UPDATE chunk SET policy = 77, good = 9, refs = 7 WHERE id = {other}")
        populated.db.change(f"UPDATE replica SET state = 'odd' WHERE chunk = {other}")
        populated.db.change(f"UPDATE extent SET chunk = {other} WHERE chunk NOT NULL")
        populated.db.change(f"UPDATE chunk SET length = 1, digest = x'' WHERE id = {other}")
        populated.db.change(f"INSERT INTO damage VALUES ({other}, 9, 9, 0)")
    found = fsck.run(populated.db, 100).findings
    with populated.db.transaction():
        populated.db.change(f"DELETE FROM chunk WHERE id = {other}")
    found += fsck.run(populated.db, 100).findings
    checks = {each.check for each in found if "ab" * 16 in f"{each.subject} {each.message}"}
    expected = {"refs", "chunk_state", "good", "lost", "replica", "lost_range", "policy"}
    assert checks == expected | {"extent_content"}
    assert "does not exist" in next(
        each.message for each in reversed(found) if each.check == "extent_content"
    )
    assert not [each for each in found if "AB" * 16 in f"{each.subject} {each.message}"]


def test_every_check_was_broken() -> None:
    broken = {check for _sql, expected in BREAKAGES for check in expected}
    assert broken == {check.__name__.removeprefix("check_") for check in invariants.CHECKS}


@pytest.mark.parametrize("table", ["dentry", "dentry_parent"])  # unreadable, and reported
def test_damage_is_found_and_ends_the_search(
    tmp_path: Path, table: str, tolerate_log: Callable[[str], None]
) -> None:
    tolerate_log("malformed")
    path = tmp_path / "db"
    db = open_database(f"sqlite://{path}", inline=True)
    populate(World(db))
    ((page,),) = db.read("SELECT rootpage FROM sqlite_master WHERE name = ?", (table,))
    db.close()
    with path.open("r+b") as file:
        file.seek((page - 1) * 4096)
        file.write(b"\xff" * 4096)
    db = Database(str(path), inline=True, lock=None)  # open_database refuses it
    report = fsck.run(db, 100)
    assert {finding.check for finding in report.findings} == {"damage"}
    db.close()


def test_all_findings_are_counted_and_some_described(populated: World) -> None:
    with populated.db.transaction():
        populated.db.change("UPDATE inode SET nlink = nlink + 1 WHERE nlink > 0")
    report = fsck.run(populated.db, 2)
    assert (len(report.findings), report.count) == (2, 5)


async def test_it_runs_off_the_loop_on_a_snapshot(
    tmp_path: Path,
) -> None:
    db = open_database(f"sqlite://{tmp_path}/db")
    populate(World(db))
    report = await db.read_in_thread(lambda apart: fsck.run(apart, 10))
    assert (report.count, report.inodes) == (0, 6)
    db.close()
