"""The extents of files: laying new ones over old ones, cutting what goes, sharing with other files.

chunkmap.commit, ranges.py, attributes.setattr_ and the purge of an inode use it.  Whatever they do,
extents of an inode never overlap, inode.allocated_bytes is their sum, chunk.refs counts them, and a
chunk that loses its last one is dead from `now_ns`.  Runs in the caller's transaction.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from dfswire.messages import FILE_MAX_BYTES, Extent
from metad.copies import policies
from metad.storage.database import Database
from metad.storage.statements import Row

# The second term finds the one extent that may start before the range and reach into it.
_OVERLAPPING = (
    "inode = ?1 AND offset < ?3 AND offset + length > ?2 AND offset >= coalesce("
    "(SELECT max(offset) FROM extent WHERE inode = ?1 AND offset <= ?2), ?2)"
)
_SELECT = (
    "SELECT id, offset, length, chunk, chunk_offset, data FROM extent "
    f"WHERE {_OVERLAPPING} ORDER BY offset"
)
_INSERT = (
    "INSERT INTO extent (inode, offset, length, chunk, chunk_offset, data) "
    "VALUES (?, ?, ?, ?, ?, ?)"
)
_REFER = (
    "UPDATE chunk SET refs = refs + ?1, "
    "state = CASE WHEN refs + ?1 = 0 THEN 'dead' ELSE state END, "
    "dead_since_ns = CASE WHEN refs + ?1 = 0 THEN ?2 ELSE dead_since_ns END WHERE id = ?3"
)
_WITHIN = "FROM extent WHERE inode = ?1 AND offset BETWEEN ?2 AND ?3 - 1 AND offset + length <= ?3"
_NAMED_WITHIN = (
    f"(SELECT chunk AS named, count(*) AS n {_WITHIN} AND chunk IS NOT NULL GROUP BY chunk)"
)
_DEREFER_WITHIN = (
    "UPDATE chunk SET refs = refs - n, "
    "state = CASE WHEN refs = n THEN 'dead' ELSE state END, "
    "dead_since_ns = CASE WHEN refs = n THEN ?4 ELSE dead_since_ns END "
    f"FROM {_NAMED_WITHIN} WHERE id = named"
)
_REFER_WITHIN = f"UPDATE chunk SET refs = refs + n FROM {_NAMED_WITHIN} WHERE id = named"
# ?1 is the source, [?2, ?3) its range, ?4 where that goes in ?5.
_COPY = (
    "INSERT INTO extent (inode, offset, length, chunk, chunk_offset, data) "
    "SELECT ?5, max(offset, ?2) - ?2 + ?4, min(offset + length, ?3) - max(offset, ?2), chunk, "
    "iif(chunk IS NULL, 0, chunk_offset + max(?2 - offset, 0)), "
    "substr(data, max(?2 - offset, 0) + 1, min(offset + length, ?3) - max(offset, ?2)) "
    f"FROM extent WHERE {_OVERLAPPING} ORDER BY offset"
)


def extents_between(db: Database, inode: int, start: int, end: int) -> list[Extent]:
    """The extents that touch [start, end), whole ones, in file order."""
    return [
        Extent(offset=offset, length=length, data=data)
        if chunk is None
        else Extent(offset=offset, length=length, chunk=chunk, chunk_offset=chunk_offset)
        for _id, offset, length, chunk, chunk_offset, data in db.read(_SELECT, (inode, start, end))
    ]


def allocated_between(db: Database, inode: int, start: int, end: int) -> int:
    """How many bytes of [start, end) extents cover."""
    ((count,),) = db.read(
        "SELECT coalesce(sum(min(offset + length, ?3) - max(offset, ?2)), 0) FROM extent "
        f"WHERE {_OVERLAPPING}",
        (inode, start, end),
    )
    return int(count)


def nth_offset(db: Database, inode: int, start: int, count: int) -> int | None:
    """Where the extent begins that has `count` others between `start` and itself."""
    row = db.read_one(
        "SELECT offset FROM extent WHERE inode = ? AND offset >= ? "
        "ORDER BY offset LIMIT 1 OFFSET ?",
        (inode, start, count),
    )
    return None if row is None else int(row[0])


def lay_extents(db: Database, inode: int, extents: Iterable[Extent], now_ns: int) -> None:
    """Lay extents over the file, in order, trimming or splitting what was there.

    Their chunks must be live rows; the file's size is the caller's business.
    """
    refs: Counter[bytes] = Counter()
    grown = 0
    for extent in extents:
        grown -= _cut(db, inode, extent.offset, extent.offset + extent.length, refs)
        grown += extent.length
        _insert(
            db, inode, extent.offset, extent.length, extent.chunk, extent.chunk_offset, extent.data
        )
        if extent.chunk:
            refs[extent.chunk] += 1
    _settle(db, inode, grown, refs, now_ns)


def truncate_extents(db: Database, inode: int, size: int, now_ns: int) -> None:
    """Forget the bytes from `size` on; a file that grows again later has a hole there."""
    cut_extents(db, inode, size, FILE_MAX_BYTES, now_ns)


def cut_extents(db: Database, inode: int, start: int, end: int, now_ns: int) -> None:
    """Forget the bytes in [start, end): a hole is left.

    Whole extents go by a few statements for all of them, because a big file has very many.
    """
    within = (inode, start, end)
    removed = _bytes_within(db, inode, start, end)
    if removed:
        db.change(_DEREFER_WITHIN, (*within, now_ns))
        db.change(f"DELETE {_WITHIN}", within)
    refs: Counter[bytes] = Counter()  # of a chunk cut in two; one that is trimmed is still named
    removed += _cut(db, inode, start, end, refs)
    _settle(db, inode, -removed, refs, now_ns)


def copy_extents(
    db: Database, source: int, start: int, end: int, inode: int, offset: int, now_ns: int
) -> None:
    """Let [start, end) of `source` be at `offset` of `inode` as well, in place of what was there.

    Chunks are shared, inline bytes copied.  In one file the two ranges must not overlap.  By a few
    statements for all extents (measured: 4 GiB, 1,024 extents, in 10 to 40 ms).
    """
    copied = offset + end - start
    cut_extents(db, inode, offset, copied, now_ns)
    if db.change(_COPY, (source, start, end, offset, inode)):
        db.change(_REFER_WITHIN, (inode, offset, copied))
        _settle(db, inode, _bytes_within(db, inode, offset, copied), Counter(), now_ns)
        policies.linked(db, inode)


def _bytes_within(db: Database, inode: int, start: int, end: int) -> int:
    ((count,),) = db.read(f"SELECT coalesce(sum(length), 0) {_WITHIN}", (inode, start, end))
    return int(count)


def _cut(db: Database, inode: int, start: int, end: int, refs: Counter[bytes]) -> int:
    """Clear [start, end) of extents; note changes of references; the bytes it removed."""
    removed = 0
    for row in db.read(_SELECT, (inode, start, end)):
        removed += _cut_one(db, inode, row, start, end, refs)
    return removed


def _cut_one(db: Database, inode: int, row: Row, start: int, end: int, refs: Counter[bytes]) -> int:
    number, offset, length, chunk, chunk_offset, data = row
    before = max(start - offset, 0)
    after = max(offset + length - end, 0)
    if before:
        db.change(
            "UPDATE extent SET length = ?, data = ? WHERE id = ?",
            (before, None if data is None else data[:before], number),
        )
    else:
        db.change("DELETE FROM extent WHERE id = ?", (number,))
    if after:
        skipped = length - after
        _insert(
            db,
            inode,
            end,
            after,
            chunk,
            0 if chunk is None else chunk_offset + skipped,
            None if data is None else data[skipped:],
        )
    if chunk is not None:
        refs[chunk] += bool(before) + bool(after) - 1
    return int(length - before - after)


def _insert(
    db: Database,
    inode: int,
    offset: int,
    length: int,
    chunk: bytes | None,
    chunk_offset: int,
    data: bytes | None,
) -> None:
    inline = not chunk
    db.change(
        _INSERT,
        (
            inode,
            offset,
            length,
            None if inline else chunk,
            0 if inline else chunk_offset,
            data if inline else None,
        ),
    )


def _settle(db: Database, inode: int, grown: int, refs: Counter[bytes], now_ns: int) -> None:
    if grown:
        db.change(
            "UPDATE inode SET allocated_bytes = allocated_bytes + ? WHERE inode = ?",
            (grown, inode),
        )
    db.change_many(_REFER, [(change, now_ns, chunk) for chunk, change in refs.items() if change])
