"""PATH-sums: what each page of metad's database PATH should be.

SQLite looks at the structure of its pages, and would serve a name or a small file in which a bit
has rotted.  This file has a header of 16 bytes (magic, page size), then XXH3-64 of the number and
content of one page after the other, eight bytes each, little-endian; 0 for a page that was never
written.  pagesums.py keeps it while metad has the database open; before that, and for `dfs metad
check`, `damaged_at_rest` compares the two.
"""

from __future__ import annotations

import os
import struct
import sys
from array import array
from collections.abc import Sequence
from pathlib import Path

import xxhash

from dfswire.errors import UsageError
from metad.storage.durable import sync_path
from metad.storage.writeaheadlog import pages_in, size_of

SUFFIX = "-sums"
HEADER = struct.Struct("<8sII")
MAGIC = b"DFSsums1"
SUM_BYTES = 8
READ_PAGES = 256
PAGE_MIN_BYTES = 512
SHOWN_MAX = 5


def page_sum(number: int, content: bytes) -> int:
    """Of one page; never 0.  With its number: a page in another's place is damage, too."""
    return xxhash.xxh3_64_intdigest(content, seed=number) or 1


class SumsFile:
    """The open file; made when there is none.  Raises OSError, also in its methods; UsageError when
    it is not such a file."""

    def __init__(self, database: str) -> None:
        self._path = Path(database + SUFFIX)
        self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self.page_bytes = _page_bytes(os.pread(self._fd, HEADER.size, 0), self._path)

    def put(self, number: int, value: int) -> None:
        """What page `number` is from now on."""
        place = HEADER.size + (number - 1) * SUM_BYTES
        os.pwrite(self._fd, value.to_bytes(SUM_BYTES, "little"), place)

    def of(self, first: int, count: int) -> array[int]:
        """What `count` pages from `first` on are; fewer at the end."""
        place = HEADER.size + (first - 1) * SUM_BYTES
        return _parsed(os.pread(self._fd, count * SUM_BYTES, place))

    def cut(self, pages: int) -> None:
        """The database has so many pages; what was beyond them is no more."""
        end = HEADER.size + pages * SUM_BYTES
        if end < os.fstat(self._fd).st_size:
            os.ftruncate(self._fd, end)

    def sync(self) -> None:
        """What was put is on disk."""
        os.fdatasync(self._fd)

    def finish(self, page_bytes: int) -> None:
        """The sums of a whole database have been put: from now on they count."""
        os.fsync(self._fd)
        os.pwrite(self._fd, HEADER.pack(MAGIC, page_bytes, 0), 0)
        os.fsync(self._fd)
        sync_path(self._path.parent)
        self.page_bytes = page_bytes

    def close(self) -> None:
        os.close(self._fd)


def differing(data: bytes, sums: Sequence[int], page_bytes: int, first: int) -> list[int]:
    """Numbers of the pages that are not what `sums` say; both begin with page `first`.

    SQLite leaves out pages that were taken and freed in one transaction, and the page at 1 GiB,
    where its locks are: what never was written is not looked at.
    """
    found = []
    for index, known in enumerate(sums):
        start = index * page_bytes
        if known and known != page_sum(first + index, data[start : start + page_bytes]):
            found.append(first + index)
    return found


def damaged_at_rest(path: str) -> tuple[list[int], list[int]]:
    """Pages that are not what they should be, in a database that nobody has open; and those that
    need not be, as the log has them: they may be half-way into it, or not yet.

    None without (finished) sums.  Raises UsageError when the sums are damaged; OSError.
    """
    try:
        data = Path(path + SUFFIX).read_bytes()
    except FileNotFoundError:
        return [], []
    page_bytes = _page_bytes(data[: HEADER.size], Path(path + SUFFIX))
    if not page_bytes or not size_of(path):
        return [], []
    sums, found = _parsed(data[HEADER.size :]), list[int]()
    with Path(path).open("rb") as database:
        for start in range(0, len(sums), READ_PAGES):
            part = database.read(READ_PAGES * page_bytes)
            found += differing(part, sums[start : start + READ_PAGES], page_bytes, start + 1)
    in_log = pages_in(path, page_bytes) if found else set[int]()
    damaged = [number for number in found if number not in in_log]
    return damaged, [number for number in found if number in in_log]


def forget_sums(path: str) -> None:
    """Another database will be there, or one that is whole for certain.  Raises OSError."""
    sums = Path(path + SUFFIX)
    if sums.exists():
        sums.unlink()
        sync_path(sums.parent)  # or they were back after a power cut, beside that other one


def described(numbers: Sequence[int], path: str) -> str:
    """That they are damaged, and what to do, for people."""
    first = ", ".join(map(str, numbers[:SHOWN_MAX]))
    more = ", ..." if len(numbers) > SHOWN_MAX else ""
    what = f"page {first} is" if len(numbers) == 1 else f"{len(numbers)} pages ({first}{more}) are"
    return (
        f"{what} damaged, restore a backup (a bit has rotted, or another program has written; if "
        f"this database was put here on purpose, remove {path}{SUFFIX})"
    )


def _parsed(data: bytes) -> array[int]:
    sums = array("Q", data[: len(data) - len(data) % SUM_BYTES])
    if sys.byteorder == "big":
        sums.byteswap()
    return sums


def _page_bytes(header: bytes, path: Path) -> int:
    """0 when the sums were never finished.  Raises UsageError."""
    if len(header) < HEADER.size or not any(header):
        return 0
    magic, page_bytes, _none = HEADER.unpack(header)
    if magic != MAGIC and magic[:-1] == MAGIC[:-1]:
        raise UsageError(f"{path} was written by a newer metad (version {chr(magic[-1])})")
    if magic != MAGIC or page_bytes < PAGE_MIN_BYTES:
        raise UsageError(f"{path} is damaged: remove it if the database is known to be whole")
    return int(page_bytes)
