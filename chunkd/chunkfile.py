"""The format of a chunk file: payload, then index, then footer.

The payload comes first, so that any range of it is one sendfile.  The index is one checksum per
block (dfswire/chunks.py); the footer names the chunk, its length and the format, and carries a
checksum over itself and the index.  Since the block checksums are seeded with the chunk id, a valid
chunk under a wrong name fails, as does any truncation, extension or flipped bit.  Pure functions on
bytes; openchunk.py and newchunks.py do the reading and writing.

    offset 0          payload          `length` bytes
           length     index            8 bytes for each block of 64 KiB
           size-72    footer           chunk id 16 · length 8 · block size 4 · reserved 16 (zero)
                                       · checksum 16 · format version 4 · magic 8     (big-endian)
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass

from dfswire.chunks import CHECKSUM_BYTES, block_checksums, block_count, chunk_digest
from dfswire.errors import CorruptChunk, Invalid, WrongVersion
from dfswire.messages import BLOCK_SIZE_BYTES, CHUNK_MAX_BYTES

FORMAT_VERSION = 1
MAGIC = b"DFSchunk"  # the last bytes of the file, with the version before it, in every format

_FIELDS = struct.Struct(">16sQI16s")
_END = struct.Struct(">16sI8s")
FOOTER_BYTES = _FIELDS.size + _END.size
TAIL_MAX_BYTES = block_count(CHUNK_MAX_BYTES) * CHECKSUM_BYTES + FOOTER_BYTES
_RESERVED = bytes(16)


@dataclass(frozen=True)
class Index:
    """What the tail of a chunk file says: believed only after its checksum was right."""

    chunk: bytes
    length: int
    checksums: bytes

    @property
    def digest(self) -> bytes:
        """The 16 bytes by which metad knows this content."""
        return chunk_digest(self.chunk, self.length, self.checksums)

    def range_checksums(self, offset: int, length: int) -> bytes:
        """The checksums of the blocks of [offset, offset+length).

        Raises Invalid unless the range starts at a block border and ends at one or at the end.
        """
        end = offset + length
        aligned_end = end % BLOCK_SIZE_BYTES == 0 or end == self.length
        if offset % BLOCK_SIZE_BYTES or not aligned_end or end > self.length or length < 1:
            raise Invalid(f"range {offset}+{length} does not fit the blocks of {self.length} bytes")
        first = offset // BLOCK_SIZE_BYTES * CHECKSUM_BYTES
        return self.checksums[first : first + block_count(length) * CHECKSUM_BYTES]


def tail_bytes(length: int) -> int:
    """The size of index and footer of a chunk of `length` bytes."""
    return block_count(length) * CHECKSUM_BYTES + FOOTER_BYTES


def build_tail(chunk: bytes, length: int, checksums: bytes) -> bytes:
    """Index and footer, to be written after the payload."""
    body = checksums + _FIELDS.pack(chunk, length, BLOCK_SIZE_BYTES, _RESERVED)
    return body + _END.pack(_tail_checksum(body), FORMAT_VERSION, MAGIC)


def parse_tail(chunk: bytes, file_size_bytes: int, tail: bytes) -> Index:
    """The index of the file that should hold `chunk`.

    `tail` are the last min(file size, TAIL_MAX_BYTES) bytes of the file.  Raises CorruptChunk with
    the reason, or WrongVersion for a whole file of a newer format, which must be left alone.
    """
    if len(tail) < FOOTER_BYTES:
        raise CorruptChunk(f"{file_size_bytes} bytes are too few for a chunk file")
    checksum, version, magic = _END.unpack_from(tail, len(tail) - _END.size)
    if magic != MAGIC:
        raise CorruptChunk("no magic at the end: truncated, extended or not a chunk file")
    found, length, block_size, reserved = _FIELDS.unpack_from(tail, len(tail) - FOOTER_BYTES)
    body_bytes = tail_bytes(length) - _END.size if length <= CHUNK_MAX_BYTES else 0
    body = tail[len(tail) - _END.size - body_bytes : -_END.size]
    authentic = len(body) == body_bytes and _tail_checksum(body) == checksum
    if version != FORMAT_VERSION and not authentic:
        # Were the file ours with a damaged version field, its checksum would still be right.
        raise WrongVersion(
            f"chunk file of format {version}; this software reads format {FORMAT_VERSION}"
        )
    if not authentic or version != FORMAT_VERSION:
        raise CorruptChunk("index or footer damaged")
    if found != chunk:
        raise CorruptChunk(f"is chunk {found.hex()} under another name")
    if block_size != BLOCK_SIZE_BYTES or reserved != _RESERVED:
        raise CorruptChunk("footer with values that this format does not have")
    if length < 1 or file_size_bytes != length + tail_bytes(length):
        raise CorruptChunk(f"file of {file_size_bytes} bytes for a chunk of {length}")
    return Index(found, length, body[: -_FIELDS.size])


def check_blocks(
    chunk: bytes, data: bytes | bytearray | memoryview, checksums: bytes, first_block: int = 0
) -> None:
    """Raise CorruptChunk, naming the first bad block, unless `data` matches its checksums."""
    actual = block_checksums(chunk, data, first_block)
    if actual == checksums:
        return
    for block in range(max(len(actual), len(checksums)) // CHECKSUM_BYTES):
        at = slice(block * CHECKSUM_BYTES, (block + 1) * CHECKSUM_BYTES)
        if actual[at] != checksums[at]:
            raise CorruptChunk(f"block {first_block + block} does not match its checksum")
    raise CorruptChunk("checksums of a wrong size")


def _tail_checksum(body: bytes) -> bytes:
    return hashlib.blake2b(body, digest_size=16, person=b"dfs chunk tail 1").digest()
