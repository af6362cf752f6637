"""Handlers of the operations that pyfuse3 does not have: locks, holes, copies, inode flags.

Each converts, calls the vfs, and answers through the library.  The library calls `start` for each
request, in the middle of pyfuse3's loop; the work happens in a task of its own.  Every request is
answered exactly once, also when the mount ends while it is under way.
"""

from __future__ import annotations

import errno
import struct
import sys
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from fcntl import LOCK_EX, LOCK_NB, LOCK_SH, LOCK_UN
from typing import Any, Protocol

import trio

from dfsmount.lowlevel.library import Call, Kind
from dfsmount.lowlevel.requests import Requests, UnderWay, errno_of
from dfsmount.operationwatch import CANCELLED, OK, OperationWatch, outcome_of
from dfsmount.vfs import Vfs
from dfswire.errors import DFSError, NotSupported
from dfswire.locks import LOCK_END_MAX, LockType, Range
from dfswire.operations import FS_APPEND, FS_IMMUTABLE, FS_NOATIME, FS_NODUMP

KINDS = set(Kind)

FLOCK_TYPES = {LOCK_SH: LockType.READ, LOCK_EX: LockType.WRITE, LOCK_UN: LockType.UNLOCK}

# ioctl commands of linux/fs.h.  The kernel asks for these by itself where a program uses the system
# calls file_getattr(2) and file_setattr(2), and passes the flags in 4 bytes, not in a long.
GETFLAGS, SETFLAGS = 0x80086601, 0x40086602
FSGETXATTR, FSSETXATTR = 0x801C581F, 0x401C5820
FSXATTR = struct.Struct("=IIIII8x")  # xflags, extsize, nextents, projid, cowextsize
XFLAGS = {  # FS_XFLAG_* and what they are called elsewhere
    0x08: FS_IMMUTABLE,
    0x10: FS_APPEND,
    0x40: FS_NOATIME,
    0x80: FS_NODUMP,
}


class Replies(Protocol):
    """What is needed of the library."""

    def reply_error(self, call: Call, error: int) -> None: ...

    def reply_count(self, call: Call, count: int) -> None: ...

    def reply_offset(self, call: Call, offset: int) -> None: ...

    def reply_ioctl(self, call: Call, data: bytes) -> None: ...

    def reply_lock(self, call: Call, kind: int, start: int, length: int, pid: int) -> None: ...


@dataclass(frozen=True)
class _Work:
    """What a call asks for, how its result is told, and when it may be given up half-way.

    A lock that is asked for may, since either it is had or it is not.
    """

    result: Callable[[Call], Coroutine[Any, Any, Any]]
    reply: Callable[[Call, Any], None]
    changes: bool = True
    waits: bool = False  # for other processes


class Operations:
    """The handlers on a Vfs."""

    def __init__(
        self,
        vfs: Vfs,
        library: Replies,
        requests: Requests,
        watch: OperationWatch | None = None,
    ) -> None:
        self._watch = watch or OperationWatch()
        self._vfs = vfs
        self._library = library
        self._requests = requests
        self._works = {
            Kind.GETLK: _Work(self._get_lock, self._reply_lock, changes=False),
            Kind.LSEEK: _Work(self._lseek, library.reply_offset, changes=False),
            Kind.FALLOCATE: _Work(self._fallocate, library.reply_error),
            Kind.COPY_FILE_RANGE: _Work(self._copy_file_range, library.reply_count),
        }
        self._ioctls = {
            GETFLAGS: _Work(self._get_flags, library.reply_ioctl, changes=False),
            SETFLAGS: _Work(self._set_flags, library.reply_ioctl),
            FSGETXATTR: _Work(self._get_xflags, library.reply_ioctl, changes=False),
            FSSETXATTR: _Work(self._set_xflags, library.reply_ioctl),
        }

    def start(self, call: Call) -> None:
        """Begin with a call.  From here on its caller can be interrupted."""
        work = self._work(call)
        if work is None:
            self._library.reply_error(call, errno.ENOTTY)
            return
        scope = None if work.changes else trio.CancelScope()
        request = self._requests.admit(call, scope, any_signal=work.waits)
        assert self._requests.nursery is not None
        self._requests.nursery.start_soon(self._serve, call, work, request)

    def _work(self, call: Call) -> _Work | None:
        """Nothing for an ioctl that is not known."""
        if call.kind == Kind.IOCTL:
            return self._ioctls.get(call.command)
        if call.kind == Kind.SETLK:
            unlocks = call.lock_type == LockType.UNLOCK
            waits = bool(call.argument) and not unlocks
            return _Work(self._set_lock, self._library.reply_error, changes=unlocks, waits=waits)
        if call.kind == Kind.FLOCK:
            unlocks = bool(call.argument & LOCK_UN)
            waits = not (call.argument & LOCK_NB or unlocks)
            return _Work(self._flock, self._library.reply_error, changes=unlocks, waits=waits)
        return self._works[Kind(call.kind)]

    async def _serve(self, call: Call, work: _Work, request: UnderWay) -> None:
        name = Kind(call.kind).name.lower()
        began_s, outcome = self._watch.begin(), CANCELLED
        try:
            if work.changes:
                result = await self._requests.change(work.result(call), request=request)
            else:
                result = await self._requests.ask(work.result(call), request)
        except DFSError as problem:
            number = errno_of(name, problem)
            outcome = outcome_of(number)
            self._library.reply_error(call, number)
        except BaseException:  # the mount ends
            self._library.reply_error(call, errno.EIO)
            raise
        else:
            outcome = OK
            work.reply(call, result)
        finally:
            self._watch.end(name, outcome, began_s)

    # Locks

    async def _get_lock(self, call: Call) -> Range | None:
        return await self._vfs.get_lock(call.inode, call.owner, _range(call))

    def _reply_lock(self, call: Call, found: Range | None) -> None:
        if found is None:
            self._library.reply_lock(call, LockType.UNLOCK, 0, 0, 0)
        else:
            length = 0 if found.end == LOCK_END_MAX else found.end - found.start + 1
            self._library.reply_lock(call, found.type, found.start, length, found.pid)

    async def _set_lock(self, call: Call) -> int:
        wait = bool(call.argument)
        await self._vfs.set_lock(call.handle, call.owner, call.lock_pid, _range(call), wait)
        return 0

    async def _flock(self, call: Call) -> int:
        kind = FLOCK_TYPES[call.argument & ~LOCK_NB]
        wait = not call.argument & LOCK_NB
        await self._vfs.flock(call.handle, call.owner, kind, wait, call.pid)
        return 0

    # Ranges

    async def _lseek(self, call: Call) -> int:
        return await self._vfs.seek(call.handle, call.offset, call.argument)

    async def _fallocate(self, call: Call) -> int:
        await self._vfs.fallocate(call.handle, call.argument, call.offset, call.length)
        return 0

    async def _copy_file_range(self, call: Call) -> int:
        return await self._vfs.copy_range(
            call.handle, call.offset, call.handle_out, call.offset_out, call.length
        )

    # Inode flags

    async def _get_flags(self, call: Call) -> bytes:
        flags = await self._vfs.get_flags(call.inode)
        return flags.to_bytes(call.reply_room_bytes, sys.byteorder)

    async def _set_flags(self, call: Call) -> bytes:
        await self._vfs.set_flags(call.inode, int.from_bytes(call.data, sys.byteorder))
        return b""

    async def _get_xflags(self, call: Call) -> bytes:
        flags = await self._vfs.get_flags(call.inode)
        xflags = sum(xflag for xflag, flag in XFLAGS.items() if flags & flag)
        return FSXATTR.pack(xflags, 0, 0, 0, 0)

    async def _set_xflags(self, call: Call) -> bytes:
        xflags, extent_size, _, project, cow_extent_size = FSXATTR.unpack(call.data)
        if xflags & ~sum(XFLAGS) or extent_size or project or cow_extent_size:
            raise NotSupported(f"no projects or extent sizes, and none of the flags {xflags:#x}")
        others = await self._vfs.get_flags(call.inode) & ~sum(XFLAGS.values())
        flags = sum(flag for xflag, flag in XFLAGS.items() if xflags & xflag)
        await self._vfs.set_flags(call.inode, others | flags)
        return b""


def _range(call: Call) -> Range:
    end = call.offset + call.length - 1 if call.length else LOCK_END_MAX
    return Range(type=LockType(call.lock_type), start=call.offset, end=end)
