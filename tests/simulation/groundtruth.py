"""Which blocks of which files are lost, by the bytes on the simulated disks and nothing else.

The mode `beyond` asks it before and after the product has dealt with damage.  While every copy is
whole it remembers what chunk files are; later a block is there when some file of its chunk,
wherever a daemon has put it, still has these bytes, and some file the checksums that say so (its
index, or a whole payload to compute them from).  None of the product's code that verifies is used.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import NamedTuple

from metad.storage.statements import Row
from tests.simulation.cluster import BLOCK_BYTES, Cluster
from tests.simulation.history import Violation

CHECKSUM_BYTES = 8

Ranges = tuple[tuple[int, int], ...]  # start and end, in order, none touches the next


@dataclass(frozen=True)
class Original:
    """A chunk file as it was stored."""

    payload: bytes
    tail: bytes  # index and footer

    @property
    def blocks(self) -> range:
        return range(-(-len(self.payload) // BLOCK_BYTES))

    def block(self, number: int) -> slice:
        return slice(number * BLOCK_BYTES, min((number + 1) * BLOCK_BYTES, len(self.payload)))

    def is_vouched_by(self, content: bytes) -> bool:
        """Are the checksums of all blocks known from this file?"""
        end = len(self.payload)
        index = self.tail[: len(self.blocks) * CHECKSUM_BYTES]
        return content[:end] == self.payload or content[end : end + len(index)] == index

    def lost(self, contents: Collection[bytes]) -> set[int]:
        """The blocks that cannot be had of these files."""
        if not any(self.is_vouched_by(content) for content in contents):
            return set(self.blocks)
        return self._without(contents)

    def hidden(self, contents: Collection[bytes]) -> set[int]:
        """The blocks that only files with a damaged tail have, or none: they may be put together
        with others to a whole chunk, but nobody serves them by themselves."""
        end = len(self.payload)
        return self._without([content for content in contents if content[end:] == self.tail])

    def _without(self, contents: Collection[bytes]) -> set[int]:
        return {
            number
            for number in self.blocks
            if not any(
                content[self.block(number)] == self.payload[self.block(number)]
                for content in contents
            )
        }


class Extent(NamedTuple):
    """A part of a file that is a part of a chunk."""

    inode: int
    offset: int
    length: int
    chunk: bytes
    chunk_offset: int


class GroundTruth:
    """See the module's text."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self.originals: dict[bytes, Original] = {}

    def remember(self, files: dict[int, bytes]) -> None:
        """All copies are good, and the files (by inode) have this content: see that it is so."""
        lengths = self._rows("SELECT id, length FROM chunk WHERE state = 'live'")
        for chunk, length in lengths:
            contents = set(self._contents(chunk))
            if len(contents) != 1:
                raise Violation("I6", f"chunk {chunk.hex()[:8]} is {len(contents)} different files")
            (content,) = contents
            self.originals[chunk] = Original(content[:length], content[length:])
        for extent in self.extents():
            payload = self.originals[extent.chunk].payload
            stored = payload[extent.chunk_offset : extent.chunk_offset + extent.length]
            if stored != files[extent.inode][extent.offset : extent.offset + extent.length]:
                raise Violation("I2", f"the disks have other bytes for {extent}")

    def lost_blocks(self) -> dict[bytes, set[int]]:
        """Of the live chunks that are not whole any more."""
        found = {}
        for (chunk,) in self._rows("SELECT id FROM chunk WHERE state = 'live'"):
            original = self.originals.get(chunk)
            lost = original.lost(self._contents(chunk)) if original is not None else set()
            if lost:
                found[chunk] = lost
        return found

    def hidden_blocks(self) -> dict[bytes, set[int]]:
        """Of chunks that cannot be made whole: those that are not served, the lost ones too."""
        return {
            chunk: self.originals[chunk].hidden(self._contents(chunk)) | lost
            for chunk, lost in self.lost_blocks().items()
        }

    def spoilt_blocks(self) -> dict[bytes, set[int]]:
        """All blocks of chunks without a whole copy."""
        return {
            chunk: set(original.blocks)
            for chunk, original in self.originals.items()
            if original.payload + original.tail not in self._contents(chunk)
        }

    def ranges(self, blocks: dict[bytes, set[int]]) -> dict[int, Ranges]:
        """Where files have these blocks, by their inodes."""
        found: dict[int, list[tuple[int, int]]] = {}
        for extent in self.extents():
            for number in blocks.get(extent.chunk, ()):
                at = self.originals[extent.chunk].block(number)
                start = max(at.start - extent.chunk_offset, 0)
                end = min(at.stop - extent.chunk_offset, extent.length)
                if start < end:
                    ranges = found.setdefault(extent.inode, [])
                    ranges.append((extent.offset + start, extent.offset + end))
        return {inode: joined(ranges) for inode, ranges in found.items()}

    def extents(self) -> list[Extent]:
        """Those of all files, without what is inline or a hole."""
        return [
            Extent(*row)
            for row in self._rows(
                "SELECT inode, offset, length, chunk, chunk_offset FROM extent "
                "WHERE chunk IS NOT NULL ORDER BY inode, offset"
            )
        ]

    def _contents(self, chunk: bytes) -> list[bytes]:
        return [
            content for machine in self._cluster.machines for content in machine.disk.remains(chunk)
        ]

    def _rows(self, sql: str) -> list[Row]:
        database = self._cluster.database
        assert database is not None
        return list(database.read(sql))


def joined(ranges: Collection[tuple[int, int]]) -> Ranges:
    """In order, with those that touch made one."""
    found: list[tuple[int, int]] = []
    for start, end in sorted(ranges):
        if found and found[-1][1] == start:
            found[-1] = (found[-1][0], end)
        else:
            found.append((start, end))
    return tuple(found)


def touches(ranges: Ranges, start: int, end: int) -> bool:
    """Is some byte of [start, end) in one of the ranges?"""
    return any(first < end and start < last for first, last in ranges)
