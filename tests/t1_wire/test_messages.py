"""What messages refuse, and the checksums that bind chunks to their names."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dfswire import codec
from dfswire.chunks import WriteChunk, block_checksums, block_count, chunk_digest
from dfswire.errors import ProtocolError
from dfswire.inventories import Inventory
from dfswire.messages import BLOCK_SIZE_BYTES, FILE_MAX_BYTES, Extent, Message
from dfswire.operations import Create, Link, Rename, RmDir, Unlink

CHUNK = bytes(range(16))
OTHER = bytes(range(1, 17))


@pytest.mark.parametrize("name", [b".", b"..", b"a/b", b"a\0b"])
def test_what_cannot_be_a_name_is_in_no_operation(name: bytes) -> None:
    for make in (
        lambda: Create(parent=1, name=name, mode=0, uid=0, gid=0),
        lambda: Link(inode=2, parent=1, name=name),
        lambda: Unlink(parent=1, name=name),
        lambda: RmDir(parent=1, name=name),
        lambda: Rename(parent=1, name=name, new_parent=1, new_name=b"a"),
        lambda: Rename(parent=1, name=b"a", new_parent=1, new_name=name),
    ):
        with pytest.raises(ValueError, match="not a file name"):
            make()


@pytest.mark.parametrize(
    "fields",
    [
        {"offset": FILE_MAX_BYTES, "length": 1, "data": b"x"},
        {"offset": 0, "length": 1, "chunk": b"short"},
        {"offset": 0, "length": 1, "chunk": CHUNK, "data": b"x"},
        {"offset": 0, "length": 2, "data": b"x"},
        {"offset": 0, "length": 1},
    ],
)
def test_extents_that_cannot_be(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="extent"):
        Extent(**fields)


def test_lists_of_the_wrong_length() -> None:
    with pytest.raises(ValueError, match="checksums"):
        WriteChunk(chunk=CHUNK, length=BLOCK_SIZE_BYTES + 1, checksums=bytes(8), disk="d")
    with pytest.raises(ValueError, match="chunk ids"):
        Inventory(server_id="s", incarnation=1, disk="d", first=CHUNK, last=CHUNK, chunks=b"short")


class _Loose(Message, frozen=True, kw_only=True):
    """An Extent as a peer without our checks would send it."""

    offset: int
    length: int
    chunk: bytes = b""
    data: bytes = b""


def test_the_same_is_refused_when_it_arrives() -> None:
    with pytest.raises(ProtocolError, match="extent"):
        codec.decode(Extent, codec.encode(_Loose(offset=0, length=2, data=b"x")))
    with pytest.raises(ProtocolError):
        codec.decode(Extent, codec.encode(_Loose(offset=-1, length=1, data=b"x")))


@given(st.binary(min_size=1, max_size=3 * BLOCK_SIZE_BYTES))
def test_one_checksum_for_each_block(data: bytes) -> None:
    sums = block_checksums(CHUNK, data)
    assert len(sums) == 8 * block_count(len(data))
    rest = block_checksums(CHUNK, data[BLOCK_SIZE_BYTES:], first_block=1)
    assert sums[8:] == rest


def test_checksums_bind_bytes_to_name_and_place() -> None:
    block = bytes(BLOCK_SIZE_BYTES)
    first = block_checksums(CHUNK, block)
    assert block_checksums(OTHER, block) != first
    assert block_checksums(CHUNK, block, first_block=1) != first
    assert block_checksums(CHUNK, block[:-1] + b"\1") != first
    assert chunk_digest(CHUNK, 1, first) != chunk_digest(CHUNK, 2, first)
    assert chunk_digest(OTHER, 1, first) != chunk_digest(CHUNK, 1, first)
