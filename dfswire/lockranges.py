"""Byte ranges that one owner has locked in one file: how fcntl(2) splits and merges them.

Pure functions on sorted lists of ranges that neither overlap nor touch another of the same type.
metad keeps who holds what in such lists, and each client what it holds itself.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from operator import attrgetter

import msgspec

from dfswire.locks import LockType, Range

_end = attrgetter("end")


def changed(ranges: Sequence[Range], wanted: Range) -> list[Range]:
    """What the owner holds after `wanted`, which replaces whatever it held of these bytes."""
    start, end = wanted.start, wanted.end
    first = bisect_left(ranges, start - 1, key=_end)  # the first that touches or overlaps
    result = list(ranges[:first])
    behind: list[Range] = []
    at = first
    for held in ranges[first:]:
        if held.start > end + 1:
            break
        at += 1
        if held.type == wanted.type:  # becomes part of the new one
            start, end = min(start, held.start), max(end, held.end)
            continue
        if held.start < wanted.start:
            result.append(_cut(held, held.start, min(held.end, wanted.start - 1)))
        if held.end > wanted.end:
            behind.append(_cut(held, max(held.start, wanted.end + 1), held.end))
    if wanted.type != LockType.UNLOCK:
        result.append(_cut(wanted, start, end))
    return [*result, *behind, *ranges[at:]]


def in_the_way(ranges: Sequence[Range], wanted: Range) -> Range | None:
    """The first range of another owner that `wanted` can't be granted beside."""
    for held in _overlapping(ranges, wanted):
        if LockType.WRITE in (held.type, wanted.type):
            return held
    return None


def within(ranges: Sequence[Range], start: int, end: int) -> list[Range]:
    """What is held of these bytes, cut to them."""
    span = Range(type=LockType.READ, start=start, end=end)
    return [
        _cut(held, max(held.start, start), min(held.end, end))
        for held in _overlapping(ranges, span)
    ]


def _overlapping(ranges: Sequence[Range], span: Range) -> Iterable[Range]:
    for index in range(bisect_left(ranges, span.start, key=_end), len(ranges)):
        if ranges[index].start > span.end:
            return
        yield ranges[index]


def _cut(of: Range, start: int, end: int) -> Range:
    if (of.start, of.end) == (start, end):
        return of
    return msgspec.structs.replace(of, start=start, end=end)
