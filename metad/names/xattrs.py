"""Extended attributes: stored and returned as they are, but for ACLs.

What the other names mean is the kernel's business.  An access ACL and the mode bits change
together, and one that says no more than the mode is not kept.  The same shape as namespace.py:
synchronous, in the caller's transaction.
"""

from __future__ import annotations

import stat

from dfswire.errors import AccessDenied, Exists, Invalid, NoAttribute, NoSpace, NotSupported
from dfswire.messages import XATTR_LIST_MAX_BYTES, XATTRS_MAX_BYTES, Attr, Xattr
from dfswire.operations import (
    ACL_ACCESS,
    ACL_DEFAULT,
    XATTR_CREATE,
    XATTR_REPLACE,
    RemoveXattr,
    SetXattr,
)
from metad.names import acl, protection, rows
from metad.names.effects import Effects
from metad.storage.database import Database


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
    attr = rows.need(db, op.inode)
    protection.check_change(attr)
    if op.name in (ACL_ACCESS, ACL_DEFAULT):
        return [_set_acl(db, op, attr, now_ns, effects)]
    if op.flags & ~(XATTR_CREATE | XATTR_REPLACE):
        raise Invalid(f"setxattr flags {op.flags}")
    exists = value(db, op.inode, op.name) is not None
    if exists and op.flags & XATTR_CREATE:
        raise Exists(f"{op.name!r} is set")
    if not exists and op.flags & XATTR_REPLACE:
        raise NoAttribute(f"{op.name!r} is not set")
    _check_room(db, op)
    put(db, op.inode, op.name, op.value)
    effects.attr(op.inode)
    return [rows.relink(db, op.inode, now_ns)]


def _check_room(db: Database, op: SetXattr) -> None:
    """Raise NoSpace for more names than listxattr(2) can tell, or more bytes than one reply."""
    names, octets = db.read(
        "SELECT coalesce(sum(length(name) + 1), 0), coalesce(sum(length(name) + length(value)), 0) "
        "FROM xattr WHERE inode = ? AND name <> ?",
        (op.inode, op.name),
    )[0]
    if names + len(op.name) + 1 > XATTR_LIST_MAX_BYTES:
        raise NoSpace(f"the names of the xattrs of inode {op.inode} would be too long to list")
    if octets + len(op.name) + len(op.value) > XATTRS_MAX_BYTES:
        raise NoSpace(f"inode {op.inode} has {octets} bytes of xattrs")


def _set_acl(db: Database, op: SetXattr, attr: Attr, now_ns: int, effects: Effects) -> Attr:
    """setfacl(1).  As in the kernel, the flags of setxattr(2) do not count."""
    entries = acl.parse(op.value)
    if stat.S_ISLNK(attr.mode):
        raise NotSupported("a symlink has no ACL")
    if op.name == ACL_DEFAULT and entries and not rows.is_directory(attr):
        raise AccessDenied("only a directory has a default ACL")
    mode = attr.mode
    keeps = bool(entries)
    if op.name == ACL_ACCESS and entries:
        mode = mode & ~0o777 | acl.mode_of(entries)
        keeps = not acl.is_minimal(entries)
        if op.clear_setgid:
            mode &= ~stat.S_ISGID
    if keeps:
        put(db, op.inode, op.name, op.value)
    else:
        _remove(db, op.inode, op.name)
    rows.ownership_changed(db, op.inode, effects)
    return rows.update(db, op.inode, {"mode": mode, "ctime_ns": now_ns})


def removexattr(db: Database, op: RemoveXattr, now_ns: int, effects: Effects) -> list[Attr]:
    """Remove one attribute; see operations.RemoveXattr."""
    protection.check_change(rows.need(db, op.inode))
    removed = _remove(db, op.inode, op.name)
    if not removed and op.name not in (ACL_ACCESS, ACL_DEFAULT):  # those the kernel never misses
        raise NoAttribute(f"{op.name!r} is not set")
    effects.attr(op.inode)
    return [rows.relink(db, op.inode, now_ns)]


# -- shared with inheritance ----------------------------------------------------------------------


def value(db: Database, inode: int, name: bytes) -> bytes | None:
    """One attribute of an inode; None when it is not set."""
    row = db.read_one("SELECT value FROM xattr WHERE inode = ? AND name = ?", (inode, name))
    return bytes(row[0]) if row is not None else None


def put(db: Database, inode: int, name: bytes, content: bytes) -> None:
    """Set an attribute, whatever it was."""
    db.change(
        "INSERT INTO xattr (inode, name, value) VALUES (?, ?, ?) "
        "ON CONFLICT (inode, name) DO UPDATE SET value = excluded.value",
        (inode, name, content),
    )


def _remove(db: Database, inode: int, name: bytes) -> bool:
    """Was it set?"""
    return bool(db.change("DELETE FROM xattr WHERE inode = ? AND name = ?", (inode, name)))
