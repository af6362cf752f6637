"""System calls that Python does not offer."""

from __future__ import annotations

import ctypes
import fcntl
import os
import struct
from pathlib import Path

RENAME_NOREPLACE, RENAME_EXCHANGE = 1, 2
KEEP_SIZE, PUNCH_HOLE, ZERO_RANGE = 1, 2, 16
UTIME_NOW, UTIME_OMIT = (1 << 30) - 1, (1 << 30) - 2
F_OFD_GETLK, F_OFD_SETLK = 36, 37
AT_SYMLINK_NOFOLLOW = 0x100
STATX_BASIC_STATS = 0x7FF
_AT_FDCWD = -100
_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]


def rename_with_flags(old: Path, new: Path, flags: int) -> None:
    """renameat2(2).  Raises OSError."""
    if _libc.renameat2(_AT_FDCWD, bytes(old), _AT_FDCWD, bytes(new), ctypes.c_uint(flags)):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), str(old), None, str(new))


def fallocate(descriptor: int, mode: int, offset: int, length: int) -> None:
    """fallocate(2).  Raises OSError."""
    if _libc.fallocate(descriptor, mode, offset, length):
        code = ctypes.get_errno()
        raise OSError(code, f"fallocate: {os.strerror(code)}")


class _Statx(ctypes.Structure):
    """struct statx, as far as the fields go that are asked for here."""

    _fields_ = [
        ("mask", ctypes.c_uint32),
        ("blksize", ctypes.c_uint32),
        ("attributes", ctypes.c_uint64),
        ("nlink", ctypes.c_uint32),
        ("uid", ctypes.c_uint32),
        ("gid", ctypes.c_uint32),
        ("mode", ctypes.c_uint16),
        ("spare", ctypes.c_uint16),
        ("inode", ctypes.c_uint64),
        ("size", ctypes.c_uint64),
        ("rest", ctypes.c_ubyte * 208),
    ]


def statx(path: Path) -> dict[str, int]:
    """statx(2), following no link: nlink, uid, gid, mode and size.  Raises OSError."""
    result = _Statx()
    if _libc.statx(
        _AT_FDCWD, bytes(path), AT_SYMLINK_NOFOLLOW, STATX_BASIC_STATS, ctypes.byref(result)
    ):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), str(path))
    return {name: getattr(result, name) for name in ("nlink", "uid", "gid", "mode", "size")}


def set_times(path: Path, atime_ns: int, mtime_ns: int) -> None:
    """utimensat(2), following no link; the times may be UTIME_NOW or UTIME_OMIT."""
    times = (ctypes.c_int64 * 4)(*_timespec(atime_ns), *_timespec(mtime_ns))
    if _libc.utimensat(_AT_FDCWD, bytes(path), times, AT_SYMLINK_NOFOLLOW):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), str(path))


def _timespec(time_ns: int) -> tuple[int, int]:
    return (0, time_ns) if time_ns in (UTIME_NOW, UTIME_OMIT) else divmod(time_ns, 10**9)


def open_lock(descriptor: int, kind: int, start: int, length: int) -> None:
    """fcntl(2) with F_OFD_SETLK: a lock that belongs to the open file.  Raises OSError."""
    lock = struct.pack("hhqqi4x", kind, os.SEEK_SET, start, length, 0)
    fcntl.fcntl(descriptor, F_OFD_SETLK, lock)


def open_lock_holder(descriptor: int, kind: int, start: int, length: int) -> tuple[int, int, int]:
    """F_OFD_GETLK: (kind, start, length) of a lock in the way; F_UNLCK when there is none."""
    lock = struct.pack("hhqqi4x", kind, os.SEEK_SET, start, length, 0)
    found, _, at, size, _ = struct.unpack("hhqqi4x", fcntl.fcntl(descriptor, F_OFD_GETLK, lock))
    return (found, 0, 0) if found == fcntl.F_UNLCK else (found, at, size)
