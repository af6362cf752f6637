"""Ways in which a chunk file goes wrong behind chunkd's back."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

from chunkd.chunkfile import FOOTER_BYTES
from dfswire.chunks import CHECKSUM_BYTES, block_count
from dfswire.messages import BLOCK_SIZE_BYTES as BLOCK

SECTOR = 512

Damage = Callable[[Path, Path, random.Random], None]
"""Does it to the first file; the second is that of another chunk on the same disk."""


def payload_bytes(path: Path) -> int:
    """The length of the chunk in a whole file."""
    size = path.stat().st_size - FOOTER_BYTES
    blocks = -(-size // (BLOCK + CHECKSUM_BYTES))
    length = size - blocks * CHECKSUM_BYTES
    assert block_count(length) == blocks
    return length


def _flip(path: Path, offset: int, rng: random.Random) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 1 << rng.randrange(8)]))


def _overwrite(path: Path, offset: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        assert file.read(len(data)) != data
        file.seek(offset)
        file.write(data)


def flip_in_first_block(path: Path, other: Path, rng: random.Random) -> None:
    _flip(path, rng.randrange(min(BLOCK, payload_bytes(path))), rng)


def flip_in_middle_block(path: Path, other: Path, rng: random.Random) -> None:
    _flip(path, rng.randrange(payload_bytes(path)), rng)


def flip_last_byte(path: Path, other: Path, rng: random.Random) -> None:
    _flip(path, payload_bytes(path) - 1, rng)


def flip_in_checksums(path: Path, other: Path, rng: random.Random) -> None:
    length = payload_bytes(path)
    _flip(path, length + rng.randrange(CHECKSUM_BYTES * block_count(length)), rng)


def flip_in_footer(path: Path, other: Path, rng: random.Random) -> None:
    _flip(path, path.stat().st_size - 1 - rng.randrange(12, FOOTER_BYTES), rng)


def flip_in_magic(path: Path, other: Path, rng: random.Random) -> None:
    _flip(path, path.stat().st_size - 1 - rng.randrange(8), rng)


def flip_in_version(path: Path, other: Path, rng: random.Random) -> None:
    _flip(path, path.stat().st_size - 9 - rng.randrange(4), rng)


def zeroed(path: Path, other: Path, rng: random.Random) -> None:
    """A page, or what there is of it, is zeros."""
    length = payload_bytes(path)
    at = rng.randrange(0, length, 4096)
    _overwrite(path, at, bytes(min(4096, length - at)))


def torn(path: Path, other: Path, rng: random.Random) -> None:
    """From some sector on, the file has what was on the disk before."""
    size = path.stat().st_size
    at = rng.randrange(0, size, SECTOR)
    _overwrite(path, at, rng.randbytes(size - at))


def truncated(path: Path, other: Path, rng: random.Random) -> None:
    os.truncate(path, rng.randrange(1, path.stat().st_size))


def emptied(path: Path, other: Path, rng: random.Random) -> None:
    os.truncate(path, 0)


def extended(path: Path, other: Path, rng: random.Random) -> None:
    with path.open("ab") as file:
        file.write(rng.randbytes(rng.randrange(1, 2 * BLOCK)))


def footer_twice(path: Path, other: Path, rng: random.Random) -> None:
    """The right end stands behind too many bytes."""
    tail = path.read_bytes()[payload_bytes(path) :]
    with path.open("ab") as file:
        file.write(tail)


def misdirected(path: Path, other: Path, rng: random.Random) -> None:
    """Another chunk was written here: whole, and not this one."""
    shutil.copyfile(other, path)


def payload_of_another(path: Path, other: Path, rng: random.Random) -> None:
    """The right end behind bytes of another chunk."""
    length = min(payload_bytes(path), payload_bytes(other))
    _overwrite(path, 0, other.read_bytes()[:length])


def block_moved(path: Path, other: Path, rng: random.Random) -> None:
    """Right bytes in a wrong place of the same file."""
    length = payload_bytes(path)
    if length < 2 * BLOCK:
        return _flip(path, 0, rng)
    _overwrite(path, 0, path.read_bytes()[BLOCK : 2 * BLOCK])
    return None


def deleted(path: Path, other: Path, rng: random.Random) -> None:
    path.unlink()


def directory_deleted(path: Path, other: Path, rng: random.Random) -> None:
    shutil.rmtree(path.parent)


KINDS: tuple[Damage, ...] = (
    flip_in_first_block,
    flip_in_middle_block,
    flip_last_byte,
    flip_in_checksums,
    flip_in_footer,
    flip_in_magic,
    flip_in_version,
    zeroed,
    torn,
    truncated,
    emptied,
    extended,
    footer_twice,
    misdirected,
    payload_of_another,
    block_moved,
    deleted,
    directory_deleted,
)
