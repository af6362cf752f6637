"""Which parts of which inodes an operation looks at, changes, or tells its caller of.

mutations.py compares this with the exclusive leases of others before the operation is executed, in
the same transaction; inodes that are only named by a directory are looked up for that.  It promises
to leave nothing out: whatever attributes an operation returns and whatever it notes in its effects
is among these parts.  (But for Access: its atime contradicts nothing that a holder could have
changed.)
"""

from __future__ import annotations

from typing import assert_never

from dfswire.operations import (
    ACL_ACCESS,
    ACL_DEFAULT,
    Access,
    AnyOperation,
    Commit,
    CopyRange,
    Create,
    CreateUnnamed,
    Fallocate,
    Link,
    Release,
    RemoveXattr,
    Rename,
    RmDir,
    SetAttr,
    SetFlags,
    SetXattr,
    Unlink,
)
from metad.leases.table import ATTR, DATA, NAMES
from metad.storage.database import Database


def touched(db: Database, op: AnyOperation) -> dict[int, int]:
    """Inode -> parts."""
    match op:
        case CreateUnnamed():
            return {op.parent: ATTR}
        case Create():
            return _names(db, (op.parent, b"" if op.exclusive else op.name))
        case Link():
            return {op.inode: ATTR} | _names(db, (op.parent, b""))
        case Unlink() | RmDir():
            return _names(db, (op.parent, op.name))
        case Rename():
            return _names(db, (op.parent, op.name), (op.new_parent, op.new_name))
        case SetAttr():
            parts = {op.inode: ATTR if op.size is None else ATTR | DATA}
            return parts | _reached_by(db, op)
        case SetXattr():
            acl = op.name in (ACL_ACCESS, ACL_DEFAULT)
            return {op.inode: ATTR} | (_reached(db, op.inode) if acl else {})
        case RemoveXattr():
            return {op.inode: ATTR}
        case Commit():
            parts = {op.inode: ATTR | DATA}
            return parts if op.attributes is None else parts | _reached_by(db, op.attributes)
        case Fallocate():
            return {op.inode: ATTR | DATA}
        case CopyRange():
            return {op.source: ATTR | DATA, op.inode: ATTR | DATA}
        case SetFlags():  # who has buffered something must store it before it is forbidden
            return {op.inode: ATTR | DATA | NAMES}
        case Release() | Access():  # nobody's work is interrupted for the time of a reading
            return {}
    assert_never(op)


def _reached_by(db: Database, op: SetAttr) -> dict[int, int]:
    owners = (op.mode, op.uid, op.gid)
    return {} if owners == (None, None, None) else _reached(db, op.inode)


def _reached(db: Database, inode: int) -> dict[int, int]:
    """The directories whose names for an inode must be asked for again (rows.ownership_changed)."""
    found = db.read("SELECT DISTINCT parent FROM dentry WHERE inode = ?", (inode,))
    return {parent: NAMES for (parent,) in found}


def _names(db: Database, *places: tuple[int, bytes]) -> dict[int, int]:
    """Directories whose names are looked at or changed, and what is there now under these names.

    Of that the names too: whether it is an empty directory decides if it can be replaced.  A place
    without a name stands for the directory alone.
    """
    parts: dict[int, int] = {}
    for parent, name in places:
        parts[parent] = ATTR | NAMES
        found = name and db.read_one(
            "SELECT inode FROM dentry WHERE parent = ? AND name = ?", (parent, name)
        )
        if found:
            parts[found[0]] = ATTR | NAMES
    return parts
