"""What a new inode gets from its directory: the group of a setgid directory, and ACLs.

namespace.py asks while it makes an inode, and stores the attributes (`xattrs`) that come with it.
A default ACL takes the place of the umask, which is why the umask travels to metad at all.
"""

from __future__ import annotations

import stat
from dataclasses import dataclass, field

from dfswire.messages import Attr
from dfswire.operations import ACL_ACCESS, ACL_DEFAULT
from metad.names import acl, xattrs
from metad.storage.database import Database


@dataclass(frozen=True)
class Inheritance:
    """Mode and group of what is made, and the extended attributes that it is born with."""

    mode: int
    gid: int
    xattrs: dict[bytes, bytes] = field(default_factory=dict)


def inherit(db: Database, parent: Attr, mode: int, gid: int, umask: int) -> Inheritance:
    """For something made in `parent` with these wishes; `mode` has its file type."""
    if parent.mode & stat.S_ISGID:
        gid = parent.gid
        if stat.S_ISDIR(mode):
            mode |= stat.S_ISGID
    if stat.S_ISLNK(mode):  # the mode of a symlink means nothing
        return Inheritance(mode, gid)
    default = xattrs.value(db, parent.inode, ACL_DEFAULT)
    if default is None:
        return Inheritance(mode & ~umask, gid)
    access, mode = acl.inherited(acl.parse(default), mode)
    born_with = {} if acl.is_minimal(access) else {ACL_ACCESS: acl.build(access)}
    if stat.S_ISDIR(mode):
        born_with[ACL_DEFAULT] = default
    return Inheritance(mode, gid, born_with)


def mode_changed(db: Database, attr: Attr, mode: int) -> None:
    """chmod(2): an access ACL follows."""
    access = xattrs.value(db, attr.inode, ACL_ACCESS)
    if access is not None:
        changed = acl.with_mode(acl.parse(access), mode)
        xattrs.put(db, attr.inode, ACL_ACCESS, acl.build(changed))
