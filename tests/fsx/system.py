"""What fsx asks of a file system, and what of it the file system does not have."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from tests.syscalls import KEEP_SIZE, PUNCH_HOLE, ZERO_RANGE, fallocate

MODES = {
    "allocate": 0,
    "allocate_keep": KEEP_SIZE,
    "punch": KEEP_SIZE | PUNCH_HOLE,
    "zero": ZERO_RANGE,
    "zero_keep": KEEP_SIZE | ZERO_RANGE,
}


def drop_caches() -> None:
    """Every clean page of this host goes, and every inode and name that nobody uses."""
    Path("/proc/sys/vm/drop_caches").write_text("3")


def missing_kinds(directory: Path) -> dict[str, str]:
    """The kinds of operations that the file system of `directory` does not have, and why."""
    missing: dict[str, str] = {}
    path = directory / "probe"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        os.write(descriptor, b"x" * 10_000)
        for kind, mode in MODES.items():
            try:
                fallocate(descriptor, mode, 0, 10_000)
            except OSError as problem:
                if problem.errno not in (errno.EOPNOTSUPP, errno.ENOSYS):
                    raise
                missing[kind] = str(problem.strerror)
        os.ftruncate(descriptor, 0)
        os.ftruncate(descriptor, 1 << 20)
        if _first_data(descriptor) is not None:
            missing["seek"] = "a hole is said to be data"  # what the kernel does for those without
        try:
            os.close(os.open(path, os.O_RDWR | os.O_DIRECT))
        except OSError as problem:
            missing["direct_read"] = missing["direct_write"] = str(problem.strerror)
    finally:
        os.close(descriptor)
        path.unlink()
    return missing


def _first_data(descriptor: int) -> int | None:
    try:
        return os.lseek(descriptor, 0, os.SEEK_DATA)
    except OSError as problem:
        if problem.errno != errno.ENXIO:
            raise
        return None
