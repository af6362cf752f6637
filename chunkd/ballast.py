"""A little room in each data directory that is given up when its disk is full.

A start must be counted on disk before a server says anything (identity.py), and whatever else
shares the file system may have filled it: then the file DISK/ballast goes, the start is counted in
its room, and the ballast is made again.  So a server whose disk is full starts, serves what it has,
and can delete.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path

from chunkd.diskhealth import is_full
from chunkd.filesystem import FileSystem

log = logging.getLogger(__name__)

NAME = "ballast"
TEMPORARY = "ballast.tmp"
SIZE_BYTES = 64 << 10  # some blocks of any file system, and of its directories


def take(root: Path, files: FileSystem) -> None:
    """Have it there, if the disk has room for it.  Raises OSError."""
    if files.exists(root / NAME):
        return
    try:
        _write(root, files)
    except OSError as problem:
        if not is_full(problem):
            raise
        log.warning("no room for the ballast of %s: the disk is full", root)
        if files.exists(root / TEMPORARY):
            files.unlink(root / TEMPORARY)


def give_up(root: Path, files: FileSystem) -> bool:
    """Make a little room.  False when there was no ballast any more.  Raises OSError."""
    # An unfinished one is what a server leaves that dies while it makes it again.
    found = [name for name in (NAME, TEMPORARY) if files.exists(root / name)]
    if not found:
        return False
    log.warning("the disk of %s is full: its ballast is given up", root)
    for name in found:
        files.unlink(root / name)
    files.fsync_directory(root)
    return True


def _write(root: Path, files: FileSystem) -> None:
    fd = files.open(root / TEMPORARY, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    try:
        # Not zeros: some file systems would store nothing.
        files.write(fd, [os.urandom(SIZE_BYTES)])
        files.fsync(fd)
    finally:
        files.close(fd)
    files.rename(root / TEMPORARY, root / NAME)
    files.fsync_directory(root)
