"""Requests and replies about verifying: what is left of damaged chunks, what may be thrown away.

A copy that is found bad is set aside, not thrown away: it may be the last that has some block.
Whoever needs its bytes gets only those that match a checksum that somebody vouches for.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from dfswire.messages import CHUNK_MAX_BYTES, ChunkId, Message, Natural

Block = Annotated[int, msgspec.Meta(ge=0, lt=CHUNK_MAX_BYTES // 65_536)]


class SalvageChunk(Message, frozen=True, kw_only=True):
    """What is left of a chunk on this disk, in whatever state its files are?

    `length` and `digest` are what metad remembers.  `checksums` are those of all blocks, if the
    caller has them (they fit the digest).  The good ones of the blocks `wanted` are the body of the
    reply, in order.
    """

    chunk: ChunkId
    disk: str
    length: Annotated[int, msgspec.Meta(ge=1, le=CHUNK_MAX_BYTES)]
    digest: Annotated[bytes, msgspec.Meta(min_length=16, max_length=16)]
    checksums: bytes = b""
    wanted: list[Block] = []
    token: bytes = b""


class SalvageReply(Message, frozen=True, kw_only=True):
    """`checksums` fit the digest; empty when nobody here can vouch for any.  `good` are the blocks
    that are here and match them."""

    checksums: bytes = b""
    good: list[Block] = []


class Settled(Message, frozen=True, kw_only=True):
    """A disk would like to delete what it has set aside of these chunks."""

    server_id: str
    incarnation: Natural
    disk: str
    chunks: Annotated[list[ChunkId], msgspec.Meta(max_length=10_000)]


class SettledReply(Message, frozen=True, kw_only=True):
    """Those of which nothing can depend on it: there are enough good copies, or no file names
    them."""

    chunks: list[ChunkId] = []


class LostRange(Message, frozen=True, kw_only=True):
    """Bytes of a file that cannot be read now.  `sure`: every disk was asked, they are gone."""

    offset: Natural
    length: Natural
    sure: bool


class LostFile(Message, frozen=True, kw_only=True):
    """A file with lost ranges; `paths` are some of its names."""

    inode: int
    paths: list[bytes]
    ranges: list[LostRange]


class FindLost(Message, frozen=True, kw_only=True):
    """`limit`: how many files at most are described; all are counted."""

    limit: Annotated[int, msgspec.Meta(ge=1, le=100_000)] = 1000


class LostReply(Message, frozen=True, kw_only=True):
    files: list[LostFile]
    count: int


class FilesBelow(Message, frozen=True, kw_only=True):
    """Regular files in a tree, by inode number or path from the root; those after inode `after`.

    A path to a file is that file alone.
    """

    inode: int = 0
    path: bytes = b""
    after: Natural = 0
    limit: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 1000


class FilesReply(Message, frozen=True, kw_only=True):
    """In the order of inode numbers; `count` are all that come after `after`."""

    inodes: list[int]
    count: int


class Urge(Message, frozen=True, kw_only=True):
    """An operator waits for copies of these chunks: they are repaired before all others."""

    chunks: Annotated[list[ChunkId], msgspec.Meta(max_length=10_000)]
