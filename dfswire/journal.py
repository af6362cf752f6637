"""The journal: what metad changed, in order, as chunkds keep it and a restore replays it.

One entry is one group commit: the statements that changed the database, with their parameters, so
that replaying it depends on no code of ours and gives the same rows.  Each has a number, and a
digest over its content and the digest of the entry before; holes, damage and forks are noticed by
whoever checks.  metad writes entries, chunkds keep them, `dfs metad restore` replays them; all
three use the encoding here.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator, Sequence
from typing import Annotated, Any

import msgspec

from dfswire.errors import ProtocolError
from dfswire.messages import Message, Natural

DIGEST_BYTES = 16
Digest = Annotated[bytes, msgspec.Meta(min_length=DIGEST_BYTES, max_length=DIGEST_BYTES)]

_PREFIX = struct.Struct(">QQQQ")

Change = tuple[str, Sequence[Sequence[Any]]]
"""A statement and the rows of parameters that it was run with."""


class Position(Message, frozen=True, kw_only=True):
    """How far somebody is: the last entry.

    Of two positions that both claim the same number, the one of the higher (epoch, term) counts:
    the other one's last entry was never acknowledged, or a restore has left it behind.
    """

    epoch: Natural  # of the cluster; raised by each restore
    term: Natural  # of metad; raised by each start, and when a commit failed
    number: Natural
    time_ns: Natural
    digest: Digest

    @property
    def rank(self) -> tuple[int, int, int]:
        """What decides between forks."""
        return (self.epoch, self.term, self.number)


class Entry(Message, frozen=True, kw_only=True):
    """One group commit.  `previous` is the digest of the entry before; see seal()."""

    epoch: Natural
    term: Natural
    number: Natural
    time_ns: Natural
    previous: Digest
    body: bytes
    digest: Digest

    @property
    def position(self) -> Position:
        """How far somebody is who has this entry and those before."""
        return Position(
            epoch=self.epoch,
            term=self.term,
            number=self.number,
            time_ns=self.time_ns,
            digest=self.digest,
        )

    @property
    def is_sound(self) -> bool:
        """Does the digest fit the content?"""
        return self.digest == _digest(
            self.epoch, self.term, self.number, self.time_ns, self.previous, self.body
        )


def seal(before: Position, term: int, time_ns: int, body: bytes) -> Entry:
    """The entry after `before`, of the same epoch."""
    epoch = before.epoch
    number = before.number + 1
    return Entry(
        epoch=epoch,
        term=term,
        number=number,
        time_ns=time_ns,
        previous=before.digest,
        body=body,
        digest=_digest(epoch, term, number, time_ns, before.digest, body),
    )


def _digest(
    epoch: int, term: int, number: int, time_ns: int, previous: bytes, body: bytes
) -> bytes:
    content = hashlib.blake2b(digest_size=DIGEST_BYTES, person=b"dfs journal 1")
    content.update(_PREFIX.pack(epoch, term, number, time_ns))
    content.update(previous)
    content.update(body)
    return content.digest()


class _Body(msgspec.Struct, array_like=True):
    """Each text once; (which text, its rows of parameters) in the order of execution."""

    texts: list[str]
    changes: list[tuple[int, list[list[Any]]]]


_decoder = msgspec.msgpack.Decoder(_Body)
_encoder = msgspec.msgpack.Encoder()


def encode_changes(changes: Sequence[Change]) -> bytes:
    """The body of an entry.  Parameters are what SQLite takes: no other types, 64-bit numbers."""
    texts: dict[str, int] = {}
    numbered = [(texts.setdefault(text, len(texts)), rows) for text, rows in changes]
    return _encoder.encode((list(texts), numbered))


def decode_changes(body: bytes) -> Iterator[Change]:
    """The statements of an entry, in order.  Raises ProtocolError for what is no body."""
    try:
        decoded = _decoder.decode(body)
    except msgspec.DecodeError as problem:
        raise ProtocolError(f"not the body of a journal entry: {problem}") from problem
    for text, rows in decoded.changes:
        if text >= len(decoded.texts):
            raise ProtocolError("a journal entry names a statement that it does not have")
        yield decoded.texts[text], rows


# --- on the wire ---------------------------------------------------------------------------------

NOWHERE = Position(epoch=0, term=0, number=0, time_ns=0, digest=bytes(DIGEST_BYTES))
"""The position of who has nothing."""

ENTRIES_BYTES = 1 << 20  # about so many bytes of entries in one frame, and in one part of a file


class FollowJournal(Message, frozen=True, kw_only=True):
    """A chunkd wants to keep the journal; it has everything up to `position`.

    `previous`: the digest before that, for its last entry may be one that never was committed.
    `snapshot`: the number of the newest snapshot from which its entries go on without a hole; -1
    for none.
    """

    server_id: str
    incarnation: int
    cluster_id: str
    position: Position = NOWHERE
    previous: Digest = bytes(DIGEST_BYTES)
    snapshot: int = -1


class JournalFrame(Message, frozen=True, kw_only=True):
    """A part of the journal, or a sign of life.

    `base`: what follows goes on from here, whatever the chunkd has beyond it does not count.
    `entries`: encoded entries, in order; one that is too large for a frame comes in `part`s, the
    last of which has `is_last`.  `snapshot`: a new one can be had, up to this number.
    """

    stream: Natural  # which connection this is, for AckJournal
    base: Position | None = None
    entries: list[bytes] = []
    part: bytes = b""
    is_last: bool = False
    snapshot: int = -1


class AckJournal(Message, frozen=True, kw_only=True):
    """All entries up to `number` are on the disk of the chunkd, and so is a snapshot from which
    they go on."""

    server_id: str
    stream: Natural
    number: Natural


class SnapshotRequest(Message, frozen=True, kw_only=True):
    """Bytes of a snapshot: of the one at `digest`, or (empty) of the newest that has at least entry
    `number`, which is made when there is none."""

    number: Natural = 0
    digest: bytes = b""
    offset: Natural = 0
    length: Annotated[int, msgspec.Meta(ge=0, le=8 * ENTRIES_BYTES)] = 0


class Snapshot(Message, frozen=True, kw_only=True):
    """A whole database, as SQLite's backup writes it, at a position of the journal."""

    cluster_id: str
    position: Position
    size_bytes: Natural
    digest: Digest  # of its bytes, see content_digest()


class FollowerStatus(Message, frozen=True, kw_only=True):
    """A chunkd that follows, or waits until it is needed."""

    server_id: str
    state: str  # "in step", "catching up" or "standby"
    number: Natural  # what it has on disk


class JournalStatus(Message, frozen=True, kw_only=True):
    """How safe the metadata is: `copies` of `wanted` are in step; `safe` is on all of them."""

    position: Position
    safe: Natural
    wanted: Natural
    copies: Natural
    followers: list[FollowerStatus]
    snapshot: Position | None = None
    reclaim_held: str = ""


class JournalFile(Message, frozen=True, kw_only=True):
    """A file in the journal directory of a chunkd: a snapshot, or a segment of entries."""

    name: str
    size_bytes: Natural
    base: Position  # a segment has what comes after; a snapshot has everything up to it
    snapshot: Snapshot | None = None


class JournalFiles(Message, frozen=True, kw_only=True):
    """What a chunkd keeps, oldest first.  `damaged`: names of files that cannot be used."""

    cluster_id: str
    server_id: str
    files: list[JournalFile]
    damaged: list[str] = []


class ReadJournalFile(Message, frozen=True, kw_only=True):
    name: str
    offset: Natural
    length: Annotated[int, msgspec.Meta(ge=0, le=8 * ENTRIES_BYTES)]


def content_digest() -> hashlib.blake2b:
    """A new hash for the bytes of a snapshot."""
    return hashlib.blake2b(digest_size=DIGEST_BYTES, person=b"dfs snapshot 1")
