"""Which parts of a file are put together."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dfswire.messages import Extent
from metad.copies.compaction import Limits, plan

LIMITS = Limits(chunk_size_bytes=1000, extents_least=4, extents_most=50)
CHUNK, WASTEFUL = b"c" * 16, b"w" * 16


def extents(*lengths: int, start: int = 0, chunk: bytes = CHUNK) -> list[Extent]:
    """Neighbours."""
    found = []
    for length in lengths:
        found.append(Extent(offset=start, length=length, chunk=chunk))
        start += length
    return found


def lengths(runs: list[list[Extent]]) -> list[list[int]]:
    return [[each.length for each in run] for run in runs]


def test_many_small_ones_are_joined() -> None:
    assert lengths(plan(extents(*[10] * 9), LIMITS, ())) == [[10] * 9]


def test_few_are_not() -> None:
    assert plan(extents(10, 10, 10), LIMITS, ()) == []


def test_a_chunk_is_not_exceeded() -> None:
    assert lengths(plan(extents(*[200] * 10), LIMITS, ())) == [[200] * 5] * 2


def test_an_order_is_not_exceeded() -> None:
    assert lengths(plan(extents(*[1] * 103), LIMITS, ())) == [[1] * 50] * 2


def test_large_ones_and_holes_are_borders() -> None:
    left, right = extents(*[10] * 4), extents(*[10] * 4, start=540)
    assert lengths(plan([*left, *extents(500, start=40), *right], LIMITS, ())) == [[10] * 4] * 2
    assert lengths(plan([*left, *right], LIMITS, ())) == [[10] * 4] * 2


def test_inline_bytes_are_joined_too() -> None:
    inline = [Extent(offset=at, length=1, data=b"x") for at in range(8)]
    assert lengths(plan(inline, LIMITS, ())) == [[1] * 8]


def test_what_is_left_of_a_wasteful_chunk_is_moved() -> None:
    assert lengths(plan(extents(400, chunk=WASTEFUL), LIMITS, {WASTEFUL})) == [[400]]
    assert plan(extents(400, chunk=CHUNK), LIMITS, {WASTEFUL}) == []


@given(st.lists(st.tuples(st.integers(1, 600), st.booleans(), st.sampled_from([CHUNK, WASTEFUL]))))
def test_planning_ends(pieces: list[tuple[int, bool, bytes]]) -> None:
    """Each run becomes one extent; after a few rounds nothing is left to do."""
    now: list[Extent] = []
    at = 0
    for length, gap, chunk in pieces:
        at += gap
        now.append(Extent(offset=at, length=length, chunk=chunk))
        at += length
    for _ in range(8):
        runs = plan(now, LIMITS, {WASTEFUL})
        for run in runs:
            assert sum(each.length for each in run) <= LIMITS.chunk_size_bytes
            assert len(run) <= LIMITS.extents_most
        moved = {each.offset for run in runs for each in run}
        kept = [each for each in now if each.offset not in moved]
        whole = [
            Extent(offset=run[0].offset, length=sum(each.length for each in run), chunk=b"n" * 16)
            for run in runs
        ]
        now = sorted([*kept, *whole], key=lambda each: each.offset)
    assert plan(now, LIMITS, {WASTEFUL}) == []
