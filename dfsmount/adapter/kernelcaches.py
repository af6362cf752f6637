"""What the kernel knows of a mount, and the notifications that make it forget.

`KernelCaches` is the `Kernel` of leases/kernel.py, which decides what is to be forgotten and when.
It counts the kernel's lookups, and writes its notifications to /dev/fuse by itself, because libfuse
has no function for some of them.
"""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Callable
from pathlib import Path

from dfsmount.adapter.nested import is_mounted_upon
from dfswire.messages import ROOT_INODE

FUSE_NOTIFY_INVAL_INODE = 2  # linux/fuse.h
FUSE_NOTIFY_INVAL_ENTRY = 3
FUSE_NOTIFY_INC_EPOCH = 8
FUSE_OUT_HEADER_BYTES = 16
FUSE_EXPIRE_ONLY = 1  # before Linux 6.2 the field was padding, and the entry is taken out
ATTRIBUTES_ONLY = -1  # as an offset: no pages


class KernelCaches:
    """The kernel's inodes and names, as far as this mount has told it of them."""

    def __init__(self) -> None:
        self._lookups: dict[int, int] = {}
        self._channel = -1
        self.device: int | None = None  # the file system's number, once it is mounted

    def attach(self) -> None:
        """To be called when pyfuse3 has opened the device; it does not tell how it is numbered.

        The copy is never closed: a notification from a thread that is late must not be written to
        whatever else has got the number by then.
        """
        opened = Path("/proc/self/fd")
        numbers = (int(entry.name) for entry in opened.iterdir() if _target(entry) == "/dev/fuse")
        self._channel = os.dup(next(numbers))

    def count(self, inode: int) -> None:
        """The kernel learns of an inode (once more)."""
        self._lookups[inode] = self._lookups.get(inode, 0) + 1

    def forget(self, inode: int, count: int) -> bool:
        """The kernel gives lookups back; True when it does not know the inode any more."""
        left = self._lookups.get(inode, 0) - count
        if left > 0:
            self._lookups[inode] = left
            return False
        self._lookups.pop(inode, None)
        return True

    def inodes(self) -> list[int]:
        return [ROOT_INODE, *self._lookups]

    def forget_inode(self, inode: int, data: bool) -> bool:
        return self._forget_range(inode, 0 if data else ATTRIBUTES_ONLY, 0)

    def forget_pages(self, inode: int, offset: int, end: int | None) -> bool:
        return self._forget_range(inode, offset, 0 if end is None else end - offset)

    def _forget_range(self, inode: int, offset: int, length: int) -> bool:
        """Attributes, and pages: `length` 0 is up to the end of the file.

        False when the kernel has been told of the inode, did not give it back, and does not know
        it: an answer that names an inode for the first time is taken in by the process that asked,
        when it runs again.  (Attributes of what it knows are safe: it compares fi->attr_version.)
        """
        body = struct.pack("=Qqq", inode, offset, length)
        known = _is_known(lambda: self._notify(FUSE_NOTIFY_INVAL_INODE, body))
        return known or inode not in self._lookups

    def expire_names(self) -> bool:
        """All entries are asked for again when they are next walked through (Linux 6.16).

        Unlike forget_name this waits for no operation in the directory, and is not to be done when
        something is mounted inside, see nested.py.
        """
        if self.device is None or is_mounted_upon(self.device):
            return False
        try:
            _is_known(lambda: self._notify(FUSE_NOTIFY_INC_EPOCH, b""))
        except OSError as problem:
            if problem.errno != errno.EINVAL:
                raise
            return False
        return True

    def forget_name(self, parent: int, name: bytes) -> None:
        """The entry expires: the next walk through it asks.

        pyfuse3.invalidate_entry would take it out of the tree, and every process in that directory
        would get ENOENT from getcwd(2) until somebody walks there by a path.
        """
        body = struct.pack("=QII", parent, len(name), FUSE_EXPIRE_ONLY) + name + b"\0"
        _is_known(lambda: self._notify(FUSE_NOTIFY_INVAL_ENTRY, body))

    def _notify(self, code: int, body: bytes) -> None:
        head = struct.pack("=IiQ", FUSE_OUT_HEADER_BYTES + len(body), code, 0)
        os.write(self._channel, head + body)


def _target(link: Path) -> str:
    try:
        return str(link.readlink())
    except FileNotFoundError:  # closed since, as the listing itself
        return ""


def _is_known(notify: Callable[[], object]) -> bool:
    """False when the kernel does not have what it is to forget."""
    try:
        notify()
    except OSError as problem:
        if problem.errno not in (errno.ENOENT, errno.ENOTCONN, errno.ENODEV):
            raise
        return problem.errno != errno.ENOENT
    return True
