"""What operators are shown of one file: its names, extents, chunks, their copies, and locks.

metad answers `dfs info` with it, and `dfs repair` asks for the chunks.  Nothing in it is content.
"""

from __future__ import annotations

from typing import Literal

from dfswire.messages import Attr, ChunkId, Message
from dfswire.verify import LostRange


class InfoRequest(Message, frozen=True, kw_only=True):
    """By inode number, or by path from the root of the file system."""

    inode: int = 0
    path: bytes = b""


class ReplicaInfo(Message, frozen=True, kw_only=True):
    disk: str
    server_id: str
    address: str
    path: str
    state: str
    server_state: str


class ChunkInfo(Message, frozen=True, kw_only=True):
    """`missing`: how many good copies fewer than wanted there are, as far as servers allow."""

    chunk: ChunkId
    length: int
    digest: bytes
    refs: int
    state: str
    replicas: list[ReplicaInfo]
    missing: int = 0


class InfoReply(Message, frozen=True, kw_only=True):
    """Inline extents come without their data.  `lost` cannot be read at the moment."""

    attr: Attr
    paths: list[bytes]
    extents: list[ExtentInfo]
    chunks: list[ChunkInfo]
    locks: list[LockInfo] = []
    lost: list[LostRange] = []


class LockInfo(Message, frozen=True, kw_only=True):
    """A lock that somebody holds or waits for.  `end` is the last byte; None is wherever the file
    ends."""

    kind: Literal["fcntl", "flock"]
    type: Literal["read", "write"]
    waits: bool
    start: int
    end: int | None
    host: str
    mount_point: str
    pid: int  # on that host; 0 when it is not known


class ExtentInfo(Message, frozen=True, kw_only=True):
    offset: int
    length: int
    chunk: bytes = b""
    chunk_offset: int = 0
