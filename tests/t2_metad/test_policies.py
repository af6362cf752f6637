"""The root's policy: stated by the settings, kept by the database."""

from __future__ import annotations

from dfswire.messages import ROOT_INODE
from metad.database import Database
from metad.policies import Policy, settle


def rows(db: Database) -> list[tuple[int, int, int]]:
    return [(*row,) for row in db.read("SELECT * FROM policy")]


def test_the_root_has_what_the_settings_state(db: Database) -> None:
    assert settle(db, Policy(2, 4 << 20)) == Policy(2, 4 << 20)
    assert rows(db) == [(ROOT_INODE, 2, 4 << 20)]
    assert settle(db, Policy(3, 1 << 20)) == Policy(3, 1 << 20)
    assert rows(db) == [(ROOT_INODE, 3, 1 << 20)]


def test_the_same_again_writes_nothing(db: Database) -> None:
    settle(db, Policy(2, 4 << 20))
    before = db.read_one("SELECT total_changes()")
    settle(db, Policy(2, 4 << 20))
    assert db.read_one("SELECT total_changes()") == before
