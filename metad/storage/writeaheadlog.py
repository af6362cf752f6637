"""SQLite's write-ahead log as bytes: which pages it holds, in what was committed.

Read beside SQLite by the one who checkpoints it (pagesums.py), so nothing moves meanwhile, and
before SQLite opens it (sumsfile.py).  The formats are those of
https://www.sqlite.org/walformat.html: the index (PATH-shm) says in native byte order how many
frames count; the log (PATH-wal) has a header of 32 bytes, and before each page one of 24 with its
number.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

INDEX = struct.Struct("=16xII8x8s")  # mxFrame, nPage, aSalt; the header of the index has 48 bytes
LOG_HEADER_BYTES, FRAME_HEADER_BYTES = 32, 24
LOG_HEADER = struct.Struct(">8xI4x8s8x")
FRAME = struct.Struct(">I4x8s8x")


class Extent(NamedTuple):
    """How much of the log counts, and how many pages the database has then (0 without frames);
    `salt` changes when it begins anew."""

    frames: int
    pages: int
    salt: bytes


NOTHING = Extent(0, 0, b"")


class Log:
    """The log of the database at `path`, which this process has open and has read.

    Its descriptors must not be closed while SQLite has the database open, see pagesums.py.  Raises
    OSError.
    """

    def __init__(self, path: str) -> None:
        self._path = path + "-wal"
        self._log = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._index = os.open(path + "-shm", os.O_RDONLY | os.O_CLOEXEC)
        except BaseException:
            os.close(self._log)
            raise

    def extent(self) -> Extent:
        """What is committed now.  Raises OSError."""
        frames, pages, salt = INDEX.unpack(os.pread(self._index, INDEX.size, 0))
        return Extent(frames, pages if frames else 0, salt)

    def pages(self, first: int, extent: Extent, page_bytes: int) -> Iterator[tuple[int, bytes]]:
        """(number, content) of frames `first` (from 1 on) to the last.  Raises OSError, ValueError.

        A page may come more than once; the last content counts.
        """
        if first > extent.frames:
            return
        size, salt = LOG_HEADER.unpack(os.pread(self._log, LOG_HEADER_BYTES, 0))
        if size != page_bytes or salt != extent.salt:
            raise ValueError(f"{self._path} is not the log that its index tells of")
        step = FRAME_HEADER_BYTES + page_bytes
        for frame in range(first, extent.frames + 1):
            data = os.pread(self._log, step, LOG_HEADER_BYTES + (frame - 1) * step)
            if len(data) < step:
                raise ValueError(f"{self._path} ends in frame {frame} of {extent.frames}")
            number, found = FRAME.unpack(data[:FRAME_HEADER_BYTES])
            if found != salt:
                raise ValueError(f"{self._path}: frame {frame} is of another log")
            yield number, data[FRAME_HEADER_BYTES:]

    def close(self) -> None:
        """After SQLite has closed the database."""
        os.close(self._index)
        os.close(self._log)


def pages_in(path: str, page_bytes: int) -> set[int]:
    """Numbers of pages in the log of a database that nobody has open, be they committed or not.

    Behind its newest frames there may be older ones, of before it began anew: those have been moved
    into the database and synced, and do not count.
    """
    numbers = set[int]()
    step = FRAME_HEADER_BYTES + page_bytes
    try:
        with Path(path + "-wal").open("rb") as file:
            header = file.read(LOG_HEADER_BYTES)
            if len(header) < LOG_HEADER_BYTES:
                return numbers
            _size, salt = LOG_HEADER.unpack(header)
            while len(data := file.read(step)) >= FRAME.size:
                number, found = FRAME.unpack(data[: FRAME.size])
                if found != salt:
                    break
                numbers.add(number)
    except FileNotFoundError:
        return set()
    return numbers


def size_of(path: str) -> int:
    """Of a file that may not be there."""
    try:
        return Path(path).stat().st_size
    except FileNotFoundError:
        return 0
