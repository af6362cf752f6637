"""Requests and replies between a client (or another chunkd) and a chunkd.

The bytes of a chunk travel as the raw body; the message stands in a header.  Each 64 KiB block
has its own checksum (see chunkd/chunkfile.py), computed by whoever first held the bytes and
checked by everyone after, so a reader needs to trust no server.
"""

from __future__ import annotations

import hashlib
from typing import Annotated

import msgspec
import xxhash

from dfswire.messages import (
    BLOCK_SIZE_BYTES,
    CHUNK_MAX_BYTES,
    ChunkId,
    Message,
    Natural,
    Replica,
)

CHECKSUM_BYTES = 8


def block_count(length: int) -> int:
    """How many blocks a chunk of `length` bytes has."""
    return -(-length // BLOCK_SIZE_BYTES)


def block_checksums(
    chunk: bytes, data: bytes | bytearray | memoryview, first_block: int = 0
) -> bytes:
    """The checksums of the blocks of `data`, concatenated, 8 bytes each, big-endian.

    XXH3-64 seeded with the chunk id and the block's index, so that a good block in a wrong place or
    under a wrong name fails.  `data` starts at block `first_block` of the chunk; its last block
    may be short.  (Measured on 64 KiB blocks: 60 GB/s for XXH3 against 18 GB/s for CRC32C.)
    """
    base = int.from_bytes(chunk[:8], "big") ^ int.from_bytes(chunk[8:], "big")
    view = memoryview(data)
    digest = xxhash.xxh3_64_digest
    mask = (1 << 64) - 1
    return b"".join(
        digest(
            view[at : at + BLOCK_SIZE_BYTES],
            (base + (first_block + index) * 0x9E3779B97F4A7C15) & mask,
        )
        for index, at in enumerate(range(0, len(view), BLOCK_SIZE_BYTES))
    )


def chunk_digest(chunk: bytes, length: int, checksums: bytes) -> bytes:
    """16 bytes that bind id, length and all block checksums: what metad remembers of a chunk."""
    return hashlib.blake2b(
        chunk + length.to_bytes(8, "big") + checksums, digest_size=16, person=b"dfs chunk v1"
    ).digest()


class WriteChunk(Message, frozen=True, kw_only=True):
    """Body: the chunk's bytes.  `disk` is where it goes here; `chain` are the servers after this
    one.

    `durable`: reply only when every replica named in the reply is fsynced, with its directory.
    `token` is for this server, those for the others stand in the chain; `holder`: for whom a chunkd
    passes it on.
    """

    chunk: ChunkId
    length: Annotated[int, msgspec.Meta(ge=1, le=CHUNK_MAX_BYTES)]
    checksums: bytes
    disk: str
    chain: list[Replica] = []
    durable: bool = False
    token: bytes = b""
    holder: str = ""

    def __post_init__(self) -> None:
        if len(self.checksums) != CHECKSUM_BYTES * block_count(self.length):
            raise ValueError("number of checksums does not fit the length")


class WriteResult(Message, frozen=True, kw_only=True):
    """What became of one replica; `error` is empty when it is stored.

    `took_s`: from when its server began to receive the chunk until it was stored there.
    """

    disk: str
    error: str = ""
    took_s: float = 0.0


class WriteReply(Message, frozen=True, kw_only=True):
    """One result for each server of the chain, in its order."""

    results: list[WriteResult]


class ReadChunk(Message, frozen=True, kw_only=True):
    """Bytes [offset, offset+length) of a chunk.  `offset` must be a multiple of the block size, and
    the range must end at a block border or at the end of the chunk."""

    chunk: ChunkId
    disk: str
    offset: Natural
    length: Annotated[int, msgspec.Meta(ge=1, le=CHUNK_MAX_BYTES)]
    token: bytes = b""


class ReadReply(Message, frozen=True, kw_only=True):
    """Body: the bytes.  `checksums` are those of its blocks; `chunk_length` is the whole
    chunk's."""

    chunk_length: int
    checksums: bytes


class SyncChunks(Message, frozen=True, kw_only=True):
    """Make these chunks durable.  The reply lists those that could not be.

    `tokens`: one for each chunk, to read or write it, of any age; none where none is needed.
    """

    chunks: Annotated[list[ChunkId], msgspec.Meta(max_length=100_000)]
    tokens: Annotated[list[bytes], msgspec.Meta(max_length=100_000)] = []


class SyncReply(Message, frozen=True, kw_only=True):
    failed: list[ChunkId] = []


class VerifyChunk(Message, frozen=True, kw_only=True):
    """Read the chunk through and check it; set it aside when it is bad, and report it to metad."""

    chunk: ChunkId
    disk: str
    token: bytes = b""


class VerifyReply(Message, frozen=True, kw_only=True):
    state: str  # "good", "bad", "missing"
    reason: str = ""
