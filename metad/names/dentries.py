"""Single names of directories: added, removed, and what becomes of what they named.

namespace.py and rename.py share it, in the caller's transaction.  It promises that an inode that
loses its last name is an orphan from the same moment, so that its bytes are not forgotten.
"""

from __future__ import annotations

from dfswire.errors import NameTooLong, NotEmpty
from dfswire.messages import NAME_MAX_BYTES, Attr
from dfswire.operations import Rename, Unlink
from metad.copies import policies
from metad.names import rows
from metad.names.effects import Effects
from metad.storage.database import Database


def check_length(name: bytes) -> None:
    """Raise NameTooLong for a name that no directory can have."""
    if len(name) > NAME_MAX_BYTES:
        raise NameTooLong(f"name of {len(name)} bytes, {NAME_MAX_BYTES} are possible")


def check_empty(db: Database, directory: int) -> None:
    """Raise NotEmpty when a directory has entries."""
    if db.read_one("SELECT 1 FROM dentry WHERE parent = ? LIMIT 1", (directory,)):
        raise NotEmpty(f"directory {directory} is not empty")


def add_dentry(db: Database, parent: int, name: bytes, inode: int) -> None:
    """A new name, with a new cookie."""
    db.change("INSERT INTO dentry (parent, name, inode) VALUES (?, ?, ?)", (parent, name, inode))


def remove_dentry(db: Database, parent: int, name: bytes) -> None:
    """A name goes; what it named is the caller's business."""
    db.change("DELETE FROM dentry WHERE parent = ? AND name = ?", (parent, name))


def may_be_held(op: Unlink | Rename, attr: Attr) -> bool:
    """May the client have open what it takes the name of?  It speaks only of what it expected."""
    return op.held or op.expected not in (None, attr.inode)


def drop_name(db: Database, attr: Attr, now_ns: int, effects: Effects, *, held: bool) -> Attr:
    """One name of an inode is gone; without the last one (or a directory's only one) it is an
    orphan from now on."""
    links = attr.nlink if rows.is_directory(attr) else 1
    dropped = rows.relink(db, attr.inode, now_ns, -links)
    if dropped.nlink:
        effects.attr(attr.inode)
        policies.linked(db, attr.inode)
    else:
        db.change("INSERT INTO orphan VALUES (?, ?, 0)", (attr.inode, now_ns))
        effects.orphan(attr.inode, held)
    return dropped
