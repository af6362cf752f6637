"""Extended attributes, stored and returned as they are; what names mean is the kernel's business.

The same shape as namespace.py: synchronous, in the caller's transaction.
"""

from __future__ import annotations

from dfswire.errors import Exists, Invalid, NoAttribute
from dfswire.messages import Attr, Xattr
from dfswire.operations import XATTR_CREATE, XATTR_REPLACE, RemoveXattr, SetXattr
from metad import protection, rows
from metad.database import Database
from metad.effects import Effects


def xattrs(db: Database, inode: int) -> list[Xattr]:
    """All extended attributes of an inode, in the order of their names.  Raises NoEntry."""
    with db.snapshot():
        rows.need(db, inode)
        return [
            Xattr(name=name, value=value)
            for name, value in db.read(
                "SELECT name, value FROM xattr WHERE inode = ? ORDER BY name", (inode,)
            )
        ]


def setxattr(db: Database, op: SetXattr, now_ns: int, effects: Effects) -> list[Attr]:
    """Set one attribute; see operations.SetXattr."""
    protection.check_change(rows.need(db, op.inode))
    if op.flags not in (0, XATTR_CREATE, XATTR_REPLACE):
        raise Invalid(f"setxattr flags {op.flags}")
    key = (op.inode, op.name)
    exists = db.read_one("SELECT 1 FROM xattr WHERE inode = ? AND name = ?", key)
    if exists and op.flags == XATTR_CREATE:
        raise Exists(f"{op.name!r} is set")
    if not exists and op.flags == XATTR_REPLACE:
        raise NoAttribute(f"{op.name!r} is not set")
    db.change(
        "INSERT INTO xattr (inode, name, value) VALUES (?, ?, ?) "
        "ON CONFLICT (inode, name) DO UPDATE SET value = excluded.value",
        (*key, op.value),
    )
    effects.attr(op.inode)
    return [rows.relink(db, op.inode, now_ns)]


def removexattr(db: Database, op: RemoveXattr, now_ns: int, effects: Effects) -> list[Attr]:
    """Remove one attribute; see operations.RemoveXattr."""
    protection.check_change(rows.need(db, op.inode))
    if not db.change("DELETE FROM xattr WHERE inode = ? AND name = ?", (op.inode, op.name)):
        raise NoAttribute(f"{op.name!r} is not set")
    effects.attr(op.inode)
    return [rows.relink(db, op.inode, now_ns)]
