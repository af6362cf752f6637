"""The rows of the coherence promise about attributes and sizes; used like those of coherent.py."""

from __future__ import annotations

import fcntl
import os
import struct
from collections.abc import Callable

from dfsmount.lowlevel.operations import GETFLAGS, SETFLAGS
from dfswire.operations import FS_NODUMP
from tests.syscalls import fallocate
from tests.t4_mount.coherent import Row, Scene

ACL = "system.posix_acl_access"
LARGE = 100_000  # more than a file that lives in metadata


def chmod(at: Scene) -> Row:
    (at.a / "f").touch()
    return Row(
        lambda: (at.b / "f").stat().st_mode & 0o7777, lambda: (at.a / "f").chmod(0o640), 0o640
    )


def chown(at: Scene) -> Row:
    (at.a / "f").touch()

    def owner() -> tuple[int, int]:
        seen = (at.b / "f").stat()
        return seen.st_uid, seen.st_gid

    return Row(owner, lambda: os.chown(at.a / "f", 5, 6), (5, 6))


def utimens(at: Scene) -> Row:
    (at.a / "f").touch()

    def times() -> tuple[int, int]:
        seen = (at.b / "f").stat()
        return seen.st_atime_ns, seen.st_mtime_ns

    return Row(times, lambda: os.utime(at.a / "f", ns=(1, 2_000_000_003)), (1, 2_000_000_003))


def xattr_set(at: Scene) -> Row:
    (at.a / "f").touch()
    return Row(
        lambda: os.listxattr(at.b / "f"),
        lambda: os.setxattr(at.a / "f", "user.x", b"1"),
        ["user.x"],
    )


def xattr_replaced(at: Scene) -> Row:
    (at.a / "f").touch()
    os.setxattr(at.a / "f", "user.x", b"1")
    return Row(
        lambda: os.getxattr(at.b / "f", "user.x"),
        lambda: os.setxattr(at.a / "f", "user.x", b"2"),
        b"2",
    )


def xattr_removed(at: Scene) -> Row:
    (at.a / "f").touch()
    os.setxattr(at.a / "f", "user.x", b"1")
    return Row(lambda: os.listxattr(at.b / "f"), lambda: os.removexattr(at.a / "f", "user.x"), [])


def access_list_set(at: Scene) -> Row:
    """Needs mounts with ACLs, as the next one does."""
    (at.a / "f").touch()
    return Row(
        lambda: os.listxattr(at.b / "f"), lambda: os.setxattr(at.a / "f", ACL, _acl(6)), [ACL]
    )


def access_list_replaced(at: Scene) -> Row:
    (at.a / "f").touch()
    os.setxattr(at.a / "f", ACL, _acl(6))
    return Row(
        lambda: os.getxattr(at.b / "f", ACL),
        lambda: os.setxattr(at.a / "f", ACL, _acl(4)),
        _acl(4),
    )


def links_of_a_file(at: Scene) -> Row:
    (at.a / "f").touch()
    return Row(lambda: (at.b / "f").stat().st_nlink, lambda: os.link(at.a / "f", at.a / "g"), 2)


def links_of_a_file_whose_other_name_goes(at: Scene) -> Row:
    (at.a / "f").touch()
    os.link(at.a / "f", at.a / "g")
    return Row(lambda: (at.b / "f").stat().st_nlink, (at.a / "g").unlink, 1)


def links_of_a_directory(at: Scene) -> Row:
    (at.a / "d").mkdir()
    return Row(lambda: (at.b / "d").stat().st_nlink, (at.a / "d" / "e").mkdir, 3)


def time_of_a_directory(at: Scene) -> Row:
    (at.a / "d").mkdir()
    os.utime(at.a / "d", (1, 1))

    def is_old() -> bool:
        return (at.b / "d").stat().st_mtime == 1

    return Row(is_old, (at.a / "d" / "f").touch, False)


def inode_flags(at: Scene) -> Row:
    (at.a / "f").touch()
    there, here = at.opened(at.b / "f"), at.opened(at.a / "f")

    def flags(descriptor: int) -> int:
        (found,) = struct.unpack("L", fcntl.ioctl(descriptor, GETFLAGS, bytes(8)))
        return int(found) & FS_NODUMP

    return Row(
        lambda: flags(there),
        lambda: fcntl.ioctl(here, SETFLAGS, struct.pack("L", FS_NODUMP)),
        FS_NODUMP,
    )


# Sizes


def size_by_write_without_close(at: Scene) -> Row:
    (at.a / "f").write_bytes(b"1")
    writer = at.opened(at.a / "f", os.O_WRONLY)
    return Row(_size(at), lambda: os.pwrite(writer, bytes(LARGE), 0), LARGE)


def size_by_append_without_close(at: Scene) -> Row:
    (at.a / "f").write_bytes(b"1")
    writer = at.opened(at.a / "f", os.O_WRONLY | os.O_APPEND)
    return Row(_size(at), lambda: os.write(writer, b"23"), 3)


def size_by_truncate_down(at: Scene) -> Row:
    (at.a / "f").write_bytes(bytes(LARGE))
    return Row(_size(at), lambda: os.truncate(at.a / "f", 7), 7)


def size_by_truncate_up(at: Scene) -> Row:
    (at.a / "f").write_bytes(b"1")
    return Row(_size(at), lambda: os.truncate(at.a / "f", LARGE), LARGE)


def size_by_open_with_truncation(at: Scene) -> Row:
    (at.a / "f").write_bytes(b"1")
    return Row(_size(at), lambda: at.opened(at.a / "f", os.O_WRONLY | os.O_TRUNC), 0)


def size_by_fallocate(at: Scene) -> Row:
    (at.a / "f").write_bytes(b"1")
    writer = at.opened(at.a / "f", os.O_RDWR)
    return Row(_size(at), lambda: fallocate(writer, 0, 0, LARGE), LARGE)


def _acl(rights: int) -> bytes:
    """u::rw-, u:7:rights, g::r--, m::rw-, o::---: linux/posix_acl_xattr.h."""
    nobody = 0xFFFFFFFF
    entries = ((1, 6, nobody), (2, rights, 7), (4, 4, nobody), (16, 6, nobody), (32, 0, nobody))
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


def _size(at: Scene) -> Callable[[], int]:
    return lambda: (at.b / "f").stat().st_size


ATTRIBUTES = (
    chmod,
    chown,
    utimens,
    xattr_set,
    xattr_replaced,
    xattr_removed,
    links_of_a_file,
    links_of_a_file_whose_other_name_goes,
    links_of_a_directory,
    time_of_a_directory,
    inode_flags,
)
SIZES = (
    size_by_write_without_close,
    size_by_append_without_close,
    size_by_truncate_down,
    size_by_truncate_up,
    size_by_open_with_truncation,
    size_by_fallocate,
)
ACCESS_LISTS = (access_list_set, access_list_replaced)
