"""Which files of metad's journal a server keeps, so that each moment of some time can be restored.

Pure; journal.py asks.  A snapshot reaches as far as the entries that follow it without a hole: to
the end of its run (of what this server received without a gap), and of its epoch.  So snapshots of
one run stand in for each other, and those of different runs never do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from dfswire.journal import Snapshot
from dfswire.journalfile import SegmentHeader

SPACINGS = 4  # of the snapshots that are kept for restores to an earlier moment
SPARED_BYTES = 4 << 30  # of the disk that old moments leave free; a fifth of a small one, or
SPARED_FRACTION = 0.02  # this of a large one: with less than half of it free, none gets new chunks


@dataclass(frozen=True)
class KeptSnapshot:
    """A snapshot on disk."""

    name: str
    snapshot: Snapshot


@dataclass(frozen=True)
class KeptSegment:
    """A segment on disk."""

    name: str
    header: SegmentHeader


def retained(
    snapshots: Sequence[KeptSnapshot],
    segments: Sequence[KeptSegment],
    now_ns: int,
    kept_s: float,
) -> list[KeptSnapshot]:
    """Which snapshots (oldest first) to keep, so that each moment of the last `kept_s` can be
    restored: the newest two, and of older ones the first of each run and some more, back to one
    from before that time."""
    older = list(snapshots[:-2])
    while len(older) > 1 and older[1].snapshot.position.time_ns <= now_ns - int(kept_s * 1e9):
        older.pop(0)
    keep: list[KeptSnapshot] = []
    for each in older:
        if not keep or run_of(each, segments) != run_of(keep[-1], segments):
            keep.append(each)
            continue
        apart_ns = each.snapshot.position.time_ns - keep[-1].snapshot.position.time_ns
        if apart_ns >= kept_s * 1e9 / SPACINGS:
            keep.append(each)
    return [*keep, *snapshots[-2:]]


def run_of(one: KeptSnapshot, segments: Sequence[KeptSegment]) -> tuple[int, int]:
    """The epoch, and where the run began from which the entries after this snapshot are."""
    position = one.snapshot.position
    runs = [
        each.header.run
        for each in segments
        if each.header.base.epoch == position.epoch and each.header.run <= position.number
    ]
    return position.epoch, max(runs, default=-1)


def fitting(
    wanted: Sequence[KeptSnapshot],
    snapshots: Sequence[KeptSnapshot],
    segments: Sequence[KeptSegment],
    sizes_bytes: Mapping[str, int],
    max_bytes: int,
) -> list[KeptSnapshot]:
    """Those of `wanted` that have room with all entries since: without the oldest, as many as need
    be, but always the newest two."""
    keep, total_bytes = list(wanted), sum(sizes_bytes.values())
    while len(keep) > 2:
        gone = superfluous(keep, snapshots, segments)
        if total_bytes - sum(sizes_bytes[each] for each in gone) <= max_bytes:
            break
        keep.pop(0)
    return keep


def room_bytes(size_bytes: int, disk_bytes: int, free_bytes: int) -> int:
    """How large the journal, which is so large now, may be on this disk."""
    spared_bytes = max(int(disk_bytes * SPARED_FRACTION), min(SPARED_BYTES, disk_bytes // 5))
    return size_bytes + free_bytes - spared_bytes


def superfluous(
    keep: Sequence[KeptSnapshot],
    snapshots: Sequence[KeptSnapshot],
    segments: Sequence[KeptSegment],
) -> list[str]:
    """The files that are not needed beside the snapshots `keep` and what came after them."""
    gone = [each.name for each in snapshots if each not in keep]
    for segment, after in pairwise(segments if keep else ()):
        if not _is_covered(after, keep[0]):
            break
        gone.append(segment.name)
    return gone


def _is_covered(after: KeptSegment, first: KeptSnapshot) -> bool:
    """Is what comes before segment `after` in snapshot `first` already?"""
    return after.name < first.name and after.header.base.number <= first.snapshot.position.number
