"""What a file must contain: a size, and its bytes in pages; a page that is missing is all zeros.

Used by fsx as the truth.  Pages keep a file of 16 TiB with a few islands of data small, and work as
fast as one array for small files.
"""

from __future__ import annotations

from collections.abc import Iterator

PAGE_BYTES = 1 << 16
ZEROS = bytes(PAGE_BYTES)


class Model:
    """One file."""

    def __init__(self) -> None:
        self.size = 0
        self._pages: dict[int, bytearray] = {}

    def read(self, offset: int, length: int) -> bytes:
        """As pread(2): short at the end of the file."""
        end = min(offset + length, self.size)
        parts = [self._page(number)[first:last] for number, first, last in _pieces(offset, end)]
        return bytes(parts[0]) if len(parts) == 1 else b"".join(parts)

    def _page(self, number: int) -> bytes | bytearray:
        return self._pages.get(number, ZEROS)

    def write(self, offset: int, data: bytes) -> None:
        if not data:
            return
        done = 0
        for number, first, last in _pieces(offset, offset + len(data)):
            page = self._pages.get(number)
            if page is None:
                page = self._pages[number] = bytearray(PAGE_BYTES)
            page[first:last] = data[done : done + last - first]
            done += last - first
        self.size = max(self.size, offset + len(data))

    def truncate(self, size: int) -> None:
        if size < self.size:
            self._clear(size, self.size)
        self.size = size

    def zero(self, offset: int, length: int) -> None:
        """These bytes are zero from now on; the size stays."""
        self._clear(offset, min(offset + length, self.size))

    def _clear(self, start: int, end: int) -> None:
        for number in self._between(start, end):
            begin = number * PAGE_BYTES
            first, last = max(0, start - begin), min(PAGE_BYTES, end - begin)
            if last - first == PAGE_BYTES:
                del self._pages[number]
            else:
                self._pages[number][first:last] = bytes(last - first)

    def is_zero(self, start: int, end: int) -> bool:
        """Nothing but zeros from `start` to `end`?"""
        for number in self._between(start, end):
            begin = number * PAGE_BYTES
            piece = self._pages[number][max(0, start - begin) : min(PAGE_BYTES, end - begin)]
            if any(piece):
                return False
        return True

    def islands(self) -> list[int]:
        """The offsets of all pages that may hold something else than zeros."""
        return sorted(number * PAGE_BYTES for number in self._pages)

    def _between(self, start: int, end: int) -> list[int]:
        """The pages that exist in a range, which may be terabytes long."""
        if end <= start:
            return []
        first, last = start // PAGE_BYTES, (end - 1) // PAGE_BYTES
        if last - first < len(self._pages):
            return [number for number in range(first, last + 1) if number in self._pages]
        return [number for number in sorted(self._pages) if first <= number <= last]


def _pieces(offset: int, end: int) -> Iterator[tuple[int, int, int]]:
    """(page, first byte in it, last byte in it + 1) of a range."""
    while offset < end:
        number, first = divmod(offset, PAGE_BYTES)
        last = min(PAGE_BYTES, first + end - offset)
        yield number, first, last
        offset += last - first
