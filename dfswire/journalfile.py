"""The files in which chunkds keep the journal: segments of entries, and snapshots.

Written by chunkd/journal.py, read by it and by `dfs metad restore`.  A file begins with a magic of
8 octets and a header; every record has its length and a checksum, so whatever a crash or a bad disk
left behind is recognised, and what stands before it is still good.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import xxhash

from dfswire import codec
from dfswire.errors import ProtocolError, WrongVersion
from dfswire.journal import Entry, Position, Snapshot
from dfswire.messages import Message, Natural

H = TypeVar("H", bound=Message)

SEGMENT_MAGIC = b"DFSjrnl1"
SNAPSHOT_MAGIC = b"DFSsnap1"
SEGMENT_SUFFIX = ".journal"
SNAPSHOT_SUFFIX = ".snapshot"

_LENGTH_BYTES = 4
_HEAD_BYTES = _LENGTH_BYTES + 8  # length, XXH3-64 of length and payload
HEADER_MAX_BYTES = 4096  # of magic and header together


class SegmentHeader(Message, frozen=True, kw_only=True):
    """`base`: the entries come after this one.  `run`: the number from which on this chunkd has
    all entries up to `base`, in this segment and earlier ones."""

    cluster_id: str
    base: Position
    run: Natural


@dataclass(frozen=True)
class Segment:
    """What is good of a segment; `is_whole`: nothing else is in it."""

    header: SegmentHeader
    entries: list[Entry]
    is_whole: bool

    @property
    def position(self) -> Position:
        """The last of it."""
        return self.entries[-1].position if self.entries else self.header.base


def record(payload: bytes) -> bytes:
    """A record as it stands in a file."""
    head = len(payload).to_bytes(_LENGTH_BYTES, "big")
    return head + _checksum(head, payload) + payload


def segment_head(header: SegmentHeader) -> bytes:
    """The beginning of a segment."""
    return SEGMENT_MAGIC + record(codec.encode(header))


def snapshot_head(header: Snapshot) -> bytes:
    """The beginning of a snapshot; the bytes of the database follow."""
    return SNAPSHOT_MAGIC + record(codec.encode(header))


def parse_segment(data: bytes | memoryview) -> Segment:
    """The entries up to the first that is torn, damaged or does not follow the one before.

    Raises ProtocolError for what is no segment, or one with a damaged header.
    """
    view = memoryview(data)
    header, at = _header(view, SEGMENT_MAGIC, SegmentHeader)
    entries: list[Entry] = []
    position = header.base
    while at < len(view):
        found = _record(view, at)
        if found is None:
            break
        payload, after = found
        try:
            entry = codec.decode(Entry, payload)
        except ProtocolError:
            break
        if not entry.is_sound or not follows(entry, position):
            break
        entries.append(entry)
        position, at = entry.position, after
    return Segment(header, entries, at == len(view))


def parse_snapshot_head(data: bytes | memoryview) -> tuple[Snapshot, int]:
    """The header of a snapshot, and where its bytes begin.  Raises ProtocolError."""
    return _header(memoryview(data), SNAPSHOT_MAGIC, Snapshot)


def parse_segment_head(data: bytes | memoryview) -> SegmentHeader:
    """The header of a segment, from its first HEADER_MAX_BYTES.  Raises ProtocolError."""
    return _header(memoryview(data), SEGMENT_MAGIC, SegmentHeader)[0]


def follows(entry: Entry, position: Position) -> bool:
    """Is it the next one after `position`?"""
    return entry.previous == position.digest and entry.number == position.number + 1


def _header(view: memoryview, magic: bytes, kind: type[H]) -> tuple[H, int]:
    _check_magic(bytes(view[: len(magic)]), magic)
    found = _record(view, len(magic))
    if found is None:
        raise ProtocolError("a damaged header")
    return codec.decode(kind, found[0]), found[1]


def _check_magic(found: bytes, magic: bytes) -> None:
    if found == magic:
        return
    if found[:-1] == magic[:-1] and found > magic:
        raise WrongVersion(
            f"{magic[:-1].decode()} file of format {chr(found[-1])}; "
            f"this software reads format {chr(magic[-1])}"
        )
    raise ProtocolError(f"no {magic.decode()} file")


def _record(view: memoryview, at: int) -> tuple[memoryview, int] | None:
    """The payload of the record at `at` and where the next begins; None when it is not whole."""
    head = view[at : at + _HEAD_BYTES]
    if len(head) < _HEAD_BYTES:
        return None
    end = at + _HEAD_BYTES + int.from_bytes(head[:_LENGTH_BYTES], "big")
    if end > len(view):
        return None
    payload = view[at + _HEAD_BYTES : end]
    if _checksum(head[:_LENGTH_BYTES], payload) != head[_LENGTH_BYTES:]:
        return None
    return payload, end


def _checksum(head: bytes | memoryview, payload: bytes | memoryview) -> bytes:
    checksum = xxhash.xxh3_64(bytes(head))
    checksum.update(payload)
    return checksum.digest()
