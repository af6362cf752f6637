"""Operations on ranges of a file that move no bytes: fallocate, copy_file_range, SEEK_DATA.

The same shape as namespace.py: synchronous, in the caller's transaction.  Whatever the size of the
range, a few statements do it (extents.py), for metad serves nobody else meanwhile.
"""

from __future__ import annotations

from dfswire.errors import (
    FileTooBig,
    Invalid,
    IsDirectory,
    NoData,
    NoSpace,
    NotSupported,
)
from dfswire.messages import FILE_MAX_BYTES, Attr
from dfswire.metadata import SEEK_DATA, SEEK_HOLE
from dfswire.operations import (
    FALLOC_KEEP_SIZE,
    FALLOC_PUNCH_HOLE,
    FALLOC_ZERO_RANGE,
    CopyRange,
    Fallocate,
)
from metad.names import protection, rows
from metad.names.effects import Effects
from metad.names.extents import allocated_between, copy_extents, cut_extents, nth_offset
from metad.storage.database import Database

# Of one CopyRange, which is short then.  Measured: so many take 170 ms.
COPY_EXTENTS_MAX = 16_384

_MODES = {
    0,
    FALLOC_KEEP_SIZE,
    FALLOC_PUNCH_HOLE | FALLOC_KEEP_SIZE,
    FALLOC_ZERO_RANGE,
    FALLOC_ZERO_RANGE | FALLOC_KEEP_SIZE,
}
# The end of the first extent from ?2 on that no other one adjoins.  (?2 is where an extent starts.)
_END_OF_RUN = (
    "SELECT offset + length FROM extent e WHERE inode = ?1 AND offset >= ?2 AND NOT EXISTS "
    "(SELECT 1 FROM extent n WHERE n.inode = ?1 AND n.offset = e.offset + e.length) "
    "ORDER BY offset LIMIT 1"
)


def fallocate(
    db: Database, op: Fallocate, free_bytes: int, now_ns: int, effects: Effects
) -> list[Attr]:
    """Preallocate, punch a hole, zero a range; see operations.Fallocate.

    Room is promised to nobody: preallocation only looks whether there are `free_bytes` enough, for
    what the range does not have yet.
    """
    attr = _need_contents(db, op.inode)
    end = op.offset + op.length
    if op.mode not in _MODES:
        raise NotSupported(f"fallocate mode {op.mode:#x}")
    if end > FILE_MAX_BYTES:
        raise FileTooBig(f"{end} is more than the largest file, {FILE_MAX_BYTES}")
    if op.mode & ~FALLOC_KEEP_SIZE:
        protection.check_change(attr)
        cut_extents(db, op.inode, op.offset, end, now_ns)
    else:
        protection.check_append(attr, attr.size)
        missing = op.length - allocated_between(db, op.inode, op.offset, end)
        if missing > free_bytes:
            raise NoSpace(f"{missing} bytes are wanted, {free_bytes} are free")
    size = attr.size if op.mode & FALLOC_KEEP_SIZE else max(attr.size, end)
    effects.data(op.inode)
    return [rows.update(db, op.inode, {"size": size, "mtime_ns": now_ns, "ctime_ns": now_ns})]


def copy_range(
    db: Database, op: CopyRange, now_ns: int, effects: Effects
) -> tuple[list[Attr], int]:
    """Share bytes of one file with another; see operations.CopyRange.  Also how many they are."""
    source, attr = _need_contents(db, op.source), _need_contents(db, op.inode)
    protection.check_change(attr)
    length = min(op.length, source.size - op.source_offset)
    if length <= 0:
        return [attr], 0
    if op.source == op.inode and abs(op.source_offset - op.offset) < length:
        raise Invalid(f"the ranges overlap in inode {op.inode}")
    if op.offset + length > FILE_MAX_BYTES:
        raise FileTooBig(f"files end at {FILE_MAX_BYTES} bytes")
    beyond = nth_offset(db, op.source, op.source_offset, COPY_EXTENTS_MAX)
    if beyond is not None:
        length = min(length, beyond - op.source_offset)
    end = op.source_offset + length
    copy_extents(db, op.source, op.source_offset, end, op.inode, op.offset, now_ns)
    effects.data(op.inode)
    times = {"mtime_ns": now_ns, "ctime_ns": now_ns}
    size = max(attr.size, op.offset + length)
    return [rows.update(db, op.inode, {"size": size, **times})], length


def seek(db: Database, inode: int, offset: int, whence: int) -> int:
    """Where data (or a hole) begins from `offset` on; there is a hole at the end of every file.

    Raises NoEntry, NoData (nothing before the end), Invalid, IsDirectory.
    """
    with db.snapshot():
        attr = _need_contents(db, inode)
        if whence not in (SEEK_DATA, SEEK_HOLE):
            raise Invalid(f"seek {whence}")
        if offset >= attr.size:
            raise NoData(f"inode {inode} ends at {attr.size}")
        start = _data_from(db, inode, offset)
        if whence == SEEK_HOLE:
            return offset if start != offset else _end_of_run(db, attr, offset)
        if start is None:
            raise NoData(f"inode {inode} has no data from {offset} on")
        return start


def _data_from(db: Database, inode: int, offset: int) -> int | None:
    row = db.read_one(
        "SELECT offset, length FROM extent WHERE inode = ? AND offset <= ? "
        "ORDER BY offset DESC LIMIT 1",
        (inode, offset),
    )
    if row is not None and row[0] + row[1] > offset:
        return offset
    return nth_offset(db, inode, offset, 0)


def _end_of_run(db: Database, attr: Attr, offset: int) -> int:
    if attr.allocated_bytes == attr.size:
        return attr.size  # there is no hole
    (start,) = db.read(
        "SELECT max(offset) FROM extent WHERE inode = ? AND offset <= ?", (attr.inode, offset)
    )[0]
    (end,) = db.read(_END_OF_RUN, (attr.inode, start))[0]
    return int(end)


def _need_contents(db: Database, inode: int) -> Attr:
    attr = rows.need(db, inode)
    if rows.is_directory(attr):
        raise IsDirectory(f"inode {inode} is a directory")
    if not rows.is_regular(attr):
        raise Invalid(f"inode {inode} has no contents")
    return attr
