"""Where things lie in a data directory.

    DISK/identity            which cluster, server and disk this is (identity.py)
    DISK/lock                held with flock by the one process that uses the directory
    DISK/chunks/ab/cd/HEX    one file per chunk (chunkfile.py); names in .tmp are half-written
    DISK/quarantine/HEX.N    chunks found bad, kept for people
    DISK/unknown/HEX         chunks that metad does not know, kept for some days
    DISK/scrub               how far the scrubber is

Used by all parts of the store; path arithmetic, and one directory walk through the seam of
filesystem.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from chunkd.filesystem import FileSystem
from dfswire.messages import CHUNK_ID_BYTES

TEMPORARY = ".tmp"
TICK_S = 2.0  # the times of a file system may be as coarse as that
UNSURE = -1.0

_CHUNK_NAME = re.compile(rf"[0-9a-f]{{{2 * CHUNK_ID_BYTES}}}")
_PREFIX_NAME = re.compile(r"[0-9a-f]{2}")


class Leaf(NamedTuple):
    """A directory of chunks: when names in it changed last (or UNSURE), and their ids."""

    changed_s: float
    chunks: bytes  # sorted and concatenated: a million of them in 16 MB


class Layout:
    """Paths of one data directory."""

    def __init__(self, root: Path, files: FileSystem | None = None) -> None:
        self._files = files or FileSystem()
        self.root = root
        self.chunks = root / "chunks"
        self.quarantine = root / "quarantine"
        self.unknown = root / "unknown"
        self.scrub = root / "scrub"

    def directory(self, chunk: bytes) -> Path:
        """The directory of a chunk's file.  Two levels: 15 files each at a million chunks."""
        name = chunk.hex()
        return self.chunks / name[:2] / name[2:4]

    def file(self, chunk: bytes) -> Path:
        """The chunk's file."""
        return self.directory(chunk) / chunk.hex()

    def walk(self, after: bytes = b"") -> Iterator[tuple[bytes, Path]]:
        """Chunks with an id greater than `after`, sorted, with their files."""
        start = after.hex()
        for directory in self._leaves(start):
            for name in self._names(directory, _CHUNK_NAME):
                if name > start:
                    yield bytes.fromhex(name), directory / name

    def leaves(self, seen: Mapping[bytes, Leaf], now_s: float) -> dict[bytes, Leaf]:
        """All directories of chunks, by the two bytes that their chunks begin with.

        One that has not changed since it was `seen` is not read again.
        """
        found: dict[bytes, Leaf] = {}
        for directory in self._leaves(""):
            prefix = bytes.fromhex(directory.parent.name + directory.name)
            before = seen.get(prefix)
            try:
                changed_s = self._files.changed_s(directory)
            except FileNotFoundError:
                continue
            if before is not None and before.changed_s == changed_s:
                found[prefix] = before
                continue
            names = self._names(directory, _CHUNK_NAME)
            # What changes once more in the same tick of the clock looks as if it did not.
            sure = changed_s < now_s - TICK_S
            chunks = b"".join(map(bytes.fromhex, names))
            found[prefix] = Leaf(changed_s if sure else UNSURE, chunks)
        return found

    def temporaries(self) -> Iterator[Path]:
        """Half-written files that a crash left."""
        for directory in self._leaves(""):
            names = [name for name in self._files.names(directory) if name.endswith(TEMPORARY)]
            yield from (directory / name for name in names)

    def _leaves(self, start: str) -> Iterator[Path]:
        for first in self._names(self.chunks, _PREFIX_NAME):
            if first >= start[:2]:
                for second in self._names(self.chunks / first, _PREFIX_NAME):
                    if first + second >= start[:4]:
                        yield self.chunks / first / second

    def _names(self, directory: Path, pattern: re.Pattern[str]) -> list[str]:
        try:
            return sorted(name for name in self._files.names(directory) if pattern.fullmatch(name))
        except FileNotFoundError:
            return []  # a directory that somebody removed holds nothing; the inventory will tell


def chunk_of(name: str) -> bytes | None:
    """The chunk id that a file name stands for; None for other files."""
    return bytes.fromhex(name) if _CHUNK_NAME.fullmatch(name) else None
