"""POSIX access control lists as values: the xattr format, and how they and mode bits move together.

The rules are those of the kernel (fs/posix_acl.c) and of the withdrawn POSIX draft 1003.1e, which
everybody follows: the owner's, group class's and others' bits of the mode are the ACL's first
entry, its mask (or its group, without a mask) and its last.  xattrs.py, namespace.py and
inheritance.py use it; who may do what by an ACL is decided by the kernels of the mounts.  Pure.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from dfswire.errors import Invalid

VERSION = 2  # POSIX_ACL_XATTR_VERSION, linux/posix_acl_xattr.h
USER_OBJ, USER, GROUP_OBJ, GROUP, MASK, OTHER = 0x01, 0x02, 0x04, 0x08, 0x10, 0x20
NO_ID = 0xFFFFFFFF  # of entries that name nobody

_HEADER = struct.Struct("<I")
_ENTRY = struct.Struct("<HHI")
_RWX = 0o7
# Which entries may come after which: the kernel keeps them in this order.
_FOLLOWERS = {
    0: (USER_OBJ,),
    USER_OBJ: (USER, GROUP_OBJ),
    USER: (USER, GROUP_OBJ),
    GROUP_OBJ: (GROUP, MASK, OTHER),
    GROUP: (GROUP, MASK, OTHER),
    MASK: (OTHER,),
    OTHER: (),
}


class Entry(NamedTuple):
    """Permissions (rwx as 4, 2, 1) of one user or group (`id`), or of a class."""

    tag: int
    perm: int
    id: int = NO_ID


Acl = tuple[Entry, ...]


def parse(value: bytes) -> Acl:
    """The list in an xattr; an empty one means that there is none.  Raises Invalid."""
    body = value[_HEADER.size :]
    if len(value) < _HEADER.size or len(body) % _ENTRY.size:
        raise Invalid(f"an ACL of {len(value)} bytes")
    if _HEADER.unpack_from(value) != (VERSION,):
        raise Invalid("an ACL of another version")
    acl = tuple(Entry(*fields) for fields in _ENTRY.iter_unpack(body))
    if acl:
        _check(acl)
    return acl


def build(acl: Acl) -> bytes:
    """The xattr for a list."""
    return _HEADER.pack(VERSION) + b"".join(_ENTRY.pack(*entry) for entry in acl)


def _check(acl: Acl) -> None:
    before = 0
    for entry in acl:
        if entry.tag not in _FOLLOWERS[before] or entry.perm & ~_RWX:
            raise Invalid(f"an ACL with {entry} after {before}")
        if entry.tag in (USER, GROUP) and entry.id == NO_ID:
            raise Invalid("an ACL entry for nobody")
        before = entry.tag
    tags = {entry.tag for entry in acl}
    if before != OTHER or (tags & {USER, GROUP} and MASK not in tags):
        raise Invalid("an ACL that is not complete")


def is_minimal(acl: Acl) -> bool:
    """Does it say no more than mode bits can?"""
    return all(entry.tag in (USER_OBJ, GROUP_OBJ, OTHER) for entry in acl)


def mode_of(acl: Acl) -> int:
    """The nine permission bits that belong to an access ACL."""
    perms = {entry.tag: entry.perm for entry in acl}
    return perms[USER_OBJ] << 6 | perms.get(MASK, perms[GROUP_OBJ]) << 3 | perms[OTHER]


def with_mode(acl: Acl, mode: int) -> Acl:
    """An access ACL after chmod(2): the mask, not the group's own entry, takes the group bits."""
    return _with_classes(acl, mode >> 6 & _RWX, mode >> 3 & _RWX, mode & _RWX)


def inherited(default: Acl, mode: int) -> tuple[Acl, int]:
    """The access ACL and the mode of what is made with `mode` under a default ACL (no umask).

    Each class gets what both the list and the mode allow.
    """
    both = mode & mode_of(default)
    acl = _with_classes(default, both >> 6 & _RWX, both >> 3 & _RWX, both & _RWX)
    return acl, mode & ~0o777 | both


def _with_classes(acl: Acl, owner: int, group: int, others: int) -> Acl:
    group_class = MASK if any(entry.tag == MASK for entry in acl) else GROUP_OBJ
    perms = {USER_OBJ: owner, group_class: group, OTHER: others}
    return tuple(entry._replace(perm=perms.get(entry.tag, entry.perm)) for entry in acl)
