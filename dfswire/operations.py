"""Metadata mutations: the operations that clients ask for, and metad executes.

They travel in batches (batches.py).  Each says by its fields all that metad needs to know, and by
its text which errors it has.  metad's own clock gives ctime (and mtime where the operation does not
carry one), so two clients agree on the order.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from dfswire.messages import (
    FILE_MAX_BYTES,
    SYMLINK_MAX_BYTES,
    XATTR_NAME_MAX_BYTES,
    XATTR_VALUE_MAX_BYTES,
    Extent,
    Inode,
    Lease,
    Message,
    Name,
    Natural,
    Size,
    WrittenChunk,
    check_name,
)

RENAME_NOREPLACE = 1  # the kernel's values, linux/fs.h
RENAME_EXCHANGE = 2
XATTR_CREATE = 1  # linux/xattr.h
XATTR_REPLACE = 2
FALLOC_KEEP_SIZE = 1  # linux/falloc.h
FALLOC_PUNCH_HOLE = 2
FALLOC_ZERO_RANGE = 16
FS_IMMUTABLE = 0x10  # linux/fs.h
FS_APPEND = 0x20
FS_NODUMP = 0x40
FS_NOATIME = 0x80
FS_DIRSYNC = 0x10000
FS_KEPT = FS_IMMUTABLE | FS_APPEND | FS_NODUMP | FS_NOATIME | FS_DIRSYNC
ACL_ACCESS = b"system.posix_acl_access"
ACL_DEFAULT = b"system.posix_acl_default"
ACCESS_MAX_INODES = 1000

Id32 = Annotated[int, msgspec.Meta(ge=0, lt=1 << 32)]
Umask = Annotated[int, msgspec.Meta(ge=0, le=0o777)]


class Operation(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="op"):
    """What all mutations are; the field `op` on the wire names the class."""


class Create(Operation, frozen=True, kw_only=True, tag="create"):
    """mknod, mkdir, symlink and creat in one: `mode` carries the file type.

    Not `exclusive` and the name exists as a regular file: that file is the result, unchanged.
    A directory with the setgid bit gives its group (and to a directory the bit) to what is made in
    it; one with a default ACL gives ACLs, and takes `mode` without `umask`.  `lease`: parts to be
    leased exclusively to this session if nobody else can have anything of the inode; see OpResult.
    Errors: EEXIST, ENOENT (parent gone), ENOTDIR, ENAMETOOLONG.
    """

    parent: Inode
    name: Name
    mode: int
    uid: Id32
    gid: Id32
    umask: Umask = 0
    rdev: Natural = 0
    target: Annotated[bytes, msgspec.Meta(max_length=SYMLINK_MAX_BYTES)] = b""
    exclusive: bool = True
    lease: Natural = 0

    def __post_init__(self) -> None:
        check_name(self.name)


class CreateUnnamed(Operation, frozen=True, kw_only=True, tag="create_unnamed"):
    """A regular file without a name (O_TMPFILE), held by this session until `Release`.

    While held, a Link may give it its first name, if `linkable`.  It inherits from `parent` as with
    Create.  Errors: ENOENT (parent gone), ENOTDIR, EPERM.
    """

    parent: Inode
    mode: int
    uid: Id32
    gid: Id32
    umask: Umask = 0
    linkable: bool = True


class Link(Operation, frozen=True, kw_only=True, tag="link"):
    """Another name for `inode`.  Errors: EEXIST, ENOENT, EPERM (a directory), EMLINK."""

    inode: Inode
    parent: Inode
    name: Name

    def __post_init__(self) -> None:
        check_name(self.name)


class Unlink(Operation, frozen=True, kw_only=True, tag="unlink"):
    """Remove a name that is not a directory.  Errors: ENOENT, EISDIR.

    `held`: this client has the inode open; if this was the last name the inode stays until
    `Release`. Other sessions that hold the inode are asked by an event with `Invalidated.GONE`.
    `expected`: of which inode `held` speaks; another one that has the name by now counts as held.
    """

    parent: Inode
    name: Name
    held: bool = False
    expected: Inode | None = None

    def __post_init__(self) -> None:
        check_name(self.name)


class RmDir(Operation, frozen=True, kw_only=True, tag="rmdir"):
    """Remove an empty directory.  Errors: ENOENT, ENOTDIR, ENOTEMPTY."""

    parent: Inode
    name: Name

    def __post_init__(self) -> None:
        check_name(self.name)


class Rename(Operation, frozen=True, kw_only=True, tag="rename"):
    """rename(2) with RENAME_NOREPLACE or RENAME_EXCHANGE.  `held` and `expected` as in Unlink
    speak of the replaced inode.

    Errors: ENOENT, EEXIST, ENOTEMPTY, EISDIR, ENOTDIR, EINVAL (into itself, unknown flags).
    """

    parent: Inode
    name: Name
    new_parent: Inode
    new_name: Name
    flags: int = 0
    held: bool = False
    expected: Inode | None = None

    def __post_init__(self) -> None:
        check_name(self.name)
        check_name(self.new_name)


class SetAttr(Operation, frozen=True, kw_only=True, tag="setattr"):
    """chmod, chown, truncate, utimens: what is None stays.  Errors: ENOENT, EISDIR, EINVAL, EFBIG.

    An access ACL follows `mode`.  Truncation trims extents and sets mtime; growing leaves a hole.
    `lease` as in Create.
    """

    inode: Inode
    mode: int | None = None  # permission bits; the type cannot change
    uid: Id32 | None = None
    gid: Id32 | None = None
    size: Size | None = None
    atime_ns: int | None = None
    mtime_ns: int | None = None
    lease: Natural = 0


class SetFlags(Operation, frozen=True, kw_only=True, tag="setflags"):
    """All inode flags (chattr).  FS_IMMUTABLE and FS_APPEND are enforced, on every mutation, as
    ext4 does (EPERM); others of FS_KEPT are kept.  Errors: ENOENT, EOPNOTSUPP (any other flag, and
    what is neither a regular file nor a directory).
    """

    inode: Inode
    flags: Natural


class AccessTime(Message, frozen=True, kw_only=True):
    """An inode was read at this time; its ctime was `ctime_ns` then."""

    inode: Inode
    atime_ns: int
    ctime_ns: int


class Access(Operation, frozen=True, kw_only=True, tag="access"):
    """Inodes were read: new atimes, without new ctimes.  Never fails.

    Inodes that are gone, have another ctime by now or a later atime are left alone.  Others are
    told of the new atimes; the result has no attributes.
    """

    times: Annotated[list[AccessTime], msgspec.Meta(max_length=ACCESS_MAX_INODES)]


class SetXattr(Operation, frozen=True, kw_only=True, tag="setxattr"):
    """Set one.  Errors: ENOENT, EEXIST (XATTR_CREATE), ENODATA (XATTR_REPLACE), ENOSPC (too many).

    ACL_ACCESS changes the mode too (without the setgid bit if `clear_setgid`: the caller is not of
    the file's group), and is not kept when the mode says the same.  Errors of ACLs: EINVAL, EACCES
    (ACL_DEFAULT, not a directory), ENOTSUP (a symlink).
    """

    inode: Inode
    name: Annotated[bytes, msgspec.Meta(min_length=1, max_length=XATTR_NAME_MAX_BYTES)]
    value: Annotated[bytes, msgspec.Meta(max_length=XATTR_VALUE_MAX_BYTES)]
    flags: int = 0
    clear_setgid: bool = False


class RemoveXattr(Operation, frozen=True, kw_only=True, tag="removexattr"):
    """Remove one.  Errors: ENOENT, ENODATA (not of ACLs)."""

    inode: Inode
    name: Annotated[bytes, msgspec.Meta(min_length=1, max_length=XATTR_NAME_MAX_BYTES)]


class Commit(Operation, frozen=True, kw_only=True, tag="commit"):
    """Bytes that are safely stored become part of a file.

    `chunks` are the newly stored chunks, each granted to this session before; `extents` are laid
    over the file in order, trimming what was there.  The size becomes the larger of the present one
    and `size`; mtime becomes `mtime_ns`.  A granted chunk that no extent uses is garbage at once.
    `attributes`: a change of the same inode's attributes, applied after that; never of its size.
    `give_back`: the parts of this lease of the session on the inode end with this, as by the call
    `lease.give_back`.
    Errors: ENOENT (inode gone), UNKNOWN_CHUNK (not granted to this session, or expired), EINVAL.
    """

    inode: Inode
    extents: list[Extent]
    size: Annotated[int, msgspec.Meta(ge=0, le=FILE_MAX_BYTES)]
    mtime_ns: int
    chunks: list[WrittenChunk] = []
    attributes: SetAttr | None = None
    give_back: Lease | None = None

    def __post_init__(self) -> None:
        change = self.attributes
        if change is not None and (change.inode != self.inode or change.size is not None):
            raise ValueError("attributes of another inode, or with a size")


class Fallocate(Operation, frozen=True, kw_only=True, tag="fallocate"):
    """fallocate(2), with the kernel's bits in `mode`; mtime and ctime change in every mode.

    0 extends the size to the end of the range and KEEP_SIZE does nothing, but both fail when there
    is clearly less room; PUNCH_HOLE (only with KEEP_SIZE) and ZERO_RANGE leave a hole.  Errors:
    ENOENT, EISDIR, EINVAL, EPERM, EFBIG, ENOSPC, EOPNOTSUPP (any other mode).
    """

    inode: Inode
    mode: Natural
    offset: Natural
    length: Annotated[int, msgspec.Meta(ge=1)]


class CopyRange(Operation, frozen=True, kw_only=True, tag="copy_range"):
    """Bytes of `source` become bytes of `inode` too: chunks are shared, nothing is transferred.

    Ends at the end of the source, or earlier: OpResult.length says how many bytes were copied; 0
    changes nothing.  Errors: ENOENT, EISDIR, EINVAL (not regular; overlapping ranges of one file),
    EPERM, EFBIG.
    """

    source: Inode
    source_offset: Natural
    inode: Inode
    offset: Natural
    length: Natural


class Release(Operation, frozen=True, kw_only=True, tag="release"):
    """This session does not have the unlinked `inode` open (any more).  Never fails."""

    inode: Inode


AnyOperation = (
    Create
    | CreateUnnamed
    | Link
    | Unlink
    | RmDir
    | Rename
    | SetAttr
    | SetFlags
    | Access
    | SetXattr
    | RemoveXattr
    | Commit
    | Fallocate
    | CopyRange
    | Release
)
