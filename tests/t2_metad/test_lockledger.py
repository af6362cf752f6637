"""Lock requests by number: once each, whatever is repeated, late or forgotten; and a restart."""

from __future__ import annotations

import pytest

from dfswire.errors import Stale, Unavailable
from dfswire.locks import HeldLocks, Lock, LockKind, LockOutcome, LockType, Range, SetLock
from metad.locks.ledger import Ledger
from metad.locks.table import LockTable

READ, WRITE, UNLOCK = LockType.READ, LockType.WRITE, LockType.UNLOCK
GRANTED, WAITING, CANCELLED = LockOutcome.GRANTED, LockOutcome.WAITING, LockOutcome.CANCELLED


def lock(kind: LockType, owner: int = 1, inode: int = 1) -> Lock:
    return Lock(inode=inode, kind=LockKind.POSIX, owner=owner, range=Range(type=kind))


class Sessions:
    """Two sessions, "a" and "b"."""

    def __init__(self) -> None:
        self.restart()
        for session in "ab":
            self.ledger.connect(session, HeldLocks())

    def restart(self) -> None:
        self.table = LockTable(100)
        self.ledger = Ledger(self.table)

    def set(
        self,
        session: str,
        number: int,
        kind: LockType,
        *unanswered: int,
        owner: int = 1,
        wait: bool = True,
    ) -> LockOutcome:
        message = SetLock(
            session=session,
            number=number,
            unanswered=list(unanswered),
            lock=lock(kind, owner),
            wait=wait,
        )
        return self.ledger.set(message).outcome

    @property
    def holders(self) -> list[str]:
        return [owner.session for _, owner, _ in self.table.holders(1)]


@pytest.fixture
def sessions() -> Sessions:
    return Sessions()


def test_a_repeated_request_is_made_once(sessions: Sessions) -> None:
    assert sessions.set("a", 1, WRITE) == GRANTED
    assert sessions.set("b", 1, WRITE) == WAITING
    assert sessions.set("b", 1, WRITE) == WAITING
    assert sessions.set("a", 2, UNLOCK) == GRANTED
    assert sessions.set("a", 2, UNLOCK) == GRANTED
    assert sessions.set("b", 1, WRITE) == GRANTED
    assert sessions.holders == ["b"]


def test_a_late_copy_does_not_bring_a_released_lock_back(sessions: Sessions) -> None:
    sessions.set("a", 1, WRITE)
    sessions.set("a", 2, UNLOCK)
    with pytest.raises(Stale):
        sessions.set("a", 1, WRITE)
    assert sessions.holders == []


def test_a_late_copy_does_not_release_what_was_taken_since(sessions: Sessions) -> None:
    sessions.set("a", 1, WRITE)
    sessions.set("a", 2, UNLOCK)
    sessions.set("a", 3, WRITE)
    with pytest.raises(Stale):
        sessions.set("a", 2, UNLOCK)
    assert sessions.holders == ["a"]


def test_requests_that_overtake_each_other_are_all_made(sessions: Sessions) -> None:
    sessions.set("a", 3, WRITE, 1, 2)
    sessions.set("a", 1, UNLOCK)
    sessions.set("a", 2, WRITE, 1)
    with pytest.raises(Stale):
        sessions.set("b", 7, WRITE)
        sessions.set("b", 6, WRITE)
    assert sessions.holders == ["a"]


def test_an_old_message_takes_nothing_back(sessions: Sessions) -> None:
    sessions.set("a", 3, WRITE, 1, 2)
    sessions.set("a", 5, WRITE)  # 1 and 2 were given up
    sessions.set("a", 5, WRITE, 1, 2)
    with pytest.raises(Stale):
        sessions.set("a", 2, UNLOCK)


def test_who_waits_while_others_come_and_go_keeps_its_place(sessions: Sessions) -> None:
    sessions.set("a", 1, WRITE)
    assert sessions.set("b", 1, WRITE) == WAITING
    for number in range(2, 10):
        sessions.set("b", number, READ, 1, owner=2, wait=False)
    sessions.set("a", 2, UNLOCK)
    assert sessions.set("b", 1, WRITE) == GRANTED


def test_a_wait_that_is_not_named_any_more_is_over(sessions: Sessions) -> None:
    sessions.set("a", 1, WRITE)
    assert sessions.set("b", 1, WRITE) == WAITING
    sessions.set("b", 2, READ, owner=2, wait=False)
    assert sessions.table.waiting(1) == []


def test_cancelling_tells_what_had_become_of_it(sessions: Sessions) -> None:
    sessions.set("a", 1, WRITE)
    sessions.set("b", 1, WRITE)
    assert sessions.ledger.cancel("a", 1).outcome == GRANTED
    assert sessions.ledger.cancel("b", 1).outcome == CANCELLED
    assert sessions.set("b", 1, WRITE) == CANCELLED
    assert sessions.ledger.cancel("b", 1).outcome == CANCELLED


def test_what_is_cancelled_before_it_arrives_is_not_made(sessions: Sessions) -> None:
    assert sessions.ledger.cancel("a", 1).outcome == CANCELLED
    assert sessions.set("a", 1, WRITE) == CANCELLED
    assert sessions.set("a", 3, UNLOCK, 2) == GRANTED
    assert sessions.ledger.cancel("a", 2).outcome == CANCELLED
    assert sessions.set("a", 2, WRITE) == CANCELLED
    assert sessions.ledger.cancel("a", 1).outcome == CANCELLED
    assert sessions.holders == []


def test_the_first_stream_brings_what_an_earlier_metad_granted(sessions: Sessions) -> None:
    sessions.restart()
    with pytest.raises(Unavailable):
        sessions.set("a", 1, WRITE)
    held = HeldLocks(number=9, unanswered=[7], stamp=5, held=[lock(WRITE), lock(READ, inode=2)])
    sessions.ledger.connect("a", held)
    sessions.ledger.connect("b", HeldLocks())
    assert sessions.set("b", 1, READ) == WAITING
    with pytest.raises(Stale):
        sessions.set("a", 8, WRITE)
    message = SetLock(session="a", number=7, lock=lock(UNLOCK))
    request = sessions.ledger.set(message)
    assert request.outcome == GRANTED and request.stamp > 5
    assert sessions.holders == ["b"]


def test_a_later_stream_changes_nothing(sessions: Sessions) -> None:
    sessions.set("a", 1, WRITE)
    sessions.set("a", 2, UNLOCK)
    sessions.ledger.connect("a", HeldLocks(number=2, held=[lock(WRITE)]))
    assert sessions.holders == []


def test_a_later_stream_makes_answered_numbers_void(sessions: Sessions) -> None:
    sessions.ledger.connect("a", HeldLocks(number=3, unanswered=[2]))
    with pytest.raises(Stale):
        sessions.set("a", 3, WRITE)
    assert sessions.set("a", 2, WRITE) == GRANTED


def test_what_is_remembered_does_not_grow(sessions: Sessions) -> None:
    for number in range(1, 100):
        sessions.set("a", number, WRITE if number % 2 else UNLOCK)
    assert len(sessions.ledger.check("a").requests) == 1


def test_the_end_releases_all(sessions: Sessions) -> None:
    sessions.set("a", 1, WRITE)
    sessions.set("b", 1, WRITE)
    sessions.ledger.end("a")
    sessions.ledger.end("a")
    assert sessions.holders == ["b"]
    with pytest.raises(Unavailable):
        sessions.set("a", 2, UNLOCK)
