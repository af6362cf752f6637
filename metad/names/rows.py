"""Rows of table inode as `Attr` messages, and the few changes to them that all operations make.

namespace.py, rename.py, xattrs.py and chunkmap.py share it.  Every function runs prepared SQL in
the caller's transaction; those that change a row return its new attributes from the same statement.
"""

from __future__ import annotations

import stat
from typing import Any

from dfswire.errors import Invalid, NoEntry, NotDirectory
from dfswire.messages import Attr
from metad.names.effects import Effects
from metad.storage.database import Database
from metad.storage.statements import Row

NAMES_TOLD_MAX = 100  # a file with more links: every name of their directories at once

_COLUMNS = (
    "inode",
    "mode",
    "uid",
    "gid",
    "size",
    "atime_ns",
    "mtime_ns",
    "ctime_ns",
    "nlink",
    "rdev",
    "generation",
    "allocated_bytes",
    "flags",
)
ATTR = ", ".join(_COLUMNS)
ATTR_OF_I = ", ".join(f"i.{column}" for column in _COLUMNS)
_WIDTH = len(_COLUMNS)

_FIND = (
    f"SELECT {', '.join(f'p.{column}' for column in _COLUMNS)}, {ATTR_OF_I} FROM inode p "
    "LEFT JOIN dentry d ON d.parent = p.inode AND d.name = ? "
    "LEFT JOIN inode i ON i.inode = d.inode WHERE p.inode = ?"
)
_SELECT = f"SELECT {ATTR} FROM inode WHERE inode = ?"
_TOUCH = (
    "UPDATE inode SET mtime_ns = ?1, ctime_ns = ?1, nlink = nlink + ?2 "
    f"WHERE inode = ?3 RETURNING {ATTR}"
)
_RELINK = f"UPDATE inode SET ctime_ns = ?, nlink = nlink + ? WHERE inode = ? RETURNING {ATTR}"


def attr_of(row: Row) -> Attr:
    """The message for a row that starts with the columns of ATTR."""
    return Attr(
        inode=row[0],
        mode=row[1],
        uid=row[2],
        gid=row[3],
        size=row[4],
        atime_ns=row[5],
        mtime_ns=row[6],
        ctime_ns=row[7],
        nlink=row[8],
        rdev=row[9],
        generation=row[10],
        allocated_bytes=row[11],
        flags=row[12],
    )


def need(db: Database, inode: int) -> Attr:
    """The attributes of an inode that must exist (with or without a name).  Raises NoEntry."""
    row = db.read_one(_SELECT, (inode,))
    if row is None:
        raise NoEntry(f"no inode {inode}")
    return attr_of(row)


def find(db: Database, parent: int, name: bytes) -> tuple[Attr, Attr | None]:
    """A directory and what `name` in it is, from one statement.  Raises NoEntry, NotDirectory."""
    row = db.read_one(_FIND, (name, parent))
    if row is None:
        raise NoEntry(f"no inode {parent}")
    if not stat.S_ISDIR(row[1]):
        raise NotDirectory(f"inode {parent} is not a directory")
    found = row[_WIDTH:]
    return attr_of(row), attr_of(found) if found[0] is not None else None


def find_alive(db: Database, parent: int, name: bytes) -> tuple[Attr, Attr | None]:
    """The same for mutations, which a removed directory refuses (NoEntry)."""
    directory, found = find(db, parent, name)
    if directory.nlink == 0:
        raise NoEntry(f"directory {parent} was removed")
    return directory, found


def need_directory(db: Database, inode: int) -> Attr:
    """The attributes of a directory that still has a name.  Raises NoEntry, NotDirectory."""
    attr = need(db, inode)
    if not stat.S_ISDIR(attr.mode):
        raise NotDirectory(f"inode {inode} is not a directory")
    if attr.nlink == 0:
        raise NoEntry(f"directory {inode} was removed")
    return attr


def touch(db: Database, directory: int, now_ns: int, links: int = 0) -> Attr:
    """A directory whose names changed: mtime, ctime, and `links` more subdirectories."""
    return _changed(db, _TOUCH, (now_ns, links, directory))


def relink(db: Database, inode: int, now_ns: int, links: int = 0) -> Attr:
    """An inode whose names or attributes changed: ctime, and `links` more names."""
    return _changed(db, _RELINK, (now_ns, links, inode))


def update(db: Database, inode: int, columns: dict[str, Any]) -> Attr:
    """Set some columns of an existing inode."""
    assignments = ", ".join(f"{column} = ?" for column in columns)
    sql = f"UPDATE inode SET {assignments} WHERE inode = ? RETURNING {ATTR}"
    return _changed(db, sql, (*columns.values(), inode))


def _changed(db: Database, sql: str, parameters: tuple[Any, ...]) -> Attr:
    (row,) = db.read(sql, parameters)
    return attr_of(row)


def check_int64(**values: int | None) -> None:
    """Raise Invalid for a number that the database cannot hold."""
    for name, value in values.items():
        if value is not None and not -(1 << 63) <= value < 1 << 63:
            raise Invalid(f"{name} is out of range: {value}")


def is_directory(attr: Attr) -> bool:
    """Is it a directory?"""
    return stat.S_ISDIR(attr.mode)


def is_regular(attr: Attr) -> bool:
    """Is it a file with contents?"""
    return stat.S_ISREG(attr.mode)


def ownership_changed(db: Database, inode: int, effects: Effects) -> None:
    """Owner, mode or ACL changed: kernels must walk to the inode anew.

    A kernel that is told to forget attributes asks for them before it opens a file, but not before
    it decides by them who may chmod, chown, utimes or (in a sticky directory) unlink it.  It learns
    of them in time when it has to ask for the name.
    """
    effects.attr(inode)
    names = db.read(
        "SELECT parent, name FROM dentry WHERE inode = ? LIMIT ?", (inode, NAMES_TOLD_MAX + 1)
    )
    if len(names) <= NAMES_TOLD_MAX:
        for parent, name in names:
            effects.entry(parent, name)
        return
    for (parent,) in db.read("SELECT DISTINCT parent FROM dentry WHERE inode = ?", (inode,)):
        effects.entries(parent)


def last_ctime_ns(db: Database) -> int:
    """The largest ctime of all inodes.  Reads the whole table: for the start only."""
    row = db.read_one("SELECT max(ctime_ns) FROM inode")
    latest: int = row[0] if row else 0
    return latest
