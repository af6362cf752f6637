"""Which parts of a fragmented file are worth being put together into one chunk.

Every fsync of a small write makes an extent, and a chunk or some bytes in the database; a log that
is appended to all day becomes tens of thousands of them.  Neighbours that are small are joined, and
what is left of a chunk whose other bytes nobody needs any more is moved out of it.  Pure.
"""

from __future__ import annotations

from collections.abc import Container, Iterable
from dataclasses import dataclass

from dfswire.messages import Extent

SMALL_SHARE = 4  # an extent is small below this share of a chunk


@dataclass(frozen=True)
class Limits:
    """`extents_least`: fewer are not worth the work; `extents_most` bounds one order."""

    chunk_size_bytes: int
    extents_least: int = 16
    extents_most: int = 1000


def plan(
    extents: Iterable[Extent], limits: Limits, wasteful: Container[bytes]
) -> list[list[Extent]]:
    """Runs of neighbours, each to become one extent of a chunk of its own.

    `extents` of one file in order; `wasteful` chunks are mostly garbage.  What it leaves is not
    worth it, so planning again after the work ends at nothing.
    """
    runs: list[list[Extent]] = []
    run: list[Extent] = []
    size = 0
    for extent in extents:
        joins = bool(run) and run[-1].offset + run[-1].length == extent.offset
        fits = size + extent.length <= limits.chunk_size_bytes and len(run) < limits.extents_most
        if not (joins and fits and _is_movable(extent, limits, wasteful)):
            runs.append(run)
            run, size = [], 0
        if _is_movable(extent, limits, wasteful):
            run.append(extent)
            size += extent.length
    runs.append(run)
    return [each for each in runs if _is_worth_it(each, limits, wasteful)]


def _is_movable(extent: Extent, limits: Limits, wasteful: Container[bytes]) -> bool:
    small = extent.length * SMALL_SHARE < limits.chunk_size_bytes
    return small or extent.chunk in wasteful


def _is_worth_it(run: list[Extent], limits: Limits, wasteful: Container[bytes]) -> bool:
    return len(run) >= limits.extents_least or any(each.chunk in wasteful for each in run)
