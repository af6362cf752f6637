"""What a client holds: changes in the order of metad's stamps; a lock is taken back exactly."""

from __future__ import annotations

import itertools
import math
import random

from hypothesis import given
from hypothesis import strategies as st

from dfsmount.locks.holdings import Holdings, Key, steps_back
from dfswire.lockranges import changed, within
from dfswire.locks import LockKind, LockType, Range

KEY = Key(1, LockKind.POSIX, 7)
BYTES = 8

spans = st.tuples(st.integers(0, BYTES - 1), st.integers(0, BYTES - 1)).map(sorted)
changes = st.builds(
    lambda span, kind: Range(type=kind, start=span[0], end=span[1]),
    spans,
    st.sampled_from(LockType),
)


def after(ranges: list[Range], more: list[Range]) -> list[Range]:
    for change in more:
        ranges = changed(ranges, change)
    return ranges


def by_byte(ranges: list[Range]) -> dict[int, LockType]:
    return {byte: held.type for held in ranges for byte in range(held.start, held.end + 1)}


@given(st.lists(changes, max_size=8))
def test_ranges_are_those_of_each_byte(done: list[Range]) -> None:
    bytes_: dict[int, LockType] = {}
    for change in done:
        for byte in range(change.start, change.end + 1):
            bytes_[byte] = change.type
    held = after([], done)
    assert by_byte(held) == {byte: kind for byte, kind in bytes_.items() if kind != LockType.UNLOCK}
    for one, other in itertools.pairwise(held):
        assert one.end < other.start
        assert one.end + 1 < other.start or one.type != other.type, "not merged"


@given(st.lists(changes, max_size=6), st.randoms())
def test_answers_in_any_order_come_to_the_same(done: list[Range], order: random.Random) -> None:
    holdings = Holdings()
    arrivals = list(enumerate(done, start=1))
    order.shuffle(arrivals)
    seen: set[int] = set()
    for stamp, change in arrivals:
        seen.add(stamp)
        settled = next(each for each in range(1, len(done) + 2) if each not in seen) - 1
        holdings.note(KEY, change, stamp, settled if len(seen) < len(done) else math.inf)
    assert holdings.of(KEY) == after([], done)
    assert holdings.stamp == len(done)
    assert holdings.inodes() == ({1} if holdings.of(KEY) else set())
    assert [lock.range for lock in holdings.all()] == holdings.of(KEY)


@given(st.lists(changes, max_size=6), changes.filter(lambda change: change.type != LockType.UNLOCK))
def test_a_grant_is_taken_back_to_what_was_there(done: list[Range], wanted: Range) -> None:
    before = after([], done)
    granted = after(before, [wanted])
    steps = steps_back(wanted, within(before, wanted.start, wanted.end))
    back = by_byte(after(granted, steps))
    for byte in range(BYTES):
        had, has = by_byte(before).get(byte), back.get(byte)
        lowered = wanted.type == LockType.READ and wanted.start <= byte <= wanted.end
        assert has == (LockType.READ if lowered and had == LockType.WRITE else had)
    held = granted
    for step in steps:  # none asks for more than is held
        for byte in range(step.start, step.end + 1):
            assert step.type == LockType.UNLOCK or by_byte(held).get(byte) is not None
        held = changed(held, step)
