"""RangeMap against a plain list with one (value, value offset) per byte."""

import itertools
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from dfsmount.files.extents import Range, RangeMap

FILE = 64
VALUES = ["a", "b", "c"]

lays = st.tuples(
    st.just("lay"),
    st.integers(0, FILE - 1),
    st.integers(0, 24),
    st.sampled_from(VALUES),
    st.integers(0, 40),
)
continuations = st.tuples(st.just("continue"), st.integers(1, 9))
cuts = st.tuples(st.just("cut"), st.integers(0, FILE), st.integers(0, FILE))
drops = st.tuples(st.just("discard"), st.sampled_from(VALUES))


class Model:
    """What each byte is."""

    def __init__(self) -> None:
        self.bytes: list[tuple[str, int] | None] = [None] * (FILE * 10)

    def lay(self, offset: int, length: int, value: str, value_offset: int) -> None:
        for index in range(length):
            self.bytes[offset + index] = (value, value_offset + index)

    def cut(self, offset: int, end: int) -> None:
        for index in range(offset, end):
            self.bytes[index] = None

    def discard(self, value: str) -> None:
        self.bytes = [None if byte and byte[0] == value else byte for byte in self.bytes]


def contents(pieces: list[Range[str | None]]) -> list[tuple[str, int] | None]:
    return [
        None if piece.value is None else (piece.value, piece.value_offset + index)
        for piece in pieces
        for index in range(piece.length)
    ]


def check_invariants(ranges: RangeMap[str]) -> None:
    listed = list(ranges)
    assert [one.offset for one in listed] == ranges._starts
    for left, right in itertools.pairwise(listed):
        assert left.end <= right.offset
        joined = (
            left.value is right.value
            and left.end == right.offset
            and left.value_offset + left.length == right.value_offset
        )
        assert not joined, "neighbours that continue each other are one range"
    assert all(one.length > 0 for one in listed)


@given(st.lists(st.one_of(lays, continuations, cuts, drops), max_size=30), st.data())
def test_against_a_list_of_bytes(steps: list[tuple[Any, ...]], data: st.DataObject) -> None:
    ranges: RangeMap[str] = RangeMap()
    model = Model()
    for kind, *arguments in steps:
        if kind == "lay":
            ranges.lay(*arguments)
            model.lay(*arguments)
        elif kind == "continue":
            last = list(ranges)[-1] if len(ranges) else Range(0, 0, "a", 0)
            more = (last.end, arguments[0], last.value, last.value_offset + last.length)
            ranges.lay(*more)
            model.lay(*more)
        elif kind == "cut":
            ranges.cut(*arguments)
            model.cut(*arguments)
        else:
            ranges.discard({arguments[0]})
            model.discard(arguments[0])
    start = data.draw(st.integers(0, FILE))
    length = data.draw(st.integers(0, FILE))
    assert contents(ranges.pieces(0, len(model.bytes))) == model.bytes
    assert contents(ranges.pieces(start, length)) == model.bytes[start : start + length]
    check_invariants(ranges)
    assert sum(one.length for one in ranges.covered(start, start + length)) == sum(
        byte is not None for byte in model.bytes[start : start + length]
    )


def test_sequential_writes_stay_one_range() -> None:
    ranges: RangeMap[str] = RangeMap()
    for index in range(1000):
        ranges.lay(index * 10, 10, "a", index * 10)
    assert list(ranges) == [Range(0, 10_000, "a", 0)]
    assert ranges.end == 10_000


def test_a_filled_gap_joins_both_sides() -> None:
    ranges: RangeMap[str] = RangeMap()
    ranges.lay(0, 10, "a", 0)
    ranges.lay(20, 10, "a", 20)
    ranges.lay(10, 10, "a", 10)
    assert list(ranges) == [Range(0, 30, "a", 0)]


def test_equal_values_that_are_not_the_same_object_stay_apart() -> None:
    first, second = b"x" * 300, bytes(bytearray(b"x" * 300))
    ranges: RangeMap[bytes] = RangeMap()
    ranges.lay(0, 10, first, 0)
    ranges.lay(10, 10, second, 10)
    assert len(ranges) == 2


def test_clear_and_empty_lay() -> None:
    ranges: RangeMap[str] = RangeMap()
    ranges.lay(5, 0, "a", 0)
    assert not len(ranges) and ranges.end == 0
    ranges.lay(5, 5, "a", 0)
    ranges.clear()
    assert ranges.pieces(0, 3) == [Range(0, 3, None, 0)]
