"""Where things lie in a data directory.

    DISK/identity            which cluster, server and disk this is (identity.py)
    DISK/lock                held with flock by the one process that uses the directory
    DISK/chunks/ab/cd/HEX    one file per chunk (chunkfile.py); names in .tmp are half-written
    DISK/quarantine/HEX.N    chunks found bad, kept for people
    DISK/unknown/HEX         chunks that metad does not know, kept for some days
    DISK/scrub               how far the scrubber is

Used by store.py; pure path arithmetic and one directory walk.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from dfswire.messages import CHUNK_ID_BYTES

TEMPORARY = ".tmp"

_CHUNK_NAME = re.compile(rf"[0-9a-f]{{{2 * CHUNK_ID_BYTES}}}")
_PREFIX_NAME = re.compile(r"[0-9a-f]{2}")


class Layout:
    """Paths of one data directory."""

    def __init__(self, root: Path) -> None:
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

    def walk(self, after: bytes = b"") -> Iterator[tuple[bytes, os.DirEntry[str]]]:
        """Chunks with an id greater than `after`, sorted, with their directory entries."""
        start = after.hex()
        for directory in self._leaves(start):
            for name, entry in _sorted_entries(directory, _CHUNK_NAME):
                if name > start:
                    yield bytes.fromhex(name), entry

    def temporaries(self) -> Iterator[Path]:
        """Half-written files that a crash left."""
        for directory in self._leaves(""):
            with os.scandir(directory) as entries:
                names = [entry.name for entry in entries if entry.name.endswith(TEMPORARY)]
            yield from (directory / name for name in names)

    def _leaves(self, start: str) -> Iterator[Path]:
        for first, _ in _sorted_entries(self.chunks, _PREFIX_NAME):
            if first >= start[:2]:
                for second, _ in _sorted_entries(self.chunks / first, _PREFIX_NAME):
                    if first + second >= start[:4]:
                        yield self.chunks / first / second


def chunk_of(name: str) -> bytes | None:
    """The chunk id that a file name stands for; None for other files."""
    return bytes.fromhex(name) if _CHUNK_NAME.fullmatch(name) else None


def _sorted_entries(
    directory: Path, pattern: re.Pattern[str]
) -> list[tuple[str, os.DirEntry[str]]]:
    try:
        with os.scandir(directory) as entries:
            found = [(entry.name, entry) for entry in entries if pattern.fullmatch(entry.name)]
    except FileNotFoundError:
        return []  # a directory that somebody removed holds nothing; the inventory will tell
    return sorted(found, key=lambda item: item[0])
