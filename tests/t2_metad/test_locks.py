"""The table of locks: ranges, queues, deadlocks, and what is special about flock."""

from __future__ import annotations

import pytest

from dfswire.locks import LOCK_END_MAX, LockOutcome, LockType, Range
from metad.locks.space import Owner, Request
from metad.locks.table import LockTable
from tests.t2_metad.lock_model import FLOCK, POSIX, READ, UNLOCK, WRITE, A, B, C

GRANTED, WAITING, CONFLICT, DEADLOCK, NO_LOCKS, CANCELLED = (
    LockOutcome.GRANTED,
    LockOutcome.WAITING,
    LockOutcome.CONFLICT,
    LockOutcome.DEADLOCK,
    LockOutcome.NO_LOCKS,
    LockOutcome.CANCELLED,
)


def posix(
    owner: Owner,
    kind: LockType,
    start: int = 0,
    end: int = LOCK_END_MAX,
    *,
    inode: int = 1,
    wait: bool = True,
    pid: int = 0,
) -> Request:
    wanted = Range(type=kind, start=start, end=end, pid=pid or 100 + owner.number)
    return Request(inode, POSIX, owner, wanted, wait)


def flock(
    owner: Owner, kind: LockType, *, inode: int = 1, wait: bool = True, pid: int = 0
) -> Request:
    return Request(inode, FLOCK, owner, Range(type=kind, pid=pid), wait)


class Table(LockTable):
    """With shorter words."""

    def __init__(self, session_max: int = 100) -> None:
        super().__init__(session_max)

    def do(self, request: Request, outcome: LockOutcome = GRANTED) -> Request:
        self.ask(request)
        assert request.outcome == outcome
        return request

    def ranges(self, owner: Owner) -> list[tuple[int, int, str]]:
        return [
            (held.start, held.end, held.type.name[0])
            for _, holder, held in self.holders(1)
            if holder == owner
        ]


@pytest.fixture
def table() -> Table:
    return Table()


# Ranges


def test_ranges_split_and_merge(table: Table) -> None:
    table.do(posix(A, READ, 0, 99))
    table.do(posix(A, WRITE, 10, 19))
    assert table.ranges(A) == [(0, 9, "R"), (10, 19, "W"), (20, 99, "R")]
    table.do(posix(A, UNLOCK, 15, 30))
    assert table.ranges(A) == [(0, 9, "R"), (10, 14, "W"), (31, 99, "R")]
    table.do(posix(A, READ, 10, 30))
    assert table.ranges(A) == [(0, 99, "R")]
    table.do(posix(A, READ, 100, LOCK_END_MAX))  # adjacent ones become one
    assert table.ranges(A) == [(0, LOCK_END_MAX, "R")]
    table.do(posix(A, UNLOCK))
    assert table.ranges(A) == []


def test_the_two_kinds_do_not_see_each_other(table: Table) -> None:
    table.do(posix(A, WRITE))
    table.do(flock(B, WRITE))
    table.do(flock(A, WRITE, wait=False), CONFLICT)


def test_who_is_in_the_way(table: Table) -> None:
    table.do(posix(A, READ, 5, 9))
    assert table.blocker(posix(B, READ)) is None
    assert table.blocker(posix(B, WRITE, 10, 20)) is None
    owner, held = table.blocker(posix(B, WRITE, 7, 20)) or (None, None)
    assert owner == A and held == Range(type=READ, start=5, end=9, pid=101)
    assert table.blocker(posix(A, WRITE)) is None
    assert table.blocker(posix(B, WRITE, inode=2)) is None


def test_a_session_has_a_limit() -> None:
    table = Table(session_max=3)
    for start in (0, 10, 20):
        table.do(posix(A, READ, start, start + 5))
    table.do(posix(A, READ, 30, 35), NO_LOCKS)
    table.do(posix(A, UNLOCK, 2, 3), NO_LOCKS)  # it would make two of one
    table.do(posix(A, WRITE, 0, 5))
    table.do(posix(A, READ, 6, 9))  # joined with the next one
    assert table.ranges(A) == [(0, 5, "W"), (6, 15, "R"), (20, 25, "R")]
    table.do(posix(B, READ, 30, 35))
    table.do(posix(A, UNLOCK, 20, 25))
    table.do(posix(A, READ, 30, 35))


def test_a_session_waits_for_no_more_than_its_limit() -> None:
    table = Table(session_max=2)
    table.do(posix(A, WRITE, 0, 0))
    first = table.do(posix(B, WRITE, 0, 0), WAITING)
    table.do(posix(Owner("b", 7), WRITE, 0, 0), WAITING)
    table.do(posix(Owner("b", 8), WRITE, 0, 0), NO_LOCKS)
    table.do(posix(B, READ, 10, 10))
    table.do(posix(B, READ, 20, 20))
    table.do(posix(A, UNLOCK))  # the limit counts when it is granted, too
    assert first.outcome == NO_LOCKS


# Queues


def test_readers_that_come_and_go_do_not_starve_a_writer(table: Table) -> None:
    table.do(posix(A, READ))
    writer = table.do(posix(B, WRITE), WAITING)
    reader = table.do(posix(C, READ), WAITING)
    elsewhere = table.do(posix(C, READ, inode=2))
    table.do(posix(Owner("d", 4), READ, wait=False))  # F_SETLK looks at holders only
    table.do(posix(Owner("d", 4), UNLOCK))
    table.do(posix(A, UNLOCK))
    assert writer.outcome == GRANTED and reader.outcome == WAITING
    table.do(posix(B, UNLOCK))
    assert reader.outcome == GRANTED and elsewhere.outcome == GRANTED


def test_what_excludes_nobody_passes_the_queue(table: Table) -> None:
    table.do(posix(A, WRITE, 0, 9))
    table.do(posix(B, WRITE, 5, 19), WAITING)
    table.do(posix(C, WRITE, 20, 29))
    table.do(posix(C, WRITE, 15, 19), WAITING)  # behind B


def test_a_holder_asks_for_more_while_somebody_waits_for_it(table: Table) -> None:
    table.do(posix(A, READ, 0, 9))
    writer = table.do(posix(B, WRITE), WAITING)
    table.do(posix(A, READ, 10, 19))  # behind B it would wait for ever
    table.do(posix(A, WRITE, 0, 9))
    table.do(posix(A, UNLOCK))
    assert writer.outcome == GRANTED


def test_fairness_makes_no_deadlock_over_two_files(table: Table) -> None:
    """Both readers would get their second lock if the writers were not there."""
    for file, reader in ((1, 11), (2, 12)):
        table.do(flock(Owner("a", file), READ, inode=file, pid=reader))
        table.do(flock(Owner("w", file), WRITE, inode=file, pid=20 + file), WAITING)
    first = table.do(flock(Owner("a", 3), READ, inode=2, pid=11), WAITING)
    table.do(flock(Owner("a", 4), READ, inode=1, pid=12))
    table.do(flock(Owner("a", 2), UNLOCK, inode=2))
    assert first.outcome == WAITING
    table.do(flock(Owner("w", 2), UNLOCK, inode=2))
    assert first.outcome == GRANTED


def test_a_circle_that_only_fairness_closes_later_is_opened(table: Table) -> None:
    table.do(posix(A, WRITE, inode=1))
    table.do(posix(B, READ, inode=2))
    writer = table.do(posix(C, WRITE, inode=2), WAITING)
    reader = table.do(posix(A, READ, inode=2), WAITING)  # behind C, out of fairness
    table.do(posix(B, READ, inode=1), WAITING)  # B waits for A, A for C, C for B
    assert reader.outcome == GRANTED and writer.outcome == WAITING


def test_a_forked_process_is_not_kept_from_what_its_open_file_has(table: Table) -> None:
    table.do(posix(A, READ, pid=1))
    table.do(posix(B, WRITE), WAITING)
    table.do(posix(A, READ, pid=2))


def test_a_grant_that_also_lowers_a_lock_lets_an_earlier_one_go(table: Table) -> None:
    table.do(posix(A, WRITE, 0, 0))
    table.do(posix(C, WRITE, 1, 1))
    reader = table.do(posix(B, READ, 0, 0), WAITING)
    lowered = table.do(posix(A, READ, 0, 1), WAITING)
    table.do(posix(C, UNLOCK))
    assert lowered.outcome == GRANTED and reader.outcome == GRANTED


def test_who_gives_up_leaves_the_queue(table: Table) -> None:
    table.do(posix(A, READ))
    writer = table.do(posix(B, WRITE), WAITING)
    reader = table.do(posix(C, READ), WAITING)
    table.cancel(writer)
    assert writer.outcome == CANCELLED and reader.outcome == GRANTED
    table.cancel(reader)
    assert reader.outcome == GRANTED


def test_the_end_of_a_session_releases_all(table: Table) -> None:
    table.do(posix(A, WRITE))
    table.do(flock(A, WRITE, inode=2))
    waits = table.do(posix(B, WRITE), WAITING)
    last = table.do(posix(C, READ), WAITING)
    table.end_session("b")
    assert waits.outcome == CANCELLED
    table.end_session("a")
    assert last.outcome == GRANTED
    assert table.holders(2) == []
    assert table.waiting(1) == []


# Deadlocks


def test_who_closes_a_circle_is_told(table: Table) -> None:
    table.do(posix(A, WRITE, 0, 0))
    table.do(posix(B, WRITE, inode=2))
    table.do(posix(C, READ, inode=3))
    table.do(posix(A, WRITE, inode=2), WAITING)
    waits = table.do(posix(B, WRITE, inode=3), WAITING)
    table.do(posix(C, READ, wait=False), CONFLICT)
    table.do(posix(C, READ), DEADLOCK)
    table.do(posix(C, UNLOCK, inode=3))
    assert waits.outcome == GRANTED


def test_two_readers_that_both_want_to_write(table: Table) -> None:
    table.do(posix(A, READ))
    table.do(posix(B, READ))
    first = table.do(posix(A, WRITE), WAITING)
    table.do(posix(B, WRITE), DEADLOCK)
    table.do(posix(B, UNLOCK))
    assert first.outcome == GRANTED


def test_a_circle_that_a_grant_closes(table: Table) -> None:
    """B has two threads: one of them gets what A wants while the other one waits for A."""
    table.do(posix(A, WRITE, inode=1))
    table.do(posix(C, WRITE, inode=2))
    granted = table.do(posix(B, WRITE, inode=2), WAITING)
    first = table.do(posix(B, WRITE, inode=1), WAITING)
    second = table.do(posix(A, WRITE, inode=2), WAITING)
    table.do(posix(C, UNLOCK, inode=2))
    assert granted.outcome == GRANTED
    assert first.outcome == DEADLOCK and second.outcome == WAITING


def test_flocks_are_not_looked_at_for_deadlocks(table: Table) -> None:
    table.do(flock(A, WRITE, inode=1))
    table.do(flock(B, WRITE, inode=2))
    table.do(flock(A, WRITE, inode=2), WAITING)
    table.do(flock(B, WRITE, inode=1), WAITING)


# flock


def test_a_flock_is_dropped_before_it_is_converted(table: Table) -> None:
    table.do(flock(A, READ))
    table.do(flock(A, READ))
    writer = table.do(flock(B, WRITE), WAITING)
    conversion = table.do(flock(A, WRITE), WAITING)
    assert writer.outcome == GRANTED
    table.do(flock(B, UNLOCK))
    assert conversion.outcome == GRANTED


def test_a_flock_that_is_not_converted_is_lost(table: Table) -> None:
    table.do(flock(A, READ))
    table.do(flock(B, READ))
    refused = table.do(flock(A, WRITE, wait=False), CONFLICT)
    assert refused.stamp > 0
    assert table.ranges(A) == []
    table.do(flock(B, WRITE, wait=False))
