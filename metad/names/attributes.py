"""Changes of an inode's attributes: setattr, the flags of chattr, the times of reading.

The same shape as namespace.py: synchronous, in the caller's transaction.  Extended attributes are
in xattrs.py; what the flags forbid is in protection.py.
"""

from __future__ import annotations

import stat
from typing import Any

from dfswire.attrchanges import without_privileges
from dfswire.errors import FileTooBig, Invalid, IsDirectory
from dfswire.messages import FILE_MAX_BYTES, Attr
from dfswire.operations import Access, SetAttr, SetFlags
from metad.names import protection, rows
from metad.names.effects import Effects
from metad.names.extents import truncate_extents
from metad.names.inheritance import mode_changed
from metad.storage.database import Database

_ACCESS = "UPDATE inode SET atime_ns = ?1 WHERE inode = ?2 AND ctime_ns = ?3 AND atime_ns < ?1"


def setattr_(db: Database, op: SetAttr, now_ns: int, effects: Effects) -> list[Attr]:
    """chmod, chown, truncate, utimens; see operations.SetAttr.

    A change of owner clears setuid and setgid of what is not a directory unless the mode is given
    too, as chown(2) does for everybody; after a write or truncation that depends on the caller's
    capabilities, which only the kernel knows, so it sends the mode.
    """
    attr = rows.need(db, op.inode)
    protection.check_change(attr)
    rows.check_int64(atime_ns=op.atime_ns, mtime_ns=op.mtime_ns)
    columns: dict[str, Any] = {"ctime_ns": now_ns}
    if op.mode is not None:
        columns["mode"] = stat.S_IFMT(attr.mode) | stat.S_IMODE(op.mode)
        mode_changed(db, attr, op.mode)
    elif op.uid is not None or op.gid is not None:
        columns["mode"] = without_privileges(attr.mode)
    if op.size is not None:
        _resize(db, attr, op.size, now_ns)
        columns |= {"size": op.size, "mtime_ns": now_ns}
        effects.data(op.inode)
    for column in ("uid", "gid", "atime_ns", "mtime_ns"):
        value = getattr(op, column)
        if value is not None:
            columns[column] = value
    if "mode" in columns:
        rows.ownership_changed(db, op.inode, effects)
    effects.attr(op.inode)
    return [rows.update(db, op.inode, columns)]


def set_flags(db: Database, op: SetFlags, now_ns: int, effects: Effects) -> list[Attr]:
    """Set the flags of chattr; see operations.SetFlags.

    DATA, because what others have written but not stored would be refused afterwards.
    """
    protection.check_flags(rows.need(db, op.inode), op.flags)
    effects.data(op.inode)
    return [rows.update(db, op.inode, {"flags": op.flags, "ctime_ns": now_ns})]


def access(db: Database, op: Access, now_ns: int, effects: Effects) -> list[Attr]:
    """Inodes were read; see operations.Access.  Unlike all others it leaves ctime alone."""
    for time in op.times:
        if db.change(_ACCESS, (time.atime_ns, time.inode, time.ctime_ns)):
            effects.read.add(time.inode)
    return []  # the rest of its attributes may be leased to somebody


def _resize(db: Database, attr: Attr, size: int, now_ns: int) -> None:
    if rows.is_directory(attr):
        raise IsDirectory(f"inode {attr.inode} is a directory")
    if not rows.is_regular(attr):
        raise Invalid(f"inode {attr.inode} has no contents")
    if size > FILE_MAX_BYTES:
        raise FileTooBig(f"{size} is more than the largest file, {FILE_MAX_BYTES}")
    if size < attr.size:
        truncate_extents(db, attr.inode, size, now_ns)
