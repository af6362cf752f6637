"""What a SetAttr without a size does to attributes, told without asking metad.

Clients show their own changes before metad has them, and put two into one; metad takes privileges
away by the same rule.  Pure functions.
"""

from __future__ import annotations

import stat

import msgspec

from dfswire.messages import Attr
from dfswire.operations import SetAttr


def merged(earlier: SetAttr | None, later: SetAttr) -> SetAttr:
    """One change that does what two do, one after the other.  Neither has a size."""
    if earlier is None:
        return later
    mode = later.mode if later.mode is not None else earlier.mode
    if later.mode is None and mode is not None and (later.uid, later.gid) != (None, None):
        mode = stat.S_IMODE(without_privileges(stat.S_IFREG | mode))
    return SetAttr(
        inode=later.inode,
        mode=mode,
        uid=later.uid if later.uid is not None else earlier.uid,
        gid=later.gid if later.gid is not None else earlier.gid,
        atime_ns=later.atime_ns if later.atime_ns is not None else earlier.atime_ns,
        mtime_ns=later.mtime_ns if later.mtime_ns is not None else earlier.mtime_ns,
    )


def changed(attr: Attr, change: SetAttr) -> Attr:
    """The attributes of a regular file after a change without a size; ctime is left to others."""
    mode = attr.mode
    if change.mode is not None:
        mode = stat.S_IFMT(mode) | stat.S_IMODE(change.mode)
    elif (change.uid, change.gid) != (None, None):
        mode = without_privileges(mode)
    return msgspec.structs.replace(
        attr,
        mode=mode,
        uid=attr.uid if change.uid is None else change.uid,
        gid=attr.gid if change.gid is None else change.gid,
        atime_ns=attr.atime_ns if change.atime_ns is None else change.atime_ns,
        mtime_ns=attr.mtime_ns if change.mtime_ns is None else change.mtime_ns,
    )


def without_privileges(mode: int) -> int:
    """A mode after the contents or the owner of the inode changed: no set-uid, no set-gid."""
    if stat.S_ISDIR(mode):
        return mode
    # setgid without group execution is a mark for mandatory locking, not a privilege.
    privileges = stat.S_ISUID | (stat.S_ISGID if mode & stat.S_IXGRP else 0)
    return mode & ~privileges
