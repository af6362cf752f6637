"""The vocabulary that crosses the network: limits, identifiers, and the records that calls share.

Every part of dfs imports this module; it imports nothing but msgspec.  Records are frozen msgspec
structs: they are checked when decoded, and `__post_init__` refuses values that no honest peer
sends. A field may be added later with a default; a field is never renamed or given another meaning
(that is what PROTOCOL_VERSION is for).  Names, link targets and xattrs are bytes, as in the kernel.
"""

from __future__ import annotations

import enum
from typing import Annotated

import msgspec

PROTOCOL_VERSION = 1

ROOT_INODE = 1
NAME_MAX_BYTES = 255  # POSIX NAME_MAX, what every local file system offers
SYMLINK_MAX_BYTES = 4095  # PATH_MAX without the final NUL
XATTR_NAME_MAX_BYTES = 255  # the kernel's XATTR_NAME_MAX
XATTR_VALUE_MAX_BYTES = 65_536  # the kernel's XATTR_SIZE_MAX
XATTR_LIST_MAX_BYTES = 65_536  # the kernel's XATTR_LIST_MAX: all names with a NUL each
XATTRS_MAX_BYTES = 1 << 20  # of one inode together: they travel in one reply
FILE_MAX_BYTES = 1 << 44  # 16 TiB; offsets stay far below 2**63
BLOCK_SIZE_BYTES = 65_536  # one checksum per block; the least that a verified read fetches
CHUNK_MAX_BYTES = 16 << 20  # a server holds one chunk in memory while it receives it
CHUNK_ID_BYTES = 16  # 128 random bits, never reused
INLINE_MAX_BYTES = 8192  # bytes of a file that may live in metadata instead of in chunks
MESSAGE_MAX_BYTES = 16 << 20  # larger encoded messages are refused before they are read

ChunkId = Annotated[bytes, msgspec.Meta(min_length=CHUNK_ID_BYTES, max_length=CHUNK_ID_BYTES)]
"""Sixteen random bytes chosen by metad when it grants a chunk."""

Name = Annotated[bytes, msgspec.Meta(min_length=1, max_length=NAME_MAX_BYTES)]
Inode = Annotated[int, msgspec.Meta(ge=1, le=(1 << 63) - 1)]
Size = Annotated[int, msgspec.Meta(ge=0, le=FILE_MAX_BYTES)]
Natural = Annotated[int, msgspec.Meta(ge=0)]


class Message(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What all requests and replies are."""


class EventPosition(Message, frozen=True, kw_only=True):
    """A place in what metad tells one session: the number of its FollowEvents, and how many pushes
    there had been on it."""

    stream: Natural
    tick: Natural


class Answer(Message, frozen=True, kw_only=True):
    """A reply to a session.  It may speak of changes whose news are still on their way to it: what
    was pushed up to `told` must be forgotten before this is believed (None: it has been).  What it
    tells of attributes (xattrs, link targets) of the inodes in `fleeting`, and of names of the
    directories in `fleeting_names`, must not be kept: others are about to change it, and wait for
    nobody who asks now."""

    told: EventPosition | None = None
    fleeting: list[Inode] = []
    fleeting_names: list[Inode] = []


class Empty(Message, frozen=True, kw_only=True):
    """A reply that says no more than that the call succeeded."""


class Fault(Message, frozen=True, kw_only=True):
    """An error on the wire: a code of the table in errors.py, and a sentence for people.

    `told` is as in an Answer.
    """

    code: str
    message: str = ""
    told: EventPosition | None = None


def check_name(name: bytes) -> None:
    """Raise ValueError unless `name` can be a directory entry."""
    if b"/" in name or b"\0" in name or name in (b".", b".."):
        raise ValueError(f"not a file name: {name!r}")


class Attr(Message, frozen=True, kw_only=True):
    """What stat(2) tells of one inode.  Times are nanoseconds since the epoch.

    `allocated_bytes` counts bytes covered by extents (holes are not), for st_blocks.  `flags` are
    those of FS_IOC_GETFLAGS, see operations.SetFlags.
    """

    inode: Inode
    mode: int  # file type and permission bits
    uid: int
    gid: int
    size: int
    atime_ns: int
    mtime_ns: int
    ctime_ns: int
    nlink: int = 1
    rdev: int = 0
    generation: int = 0
    allocated_bytes: int = 0
    flags: int = 0


class DirEntry(Message, frozen=True, kw_only=True):
    """One name of a directory.  Cookies grow, are unique, and stay with the name while it
    exists."""

    name: Name
    cookie: int
    attr: Attr


class Xattr(Message, frozen=True, kw_only=True):
    """One extended attribute."""

    name: bytes
    value: bytes


class Replica(Message, frozen=True, kw_only=True):
    """A place where a good copy of a chunk should be: the disk, and the server to ask.

    `doubtful`: metad has not heard from that server for a while, or hears that others wait for it.
    `token`: leave to do there what it was asked for (tokens.py); empty where none is needed.
    """

    disk: str
    address: str  # "host:port" of the chunkd
    doubtful: bool = False
    token: bytes = b""


class ChunkLocation(Message, frozen=True, kw_only=True):
    """A chunk and its replicas, the best one to ask first.

    `damaged` are told when none of them may be good: they serve the ranges that are still right.
    `needed`: on how many servers its bytes must be on disk for an fsync; 0: as the session says.
    """

    chunk: ChunkId
    length: Natural
    replicas: list[Replica]
    damaged: list[Replica] = []
    needed: Natural = 0


class Extent(Message, frozen=True, kw_only=True):
    """`length` bytes of a file from `offset`: either part of a chunk or the bytes themselves.

    `chunk` is empty for an inline extent, whose bytes are in `data` (len(data) == length).
    """

    offset: Size
    length: Annotated[int, msgspec.Meta(ge=1, le=FILE_MAX_BYTES)]
    chunk: bytes = b""
    chunk_offset: Natural = 0
    data: bytes = b""

    def __post_init__(self) -> None:
        if self.offset + self.length > FILE_MAX_BYTES:
            raise ValueError("extent ends beyond the largest file")
        if self.chunk:
            if len(self.chunk) != CHUNK_ID_BYTES or self.data:
                raise ValueError("extent needs a chunk id or data, not both")
        elif len(self.data) != self.length:
            raise ValueError("inline extent whose data has another length")


class ChunkGrant(Message, frozen=True, kw_only=True):
    """Leave to write one new chunk: its id and where its replicas go, first server first.

    `needed`: on how many servers it must be before it may be acknowledged; 0: as the session says.
    """

    chunk: ChunkId
    targets: list[Replica]
    expires_s: float  # seconds from now, by the receiver's monotonic clock
    needed: Natural = 0


class WrittenChunk(Message, frozen=True, kw_only=True):
    """A chunk that a client has stored: its length, digest, and the disks that acknowledged it."""

    chunk: ChunkId
    length: Annotated[int, msgspec.Meta(ge=1, le=CHUNK_MAX_BYTES)]
    digest: Annotated[bytes, msgspec.Meta(min_length=16, max_length=16)]
    disks: Annotated[list[str], msgspec.Meta(min_length=1)]


class Invalidated(enum.IntFlag):
    """What a holder must forget about an inode."""

    ATTR = 1
    DATA = 2  # extents and page cache
    NAME = 4  # one name of this directory
    ALL_NAMES = 8  # every name of this directory
    GONE = 16  # its last name went; say Release when it is not (or no longer) open
    POLICY = 32  # which policies apply to what, everywhere: `inode` is where something changed


class Invalidation(Message, frozen=True, kw_only=True):
    """One inode (and for NAME one of its names) of which something is no longer true."""

    inode: Inode
    what: int
    name: bytes = b""


class Part(enum.IntFlag):
    """The three things of an inode that leases cover, each on its own."""

    ATTR = 1  # attributes and xattrs
    DATA = 2  # extents, bytes
    NAMES = 4  # of a directory: its names


class Lease(Message, frozen=True, kw_only=True):
    """The exclusive lease of one session on `parts` (of `Part`) of an inode.

    While it lasts nobody else has these parts cached, so its holder may change them at home.
    `number` changes with every grant on the inode: what is said of an older one is void.
    """

    inode: Inode
    parts: int
    number: Natural


class Event(Message, frozen=True, kw_only=True):
    """What metad pushes to one session.  Numbers count up from 1 without gaps for one stream.

    `drop_all` means: forget everything cached (metad restarted, or stopped remembering); exclusive
    leases and what is dirty under them stay.  `recalls` are leases that somebody waits for, with
    the parts that are wanted: store what is dirty, then say so with `lease.give_back`.  An
    acknowledgement does not speak of recalls.  An event without content is a sign of life.  `tick`
    counts the pushes that this and the events before it contain (see EventPosition).
    """

    number: int
    tick: Natural = 0
    invalidations: list[Invalidation] = []
    drop_all: bool = False
    recalls: list[Lease] = []
