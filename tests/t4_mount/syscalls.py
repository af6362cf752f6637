"""System calls that Python does not offer."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

RENAME_NOREPLACE, RENAME_EXCHANGE = 1, 2
_AT_FDCWD = -100
_libc = ctypes.CDLL(None, use_errno=True)


def rename_with_flags(old: Path, new: Path, flags: int) -> None:
    """renameat2(2).  Raises OSError."""
    if _libc.renameat2(_AT_FDCWD, bytes(old), _AT_FDCWD, bytes(new), ctypes.c_uint(flags)):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), str(old), None, str(new))
