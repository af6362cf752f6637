"""What is left of a damaged chunk: which blocks can still be believed.

A damaged file has a wrong bit somewhere, or an end that is missing; most of its 64 KiB blocks are
as they were.  Whether one is, only checksums can say that the digest in metad's database vouches
for: from the index of any copy (even one whose footer is damaged), or recomputed from a payload
that is whole.  Two copies with different wrong blocks make a whole chunk together.  Pure.
"""

from __future__ import annotations

from dfswire.chunks import CHECKSUM_BYTES, block_checksums, block_count, chunk_digest
from dfswire.messages import BLOCK_SIZE_BYTES

Octets = bytes | bytearray | memoryview


def vouched_checksums(chunk: bytes, length: int, digest: bytes, content: Octets) -> bytes:
    """The checksums that fit the digest, from the content of a damaged file; empty if it has none.

    `content` starts with the payload, wherever the file ends.
    """
    if len(content) < length:
        return b""
    index = bytes(content[length : length + block_count(length) * CHECKSUM_BYTES])
    for checksums in (index, block_checksums(chunk, memoryview(content)[:length])):
        if chunk_digest(chunk, length, checksums) == digest:
            return checksums
    return b""


def good_blocks(chunk: bytes, length: int, checksums: bytes, content: Octets) -> dict[int, bytes]:
    """The blocks in a damaged file that match their checksums."""
    view = memoryview(content)[:length]
    actual = block_checksums(chunk, view)
    found = {}
    for at in range(0, len(actual), CHECKSUM_BYTES):
        if actual[at : at + CHECKSUM_BYTES] == checksums[at : at + CHECKSUM_BYTES]:
            block = at // CHECKSUM_BYTES
            found[block] = bytes(view[block * BLOCK_SIZE_BYTES : (block + 1) * BLOCK_SIZE_BYTES])
    return found


def block_length(length: int, block: int) -> int:
    """How many bytes a block of a chunk of `length` bytes has."""
    return min(BLOCK_SIZE_BYTES, length - block * BLOCK_SIZE_BYTES)
