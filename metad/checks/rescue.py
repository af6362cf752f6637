"""What a repair of the database works with: its statements, and the directory /lost+found.

Used by mendnames.py and mendchunks.py.  Nothing that still has bytes or names below it is thrown
away: it gets a name in /lost+found, where a person can look at it.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator
from typing import Any

from dfswire.messages import ROOT_INODE
from metad.names.effects import Effects
from metad.storage.database import Database
from metad.storage.statements import Row

LOST_AND_FOUND = b"lost+found"
Mended = Iterator[tuple[str, str]]
"""Subjects, and what was done about each."""

_DIRECTORY = f"(mode & {0o170000}) = {stat.S_IFDIR}"


class Rescue:
    """One repair.  `effects` are what clients must forget afterwards."""

    def __init__(self, db: Database, now_ns: int) -> None:
        self.db = db
        self.now_ns = now_ns
        self.effects = Effects()

    def rescue(self, inode: int, cookie: int | None = None) -> str:
        """Give an inode a name in /lost+found, in place of the one it has."""
        if cookie is not None:
            ((parent, name),) = self.all("SELECT parent, name FROM dentry WHERE cookie = ?", cookie)
            self.change("DELETE FROM dentry WHERE cookie = ?", cookie)
            self.effects.name(parent, bytes(name))
        return f"is {self.put_name(inode, b'#%d' % inode)} now"

    def put_name(self, inode: int, name: bytes) -> str:
        """A new name in /lost+found; the whole path."""
        directory = self._lost_and_found()
        name = self.free_name(directory, name)
        self.change(
            "INSERT INTO dentry (parent, name, inode) VALUES (?, ?, ?)", directory, name, inode
        )
        if self.change(
            f"UPDATE inode SET parent = ? WHERE inode = ? AND {_DIRECTORY}", directory, inode
        ):
            self.change("UPDATE inode SET nlink = nlink + 1 WHERE inode = ?", directory)
        self.effects.name(directory, name)
        self.effects.attr(inode)
        return f"/{LOST_AND_FOUND.decode()}/{name.decode()}"

    def free_name(self, directory: int, name: bytes) -> bytes:
        """`name`, or one like it that the directory does not have."""
        fresh, number = name, 0
        while self.one("SELECT 1 FROM dentry WHERE parent = ? AND name = ?", directory, fresh):
            number += 1
            fresh = b"%s.%d" % (name, number)
        return fresh

    def _lost_and_found(self) -> int:
        found = self.one(
            "SELECT d.inode FROM dentry d JOIN inode i USING (inode) "
            f"WHERE d.parent = ? AND d.name = ? AND {_DIRECTORY}",
            ROOT_INODE,
            LOST_AND_FOUND,
        )
        if found is not None:
            return int(found)
        inode = self.insert_inode(None, stat.S_IFDIR | 0o700, nlink=2, parent=ROOT_INODE)
        name = self.free_name(ROOT_INODE, LOST_AND_FOUND)
        self.change(
            "INSERT INTO dentry (parent, name, inode) VALUES (?, ?, ?)", ROOT_INODE, name, inode
        )
        self.change("UPDATE inode SET nlink = nlink + 1 WHERE inode = ?", ROOT_INODE)
        self.effects.name(ROOT_INODE, name)
        return inode

    def insert_inode(
        self, inode: int | None, mode: int, *, nlink: int, size: int = 0, parent: int = 0
    ) -> int:
        """A new inode of root's, without a name; its number, a new one if None was given."""
        now_ns = self.now_ns
        row = self.db.read_one(
            "INSERT INTO inode (inode, generation, mode, uid, gid, rdev, nlink, size, "
            "allocated_bytes, atime_ns, mtime_ns, ctime_ns, parent, target) "
            "VALUES (?1, ?2, ?3, 0, 0, 0, ?4, ?5, 0, ?6, ?6, ?6, ?7, x'') RETURNING inode",
            (inode, now_ns // 10**9 & 0xFFFFFFFF, mode, nlink, size, now_ns, parent),
        )
        assert row is not None
        return int(row[0])

    def all(self, sql: str, *parameters: object) -> list[Row]:
        """All rows."""
        return self.db.read(sql, parameters)

    def inodes(self, sql: str, *parameters: object) -> list[int]:
        """The first column of all rows."""
        return [row[0] for row in self.db.read(sql, parameters)]

    def one(self, sql: str, *parameters: object) -> Any:
        """The first column of the first row, or None."""
        row = self.db.read_one(sql, parameters)
        return None if row is None else row[0]

    def change(self, sql: str, *parameters: object) -> int:
        """Run a statement; how many rows it changed."""
        return self.db.change(sql, parameters)
