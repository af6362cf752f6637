"""From our types to the kernel's and back: attributes, figures, errors.

pyfuse3's types are made here, filled here and read here; fuse.py passes them on.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any, ParamSpec, Protocol, TypeVar, cast

from dfsmount.lowlevel.requests import errno_of  # isort: split

import pyfuse3
from pyfuse3 import FUSEError

from dfsmount.operationwatch import CANCELLED, OK, OperationWatch, outcome_of
from dfswire.errors import DFSError, NoEntry, Stale
from dfswire.messages import BLOCK_SIZE_BYTES, NAME_MAX_BYTES, Attr
from dfswire.metadata import StatfsReply
from dfswire.operations import SetAttr

P = ParamSpec("P")
T = TypeVar("T")
Handler = TypeVar("Handler", bound=Callable[..., Coroutine[Any, Any, Any]])

STATFS_BLOCK_BYTES = 4096


class Watched(Protocol):
    """Whose methods are handlers."""

    watch: OperationWatch


def speaks_errno(handler: Handler) -> Handler:
    """The one place where an error of ours becomes the kernel's, and operations are counted."""
    name = handler.__name__

    @wraps(handler)
    async def wrapped(self: Watched, *args: Any) -> Any:
        began_s, outcome = self.watch.begin(), CANCELLED
        try:
            answer = await handler(self, *args)
            outcome = OK
            return answer
        except DFSError as problem:
            number = errno_of(name, problem)
            outcome = outcome_of(number)
            raise FUSEError(number) from problem
        except FUSEError as problem:
            outcome = outcome_of(problem.errno)
            raise
        finally:
            self.watch.end(name, outcome, began_s)

    return cast(Handler, wrapped)


def given_inode(
    handler: Callable[P, Coroutine[Any, Any, T]],
) -> Callable[P, Coroutine[Any, Any, T]]:
    """For handlers that the kernel calls with the inode at the end of a path that it has walked.

    When that inode is gone, its name was removed or given to another inode meanwhile, and ENOENT
    would be a lie in the second case: rename(2) promises that the name is always there.  ESTALE
    makes the kernel walk the path once more, asking for every name.
    """

    @wraps(handler)
    async def wrapped(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return await handler(*args, **kwargs)
        except NoEntry as problem:
            raise Stale(str(problem)) from problem

    return wrapped


def entry_attributes(attr: Attr, timeout_s: float) -> pyfuse3.EntryAttributes:
    """Attributes that the kernel may believe for so long, without a name."""
    entry = pyfuse3.EntryAttributes()
    entry.st_ino, entry.generation = attr.inode, attr.generation
    entry.st_mode, entry.st_nlink = attr.mode, attr.nlink
    entry.st_uid, entry.st_gid, entry.st_rdev = attr.uid, attr.gid, attr.rdev
    entry.st_size, entry.st_blksize = attr.size, BLOCK_SIZE_BYTES
    entry.st_blocks = -(-attr.allocated_bytes // 512)
    entry.st_atime_ns, entry.st_mtime_ns = attr.atime_ns, attr.mtime_ns
    entry.st_ctime_ns = attr.ctime_ns
    entry.attr_timeout, entry.entry_timeout = timeout_s, 0.0
    return entry


def no_entry(timeout_s: float) -> pyfuse3.EntryAttributes:
    """The kernel may remember for so long that there is none: inode 0."""
    entry = pyfuse3.EntryAttributes()
    entry.st_ino, entry.entry_timeout = 0, timeout_s
    return entry


def set_attr(inode: int, attr: pyfuse3.EntryAttributes, fields: pyfuse3.SetattrFields) -> SetAttr:
    """The change that the kernel asks for."""
    return SetAttr(
        inode=inode,
        mode=attr.st_mode if fields.update_mode else None,
        uid=attr.st_uid if fields.update_uid else None,
        gid=attr.st_gid if fields.update_gid else None,
        size=attr.st_size if fields.update_size else None,
        atime_ns=attr.st_atime_ns if fields.update_atime else None,
        mtime_ns=attr.st_mtime_ns if fields.update_mtime else None,
    )


def statvfs(figures: StatfsReply) -> pyfuse3.StatvfsData:
    data = pyfuse3.StatvfsData()
    data.f_bsize = data.f_frsize = STATFS_BLOCK_BYTES
    data.f_blocks = figures.total_bytes // STATFS_BLOCK_BYTES
    data.f_bfree = data.f_bavail = figures.free_bytes // STATFS_BLOCK_BYTES
    data.f_files = figures.inodes
    data.f_ffree = data.f_favail = figures.inodes_free
    data.f_namemax = NAME_MAX_BYTES
    return data
