"""The chunk file format: whatever is done to a file, it is noticed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chunkd.chunkfile import (
    FOOTER_BYTES,
    TAIL_MAX_BYTES,
    Index,
    build_tail,
    check_blocks,
    parse_tail,
    tail_bytes,
)
from dfswire.chunks import block_checksums, chunk_digest
from dfswire.errors import CorruptChunk, WrongVersion
from dfswire.messages import BLOCK_SIZE_BYTES as BLOCK
from dfswire.messages import CHUNK_MAX_BYTES

ids = st.binary(min_size=16, max_size=16)
lengths = st.integers(1, 3 * BLOCK) | st.sampled_from([1, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK])

A = b"a" + bytes(range(15))
B = b"b" + bytes(range(15))


def file_of(chunk: bytes, data: bytes) -> bytes:
    return data + build_tail(chunk, len(data), block_checksums(chunk, data))


def read_whole(chunk: bytes, file: bytes) -> bytes:
    """As the store does: tail first, then the blocks."""
    index = parse_tail(chunk, len(file), file[-TAIL_MAX_BYTES:])
    data = file[: index.length]
    check_blocks(chunk, data, index.checksums)
    return data


def pattern(length: int) -> bytes:
    return (bytes(range(256)) * (length // 256 + 1))[:length]


@given(ids, lengths)
def test_round_trip(chunk: bytes, length: int) -> None:
    data = pattern(length)
    file = file_of(chunk, data)
    assert len(file) == length + tail_bytes(length)
    assert read_whole(chunk, file) == data
    index = parse_tail(chunk, len(file), file[-TAIL_MAX_BYTES:])
    assert index.digest == chunk_digest(chunk, length, block_checksums(chunk, data))


def test_the_largest_chunk_has_the_largest_tail() -> None:
    assert tail_bytes(CHUNK_MAX_BYTES) == TAIL_MAX_BYTES


@given(st.data(), lengths)
def test_any_flipped_bit_is_noticed(choice: st.DataObject, length: int) -> None:
    file = bytearray(file_of(A, pattern(length)))
    position = choice.draw(st.integers(0, len(file) - 1), label="position")
    file[position] ^= 1 << choice.draw(st.integers(0, 7), label="bit")
    with pytest.raises(CorruptChunk):
        read_whole(A, bytes(file))


def test_every_bit_of_index_and_footer_counts() -> None:
    file = file_of(A, pattern(BLOCK + 1))
    for position in range(BLOCK + 1, len(file)):
        for bit in range(8):
            damaged = bytearray(file)
            damaged[position] ^= 1 << bit
            with pytest.raises(CorruptChunk):
                parse_tail(A, len(file), bytes(damaged[-TAIL_MAX_BYTES:]))


@given(st.data(), lengths)
def test_truncation_and_extension_are_noticed(choice: st.DataObject, length: int) -> None:
    file = file_of(A, pattern(length))
    cut = choice.draw(st.integers(0, len(file) - 1), label="cut")
    for damaged in (file[:cut], file[cut:], file + b"\0", b"\0" + file, file + file):
        if damaged not in (file, b""):
            with pytest.raises(CorruptChunk):
                read_whole(A, damaged)
    with pytest.raises(CorruptChunk):
        read_whole(A, b"")


@given(ids, ids)
def test_a_valid_chunk_under_a_wrong_name_is_noticed(chunk: bytes, other: bytes) -> None:
    file = file_of(chunk, b"data")
    if chunk != other:
        with pytest.raises(CorruptChunk, match="another name"):
            read_whole(other, file)


def test_exchanged_blocks_are_noticed() -> None:
    data = pattern(BLOCK) + bytes(BLOCK)
    checksums = block_checksums(A, data)
    with pytest.raises(CorruptChunk, match="block 0"):
        check_blocks(A, data[BLOCK:] + data[:BLOCK], checksums)
    with pytest.raises(CorruptChunk, match="block 7"):
        check_blocks(A, data, block_checksums(A, data, 6)[:8] + checksums[:8], 6)
    with pytest.raises(CorruptChunk, match="wrong size"):
        check_blocks(A, data, checksums + b"x")


def test_a_newer_format_is_refused_not_condemned() -> None:
    newer = b"something else entirely".ljust(FOOTER_BYTES, b".") + (2).to_bytes(4, "big")
    with pytest.raises(WrongVersion, match="format 2"):
        parse_tail(A, 1000, newer + b"DFSchunk")


def test_a_footer_that_is_authentic_but_impossible_is_refused() -> None:
    for length, size in [(0, tail_bytes(0)), (5, 500)]:
        tail = build_tail(A, length, bytes(8 * (length > 0)))
        with pytest.raises(CorruptChunk, match=r"for a chunk of"):
            parse_tail(A, size, tail)


@given(st.integers(1, 5 * BLOCK), st.integers(0, 5), st.integers(1, 6))
def test_range_checksums_are_those_of_the_blocks(length: int, first: int, count: int) -> None:
    data = pattern(length)
    index = Index(B, length, block_checksums(B, data))
    offset, end = first * BLOCK, min((first + count) * BLOCK, length)
    if offset < end:
        expected = block_checksums(B, data[offset:end], first)
        assert index.range_checksums(offset, end - offset) == expected
