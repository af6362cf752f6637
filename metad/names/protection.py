"""What the flags of an inode forbid: immutable and append-only files and directories, chattr(1).

Local file systems have the kernel refuse these things by the flags in its own inode, which FUSE
does not have; so every mutation asks here, with the attributes that it changes, and gets the errors
that ext4 gives.  Who may set the flags is the kernel's business.  Pure.
"""

from __future__ import annotations

import stat

from dfswire.errors import NotPermitted, NotSupported
from dfswire.messages import Attr
from dfswire.operations import FS_APPEND, FS_IMMUTABLE, FS_KEPT

_EITHER = FS_IMMUTABLE | FS_APPEND


def check_flags(attr: Attr, flags: int) -> None:
    """Raise NotSupported for flags that this inode cannot have."""
    if flags & ~FS_KEPT or not (stat.S_ISREG(attr.mode) or stat.S_ISDIR(attr.mode)):
        raise NotSupported(f"flags {flags:#x} on inode {attr.inode}")


def check_change(attr: Attr) -> None:
    """May anything of it be changed: attributes, xattrs, size, number of names?"""
    _refuse(attr, _EITHER)


def check_append(attr: Attr, offset: int) -> None:
    """May bytes from `offset` on be written?"""
    _refuse(attr, FS_IMMUTABLE if offset >= attr.size else _EITHER)


def check_new_name(parent: Attr) -> None:
    """May a name be added to this directory?"""
    _refuse(parent, FS_IMMUTABLE)


def check_old_name(parent: Attr, attr: Attr) -> None:
    """May the name of `attr` in this directory go or become that of another inode?"""
    _refuse(parent, _EITHER)
    _refuse(attr, _EITHER)


def _refuse(attr: Attr, flags: int) -> None:
    if attr.flags & flags:
        kind = "immutable" if attr.flags & FS_IMMUTABLE else "append-only"
        raise NotPermitted(f"inode {attr.inode} is {kind}")
