"""Names and inodes: lookup, readdir, create, link, unlink, rmdir.

Synchronous functions on the database.  Reads see one snapshot.  Each mutation takes
`(db, op, now_ns, effects)`, runs in the caller's transaction (batches.py undoes it when it raises)
and returns the new attributes of what it changed, the subject first, as OpResult.attrs says; what
others must forget goes into `effects`.  Permissions are the kernel's business: mounts use
default_permissions.  Single names come and go in dentries.py; rename is in rename.py, changes of
attributes in attributes.py and xattrs.py, file contents in chunkmap.py and ranges.py.
"""

from __future__ import annotations

import stat

from dfswire.errors import (
    Exists,
    Invalid,
    IsDirectory,
    NoEntry,
    NotDirectory,
    NotPermitted,
    TooManyLinks,
)
from dfswire.messages import Attr, DirEntry
from dfswire.operations import (
    Create,
    CreateUnnamed,
    Link,
    RmDir,
    Unlink,
)
from metad.copies import policies
from metad.names import protection, rows
from metad.names.dentries import (
    add_dentry,
    check_empty,
    check_length,
    drop_name,
    may_be_held,
    remove_dentry,
)
from metad.names.effects import Effects
from metad.names.inheritance import inherit
from metad.names.xattrs import put
from metad.storage.database import Database

LINKS_MAX = 1 << 31  # what a signed 32-bit nlink of old programs can hold

_TYPES = {
    stat.S_IFREG,
    stat.S_IFDIR,
    stat.S_IFLNK,
    stat.S_IFCHR,
    stat.S_IFBLK,
    stat.S_IFIFO,
    stat.S_IFSOCK,
}
_INSERT = (
    "INSERT INTO inode (generation, mode, uid, gid, rdev, nlink, size, allocated_bytes, "
    "atime_ns, mtime_ns, ctime_ns, parent, target) "
    f"VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, 0, ?8, ?8, ?8, ?9, ?10) RETURNING {rows.ATTR}"
)
# Without INDEXED BY the planner prefers the index on (parent, name) and sorts the directory.
_READDIR = (
    f"SELECT {rows.ATTR_OF_I}, d.name, d.cookie FROM dentry d INDEXED BY dentry_parent "
    "JOIN inode i ON i.inode = d.inode WHERE d.parent = ? AND d.cookie > ? "
    "ORDER BY d.cookie LIMIT ?"
)


# -- reads ----------------------------------------------------------------------------------------


def getattr_(db: Database, inode: int) -> Attr:
    """The attributes of an inode, also of one without a name.  Raises NoEntry."""
    return rows.need(db, inode)


def lookup(db: Database, parent: int, name: bytes) -> Attr | None:
    """What `name` in directory `parent` is; None when there is no such name.

    b"." and b".." work too.  Raises NoEntry (no such directory), NotDirectory.
    """
    if name == b"..":
        with db.snapshot():
            rows.need_directory(db, parent)
            return _parent_of(db, parent)
    directory, found = rows.find(db, parent, name)
    return directory if name == b"." else found


def readlink(db: Database, inode: int) -> bytes:
    """The target of a symlink.  Raises NoEntry, Invalid (not a symlink)."""
    with db.snapshot():
        if not stat.S_ISLNK(rows.need(db, inode).mode):
            raise Invalid(f"inode {inode} is not a symlink")
        (target,) = db.read("SELECT target FROM inode WHERE inode = ?", (inode,))[0]
    return bytes(target)


def readdir(db: Database, inode: int, cookie: int, limit: int) -> tuple[list[DirEntry], bool, Attr]:
    """Entries after `cookie` (0: from the start), at most `limit`; whether that is the end; "..".

    Raises NoEntry (also for a removed directory, as the kernel does), NotDirectory.
    """
    with db.snapshot():
        rows.need_directory(db, inode)
        found = db.read(_READDIR, (inode, cookie, limit + 1))
        entries = [
            DirEntry(name=name, cookie=at, attr=rows.attr_of((*attr,)))
            for *attr, name, at in found[:limit]
        ]
        return entries, len(found) <= limit, _parent_of(db, inode)


def _parent_of(db: Database, directory: int) -> Attr:
    (parent,) = db.read("SELECT parent FROM inode WHERE inode = ?", (directory,))[0]
    return rows.need(db, parent)


# -- mutations ------------------------------------------------------------------------------------


def create(db: Database, op: Create, now_ns: int, effects: Effects) -> list[Attr]:
    """Make a file, directory, symlink or special file; see operations.Create."""
    parent, existing = rows.find_alive(db, op.parent, op.name)
    if existing is not None:
        if op.exclusive or not rows.is_regular(existing):
            raise Exists(f"{op.name!r} exists")
        return [existing, parent]
    check_length(op.name)
    protection.check_new_name(parent)
    _check_kind(op)
    directory = stat.S_ISDIR(op.mode)
    created = _insert(
        db,
        parent,
        op,
        now_ns,
        effects,
        rdev=op.rdev,
        nlink=2 if directory else 1,
        target=op.target,
    )
    add_dentry(db, op.parent, op.name, created.inode)
    effects.name(op.parent, op.name)
    return [created, rows.touch(db, op.parent, now_ns, int(directory))]


def create_unnamed(db: Database, op: CreateUnnamed, now_ns: int, effects: Effects) -> list[Attr]:
    """Make a file without a name, an orphan from birth; see operations.CreateUnnamed."""
    parent = rows.need_directory(db, op.parent)
    protection.check_new_name(parent)
    if not stat.S_ISREG(op.mode) or op.mode >> 16:
        raise Invalid(f"cannot create mode {op.mode:o} without a name")
    created = _insert(db, parent, op, now_ns, effects, nlink=0)
    db.change("INSERT INTO orphan VALUES (?, ?, ?)", (created.inode, now_ns, op.linkable))
    effects.unnamed(created.inode)
    return [created]


def _insert(
    db: Database,
    parent: Attr,
    op: Create | CreateUnnamed,
    now_ns: int,
    effects: Effects,
    *,
    nlink: int,
    rdev: int = 0,
    target: bytes = b"",
) -> Attr:
    born = inherit(db, parent, op.mode, op.gid, op.umask)
    (row,) = db.read(
        _INSERT,
        (
            now_ns // 1_000_000_000 & 0xFFFFFFFF,
            born.mode,
            op.uid,
            born.gid,
            rdev,
            nlink,
            len(target),
            now_ns,
            op.parent if stat.S_ISDIR(op.mode) else 0,
            target,
        ),
    )
    made = rows.attr_of(row)
    for name, value in born.xattrs.items():
        put(db, made.inode, name, value)
    if not born.xattrs:
        effects.bare.append(made.inode)
    return made


def _check_kind(op: Create) -> None:
    """Raise Invalid for a mode, target or device that do not fit together."""
    kind = stat.S_IFMT(op.mode)
    if kind not in _TYPES or op.mode >> 16 or bool(op.target) != (kind == stat.S_IFLNK):
        raise Invalid(f"cannot create mode {op.mode:o}, target {op.target!r}")
    rows.check_int64(rdev=op.rdev)


def link(db: Database, op: Link, now_ns: int, effects: Effects) -> list[Attr]:
    """Give an inode another name; see operations.Link."""
    attr = rows.need(db, op.inode)
    parent, existing = rows.find_alive(db, op.parent, op.name)
    if rows.is_directory(attr):
        raise NotPermitted(f"inode {op.inode} is a directory")
    if attr.nlink == 0:
        _adopt(db, op.inode, effects)
    if attr.nlink >= LINKS_MAX:
        raise TooManyLinks(f"inode {op.inode} has {attr.nlink} names")
    if existing is not None:
        raise Exists(f"{op.name!r} exists")
    check_length(op.name)
    protection.check_new_name(parent)
    protection.check_change(attr)
    followed = policies.of_file(db, op.inode)
    add_dentry(db, op.parent, op.name, op.inode)
    effects.name(op.parent, op.name)
    effects.attr(op.inode)
    policies.linked(db, op.inode)
    if policies.of_file(db, op.inode) != followed:
        effects.policies.append(op.inode)
    return [rows.relink(db, op.inode, now_ns, 1), rows.touch(db, op.parent, now_ns)]


def _adopt(db: Database, inode: int, effects: Effects) -> None:
    """A file that was made without a name gets its first one.  Raises NoEntry for any other."""
    if not db.change("DELETE FROM orphan WHERE inode = ? AND linkable = 1", (inode,)):
        raise NoEntry(f"inode {inode} has no name any more")
    effects.adopted.append(inode)


def unlink(db: Database, op: Unlink, now_ns: int, effects: Effects) -> list[Attr]:
    """Remove a name that is not a directory's; see operations.Unlink."""
    parent, attr = _need_name(db, op.parent, op.name)
    protection.check_old_name(parent, attr)
    if rows.is_directory(attr):
        raise IsDirectory(f"{op.name!r} is a directory")
    remove_dentry(db, op.parent, op.name)
    effects.name(op.parent, op.name)
    return [
        drop_name(db, attr, now_ns, effects, held=may_be_held(op, attr)),
        rows.touch(db, op.parent, now_ns),
    ]


def rmdir(db: Database, op: RmDir, now_ns: int, effects: Effects) -> list[Attr]:
    """Remove an empty directory; see operations.RmDir."""
    parent, attr = _need_name(db, op.parent, op.name)
    protection.check_old_name(parent, attr)
    if not rows.is_directory(attr):
        raise NotDirectory(f"{op.name!r} is not a directory")
    check_empty(db, attr.inode)
    remove_dentry(db, op.parent, op.name)
    effects.name(op.parent, op.name)
    return [
        drop_name(db, attr, now_ns, effects, held=False),
        rows.touch(db, op.parent, now_ns, -1),
    ]


def _need_name(db: Database, parent: int, name: bytes) -> tuple[Attr, Attr]:
    directory, attr = rows.find_alive(db, parent, name)
    if attr is None:
        raise NoEntry(f"no {name!r} in directory {parent}")
    return directory, attr
