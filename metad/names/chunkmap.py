"""File ranges -> extents -> chunks -> disks: what readers ask, and how written chunks join files.

Synchronous functions on the database, used by batches.py, the service and reclaim.  A chunk is
granted, then stored by the client on disks, then committed to a file; only then can anyone read it.
A commit takes only chunks that were granted to the same session and have not expired.  Redundancy
and the end of chunks are in replicas.py, trimming of extents in extents.py.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from dfswire.errors import Invalid, IsDirectory, NoEntry, UnknownChunk
from dfswire.messages import FILE_MAX_BYTES, INLINE_MAX_BYTES, Attr, Extent, WrittenChunk
from dfswire.operations import Commit
from metad.copies import policies, replicas
from metad.names import extents, protection, rows
from metad.names.effects import Effects
from metad.sessions import rows as sessions
from metad.storage.database import Database


class Place(NamedTuple):
    """A chunk's length, the disks with good replicas (none: lost for now), and its policy."""

    length: int
    disks: list[str]
    policy: int


Located = dict[bytes, Place]


def layout(db: Database, inode: int, offset: int, length: int) -> tuple[list[Extent], Located]:
    """The extents that touch the range, whole ones in file order, and where their chunks are.

    An inode without extents, unknown ones included, gives nothing.
    """
    with db.snapshot():
        found = extents.extents_between(db, inode, offset, min(offset + length, FILE_MAX_BYTES))
        chunks = {extent.chunk for extent in found if extent.chunk}
        return found, {chunk: _locate(db, chunk) for chunk in chunks}


def _locate(db: Database, chunk: bytes) -> Place:
    located = db.read(
        "SELECT length, policy, identity FROM chunk LEFT JOIN replica r ON r.chunk = id "
        "AND r.state = 'good' LEFT JOIN disk ON key = r.disk WHERE id = ? ORDER BY r.disk",
        (chunk,),
    )
    length, policy, _disk = located[0]
    return Place(length, [disk for *_, disk in located if disk is not None], policy)


def grant(
    db: Database, session: str, grants: Iterable[tuple[bytes, list[str]]], expires_ns: int
) -> None:
    """Let a session write new chunks, each to its disks, until a time.

    Raises SessionLost; DiskFailed for a disk that never registered.
    """
    sessions.acknowledged(db, session)
    for chunk, disks in grants:
        db.change(
            "INSERT INTO chunk (id, length, digest, state, refs, good, session, expires_ns) "
            "VALUES (?, 0, x'', 'granted', 0, 0, ?, ?)",
            (chunk, session, expires_ns),
        )
        db.change_many(
            "INSERT INTO replica (chunk, disk, state) VALUES (?, ?, 'granted')",
            [(chunk, replicas.disk_key(db, disk)) for disk in disks],
        )


def reserve(db: Database, chunk: bytes, disks: Iterable[str], expires_ns: int) -> None:
    """In a mutation: metad itself has a new chunk made, on these disks, until a time."""
    db.change(
        "INSERT INTO chunk (id, length, digest, state, refs, good, session, expires_ns) "
        "VALUES (?, 0, x'', 'granted', 0, 0, NULL, ?)",
        (chunk, expires_ns),
    )
    db.change_many(
        "INSERT INTO replica (chunk, disk, state) VALUES (?, ?, 'granted')",
        [(chunk, replicas.disk_key(db, disk)) for disk in disks],
    )


def give_up(db: Database, chunk: bytes, now_ns: int) -> None:
    """In a mutation: a reserved chunk is not needed."""
    db.change(
        "UPDATE chunk SET state = 'dead', dead_since_ns = ?, expires_ns = NULL "
        "WHERE id = ? AND state = 'granted' AND session IS NULL",
        (now_ns, chunk),
    )


def replace_run(
    db: Database,
    inode: int,
    run: list[Extent],
    made: tuple[bytes, bytes],
    disks: Iterable[str],
    now_ns: int,
    effects: Effects,
) -> bool:
    """In a mutation: a reserved chunk, with its digest, takes the place of neighbouring extents.

    False, with nothing done, unless they are all still there as they were.
    """
    chunk, digest = made
    start, end = run[0].offset, run[-1].offset + run[-1].length
    if extents.extents_between(db, inode, start, end) != run:
        return False
    taken = db.change(
        "UPDATE chunk SET state = 'live', length = ?, digest = ?, policy = ?, expires_ns = NULL "
        "WHERE id = ? AND state = 'granted' AND session IS NULL AND expires_ns > ?",
        (end - start, digest, policies.of_file(db, inode), chunk, now_ns),
    )
    if not taken:
        return False
    _note_good(db, chunk, disks)
    whole = Extent(offset=start, length=end - start, chunk=chunk)
    extents.lay_extents(db, inode, [whole], now_ns)
    effects.data(inode)
    return True


def commit(db: Database, op: Commit, session: str, now_ns: int, effects: Effects) -> list[Attr]:
    """Make stored bytes part of a file; see operations.Commit.

    Raises NoEntry, IsDirectory, Invalid, UnknownChunk, DiskFailed.
    """
    attr = rows.need(db, op.inode)
    size = max(attr.size, op.size)
    _check(attr, op, size)
    protection.check_append(attr, min((each.offset for each in op.extents), default=size))
    lengths = {written.chunk: written.length for written in op.chunks}
    for extent in op.extents:
        if extent.chunk:
            _check_extent(db, op.inode, extent, lengths)
    if op.chunks:
        policy = policies.of_file(db, op.inode)
        for written in op.chunks:
            _accept(db, written, session, policy, now_ns)
    extents.lay_extents(db, op.inode, op.extents, now_ns)
    _drop_unused(db, op.chunks, now_ns)
    effects.data(op.inode)
    return [rows.update(db, op.inode, {"size": size, "mtime_ns": op.mtime_ns, "ctime_ns": now_ns})]


def _check(attr: Attr, op: Commit, size: int) -> None:
    if rows.is_directory(attr):
        raise IsDirectory(f"inode {op.inode} is a directory")
    if not rows.is_regular(attr):
        raise Invalid(f"inode {op.inode} has no contents")
    rows.check_int64(mtime_ns=op.mtime_ns)
    if any(extent.offset + extent.length > size for extent in op.extents):
        raise Invalid("an extent ends beyond the size of the file")
    if sum(len(extent.data) for extent in op.extents) > INLINE_MAX_BYTES:
        raise Invalid(f"more than {INLINE_MAX_BYTES} bytes inline")


def _check_extent(db: Database, inode: int, extent: Extent, lengths: dict[bytes, int]) -> None:
    length = lengths.get(extent.chunk)
    if length is None:
        row = db.read_one(
            "SELECT c.length FROM chunk c WHERE c.id = ?1 AND EXISTS "
            "(SELECT 1 FROM extent e WHERE e.chunk = ?1 AND e.inode = ?2)",
            (extent.chunk, inode),
        )
        if row is None:
            raise UnknownChunk(f"chunk {extent.chunk.hex()} is not in inode {inode}")
        (length,) = row
    if extent.chunk_offset + extent.length > length:
        raise Invalid(f"extent ends beyond chunk {extent.chunk.hex()}")


def _accept(db: Database, written: WrittenChunk, session: str, policy: int, now_ns: int) -> None:
    """A granted chunk becomes live (lay_extents counts its references), with its good replicas."""
    taken = db.change(
        "UPDATE chunk SET state = 'live', length = ?, digest = ?, policy = ?, session = NULL, "
        "expires_ns = NULL WHERE id = ? AND session = ? AND expires_ns > ?",
        (written.length, written.digest, policy, written.chunk, session, now_ns),
    )
    if not taken:
        raise UnknownChunk(f"chunk {written.chunk.hex()} is not granted to this session (any more)")
    _note_good(db, written.chunk, written.disks)


def _note_good(db: Database, chunk: bytes, disks: Iterable[str]) -> None:
    db.change_many(
        "INSERT INTO replica (chunk, disk, state) VALUES (?, ?, 'good') "
        "ON CONFLICT (chunk, disk) DO UPDATE SET state = 'good'",
        [(chunk, replicas.disk_key(db, disk)) for disk in disks],
    )
    replicas.count_good(db, chunk)


def _drop_unused(db: Database, chunks: list[WrittenChunk], now_ns: int) -> None:
    db.change_many(
        "UPDATE chunk SET state = 'dead', dead_since_ns = ? "
        "WHERE id = ? AND refs = 0 AND state = 'live'",
        [(now_ns, written.chunk) for written in chunks],
    )


def orphans(db: Database) -> list[int]:
    """All inodes without a name that are not purged yet."""
    return [inode for (inode,) in db.read("SELECT inode FROM orphan ORDER BY inode")]


def purge_inode(db: Database, inode: int, now_ns: int) -> None:
    """Remove an orphan for good: its extents, xattrs and row.  Raises NoEntry for any other."""
    if not db.change("DELETE FROM orphan WHERE inode = ?", (inode,)):
        raise NoEntry(f"inode {inode} is not an orphan")
    extents.truncate_extents(db, inode, 0, now_ns)
    db.change("DELETE FROM xattr WHERE inode = ?", (inode,))
    db.change("DELETE FROM converging WHERE inode = ?", (inode,))
    policies.unassign(db, inode)
    db.change("DELETE FROM inode WHERE inode = ?", (inode,))
