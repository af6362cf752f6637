"""Ranges of a file and what lies in them: the arithmetic under layouts, packs and dirty data.

A `RangeMap` holds sorted, non-overlapping ranges; laying a range over others trims and splits them,
and joins neighbours that continue the same value.  It is pure: no clock, no I/O, no awaits.
Appending at the end is O(1), everything else is a bisection plus the move of a list's tail
(measured: 65,536 ranges, 12 us for an insertion in the middle).
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Container, Iterator
from typing import Generic, NamedTuple, TypeVar

T = TypeVar("T")


class Range(NamedTuple, Generic[T]):
    """`length` bytes from `offset` of the file are the bytes of `value` from `value_offset`."""

    offset: int
    length: int
    value: T
    value_offset: int

    @property
    def end(self) -> int:
        """The first offset behind the range."""
        return self.offset + self.length

    def clip(self, offset: int, end: int) -> Range[T]:
        """The part of this range inside [offset, end), which must not be empty."""
        start = max(offset, self.offset)
        length = min(end, self.end) - start
        return Range(start, length, self.value, self.value_offset + start - self.offset)


class RangeMap(Generic[T]):
    """Sorted, non-overlapping ranges.  Values are told apart by identity, not by equality."""

    __slots__ = ("_ranges", "_starts")

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._ranges: list[Range[T]] = []

    def __len__(self) -> int:
        return len(self._ranges)

    def __iter__(self) -> Iterator[Range[T]]:
        return iter(self._ranges)

    @property
    def end(self) -> int:
        """The first offset behind the last range; 0 when there is none."""
        return self._ranges[-1].end if self._ranges else 0

    def lay(self, offset: int, length: int, value: T, value_offset: int = 0) -> None:
        """Put a range over whatever was there before."""
        if length <= 0:
            return
        new = Range(offset, length, value, value_offset)
        if offset >= self.end:
            self._append(new)
            return
        low, high, kept = self._carve(offset, offset + length)
        place = 1 if kept and kept[0].offset < offset else 0
        kept.insert(place, new)
        if low and place == 0 and self._ranges[low - 1].end == offset:
            low -= 1
            kept.insert(0, self._ranges[low])
        if high < len(self._ranges) and kept[-1].end == self._starts[high]:
            kept.append(self._ranges[high])
            high += 1
        self._replace(low, high, _joined(kept))

    def cut(self, offset: int, end: int) -> None:
        """Forget everything in [offset, end)."""
        if offset >= end:
            return
        low, high, kept = self._carve(offset, end)
        if low < high:
            self._replace(low, high, kept)

    def discard(self, values: Container[T]) -> None:
        """Forget every range of these values (one pass over the map)."""
        self._ranges = [range_ for range_ in self._ranges if range_.value not in values]
        self._starts = [range_.offset for range_ in self._ranges]

    def clear(self) -> None:
        """Forget everything."""
        self._starts.clear()
        self._ranges.clear()

    def covered(self, offset: int, end: int) -> list[Range[T]]:
        """What is known in [offset, end), clipped to it, without the gaps."""
        low, high = self._span(offset, end)
        return [range_.clip(offset, end) for range_ in self._ranges[low:high]]

    def pieces(self, offset: int, length: int) -> list[Range[T | None]]:
        """All of [offset, offset+length) in order; a gap is a piece whose value is None."""
        end = offset + length
        found: list[Range[T | None]] = []
        for piece in self.covered(offset, end):
            if piece.offset > offset:
                found.append(Range(offset, piece.offset - offset, None, 0))
            found.append(Range(*piece))
            offset = piece.end
        if offset < end:
            found.append(Range(offset, end - offset, None, 0))
        return found

    def _append(self, new: Range[T]) -> None:
        last = self._ranges[-1] if self._ranges else None
        if last is not None and _continues(last, new):
            self._ranges[-1] = _join(last, new)
        else:
            self._starts.append(new.offset)
            self._ranges.append(new)

    def _span(self, offset: int, end: int) -> tuple[int, int]:
        """Indices [low, high) of the ranges that touch [offset, end)."""
        low = bisect_right(self._starts, offset)
        if low and self._ranges[low - 1].end > offset:
            low -= 1
        return low, max(low, bisect_left(self._starts, end, low))

    def _carve(self, offset: int, end: int) -> tuple[int, int, list[Range[T]]]:
        """The span of [offset, end), and what of it sticks out on the left and on the right."""
        low, high = self._span(offset, end)
        kept: list[Range[T]] = []
        if low < high:
            first, last = self._ranges[low], self._ranges[high - 1]
            if first.offset < offset:
                kept.append(first.clip(first.offset, offset))
            if last.end > end:
                kept.append(last.clip(end, last.end))
        return low, high, kept

    def _replace(self, low: int, high: int, ranges: list[Range[T]]) -> None:
        self._ranges[low:high] = ranges
        self._starts[low:high] = [range_.offset for range_ in ranges]


def _continues(left: Range[T], right: Range[T]) -> bool:
    return (
        left.value is right.value
        and left.end == right.offset
        and left.value_offset + left.length == right.value_offset
    )


def _join(left: Range[T], right: Range[T]) -> Range[T]:
    return Range(left.offset, left.length + right.length, left.value, left.value_offset)


def _joined(ranges: list[Range[T]]) -> list[Range[T]]:
    """The same ranges with those joined that continue each other."""
    result = ranges[:1]
    for range_ in ranges[1:]:
        if _continues(result[-1], range_):
            result[-1] = _join(result[-1], range_)
        else:
            result.append(range_)
    return result
