"""Each invariant broken by hand, then repaired: what can be is whole again, nothing is lost."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from metad.checks import fsck
from metad.checks.mend import STEPS, mend
from metad.checks.rescue import Rescue
from metad.names import acl, namespace
from metad.storage.opening import open_database
from tests.t2_metad.conftest import World
from tests.t2_metad.test_fsck import ACL, BREAKAGES, CHUNK, GRANTED, populate

# What a repair does not touch, because two answers are possible.
REPORTED = {
    "UPDATE inode SET mode = 33279 WHERE inode = 4",  # the ACL or the mode?
    "UPDATE xattr SET value = x'00' WHERE length(value) > 4",
    "UPDATE extent SET offset = 99 WHERE offset = 100",  # whose byte 99?
    "UPDATE extent SET data = x'61' WHERE data NOT NULL",
    "UPDATE extent SET data = NULL WHERE data NOT NULL",
    "UPDATE extent SET chunk_offset = 1 WHERE chunk NOT NULL",
    "UPDATE chunk SET length = 99 WHERE state = 'live'",
    "UPDATE chunk SET digest = x'' WHERE state = 'live'",
    f"UPDATE replica SET state = 'bad' WHERE chunk = {CHUNK}",  # salvage's business
    "DELETE FROM server WHERE id = 'server1'",  # it comes back with its registration
    "UPDATE server SET admin = 'odd'",
    "UPDATE disk SET admin = '' WHERE identity = 'd1'",
    "INSERT INTO directory_policy VALUES (2, 77)",
    "DELETE FROM policy",  # comes back with the next start
}

# Breakages beyond those of test_fsck, and the /lost+found entry that is left.
MORE: list[tuple[str, bytes]] = [
    ("DELETE FROM inode WHERE inode = 2", b""),  # a directory with two names below it
    ("DELETE FROM inode WHERE inode = 4", b"#4"),  # a file with a chunk and inline bytes
    ("UPDATE inode SET size = 50 WHERE inode = 4", b"#4"),
    ("UPDATE inode SET size = -1 WHERE inode = 4", b""),
    ("DELETE FROM dentry WHERE inode = 4", b"#4"),
    ("DELETE FROM dentry WHERE inode = 2", b"#2"),
    ("UPDATE dentry SET parent = 3 WHERE inode = 2", b"#2"),
    ("INSERT INTO dentry VALUES (99, 3, x'61', 2)", b""),
    ("UPDATE inode SET nlink = 0 WHERE inode = 5", b""),
    (f"UPDATE replica SET disk = 77 WHERE chunk = {CHUNK} AND disk = 1", b""),
    (f"UPDATE chunk SET refs = 0, state = 'dead' WHERE id = {CHUNK}", b""),
    (f"UPDATE chunk SET expires_ns = 5 WHERE id = {CHUNK}", b""),
    (f"UPDATE chunk SET state = 'live', length = 9 WHERE id = {GRANTED}", b""),
]


@pytest.fixture
def broken() -> Iterator[World]:
    """A World with something of everything, for breaking."""
    world = World(open_database("sqlite://", inline=True))
    populate(world)
    yield world
    world.db.close()


def break_and_mend(world: World, sql: str) -> None:
    with world.db.transaction():
        assert world.db.change(sql) > 0
    with world.db.transaction():
        mend(Rescue(world.db, 10**18))


def findings(world: World) -> list[str]:
    return [f"{each.check}: {each.message}" for each in fsck.run(world.db, 100).findings]


def lost_and_found(world: World) -> list[bytes]:
    found = namespace.lookup(world.db, 1, b"lost+found")
    if found is None:
        return []
    entries, _end, _parent = namespace.readdir(world.db, found.inode, 0, 100)
    return [entry.name for entry in entries]


@pytest.mark.parametrize(("breakage", "expected"), BREAKAGES)
def test_what_can_be_mended_is(broken: World, breakage: str, expected: tuple[str, ...]) -> None:
    before = bytes_named(broken)
    break_and_mend(broken, breakage)
    if breakage not in REPORTED:
        left = findings(broken)
        # A disk that does not exist cannot be repaired into one: its copies do not count.
        assert left == [], left
    else:
        assert {each.partition(":")[0] for each in findings(broken)} <= {*expected, "lost"}
    if "extent" not in breakage and "chunk" not in breakage:
        assert bytes_named(broken) == before


@pytest.mark.parametrize(("breakage", "rescued"), MORE)
def test_what_has_no_place_any_more_is_in_lost_and_found(
    broken: World, breakage: str, rescued: bytes
) -> None:
    before = bytes_named(broken)
    break_and_mend(broken, breakage)
    assert [each for each in findings(broken) if not each.startswith("lost:")] == []
    if rescued:
        assert rescued in lost_and_found(broken)
    if "chunk" not in breakage:
        assert bytes_named(broken) == before


def bytes_named(world: World) -> int:
    """How many bytes extents of inodes that exist name."""
    ((count,),) = world.db.read("SELECT coalesce(sum(length), 0) FROM extent")
    return int(count)


def test_a_plan_is_what_is_done(broken: World) -> None:
    with broken.db.transaction():
        broken.db.change("DELETE FROM dentry WHERE inode = 4")
        broken.db.change("UPDATE inode SET nlink = 7 WHERE inode = 3")
    before = broken.db.read("SELECT * FROM inode")
    planned = []
    with pytest.raises(ZeroDivisionError), broken.db.transaction():
        planned = mend(Rescue(broken.db, 10**18))
        raise ZeroDivisionError
    assert broken.db.read("SELECT * FROM inode") == before
    with broken.db.transaction():
        assert mend(Rescue(broken.db, 10**18)) == planned
    assert len(planned) >= 3


def test_nothing_is_mended_where_nothing_is_broken(broken: World) -> None:
    before = [broken.db.read(f"SELECT * FROM {table}") for table in ("inode", "dentry", "chunk")]
    with broken.db.transaction():
        assert mend(Rescue(broken.db, 10**18)) == []
    after = [broken.db.read(f"SELECT * FROM {table}") for table in ("inode", "dentry", "chunk")]
    assert after == before


def test_two_of_a_name_in_lost_and_found(broken: World) -> None:
    for _ in range(2):
        break_and_mend(broken, "UPDATE inode SET size = size / 2 WHERE inode = 4")
    assert lost_and_found(broken) == [b"#4", b"#4.1"]
    assert findings(broken) == []


def test_an_acl_that_is_right_stays(broken: World) -> None:
    break_and_mend(broken, "UPDATE inode SET nlink = 9 WHERE inode = 4")
    rows = broken.db.read("SELECT value FROM xattr WHERE length(value) > 4")
    assert [bytes(value) for (value,) in rows] == [ACL]
    assert acl.parse(ACL)


def test_every_step_has_work_to_do() -> None:
    """Each function of the repair was needed by some breakage above."""
    done = set()
    for breakage in [*(sql for sql, _ in BREAKAGES), *(sql for sql, _ in MORE)]:
        world = World(open_database("sqlite://", inline=True))
        populate(world)
        with world.db.transaction():
            world.db.change(breakage)
        with world.db.transaction():
            done |= {fix.check for fix in mend(Rescue(world.db, 10**18))}
        world.db.close()
    assert done == {step.__name__.removeprefix("mend_") for step in STEPS}
