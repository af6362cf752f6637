"""Lock calls at a whole metad: who waits and for how long, restarts, sessions that end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
import trio
from trio.testing import MockClock

from dfswire.errors import SessionLost, Stale, Unavailable
from dfswire.info import InfoReply, InfoRequest
from dfswire.locks import (
    CancelLock,
    GetLock,
    HeldLocks,
    Lock,
    LockAnswer,
    LockKind,
    LockOutcome,
    LockType,
    Range,
    SetLock,
)
from dfswire.metadata import SessionRequest
from tests.t2_metad.metad_for_tests import ADDRESS, FakeClient, Metad

READ, WRITE, UNLOCK = LockType.READ, LockType.WRITE, LockType.UNLOCK
GRANTED, WAITING = LockOutcome.GRANTED, LockOutcome.WAITING


def lock(kind: LockType, pid: int = 7) -> Lock:
    return Lock(inode=5, kind=LockKind.POSIX, owner=1, range=Range(type=kind, pid=pid))


async def ask(client: FakeClient, number: int, kind: LockType) -> LockOutcome:
    """Asks once."""
    message = SetLock(session=client.session, number=number, lock=lock(kind), wait=True)
    answer: LockAnswer = await client.metad.call("lock.set", message)
    return answer.outcome


async def cancel(client: FakeClient, number: int) -> LockOutcome:
    answer = await client.metad.call(
        "lock.cancel", CancelLock(session=client.session, number=number)
    )
    outcome: LockOutcome = answer.outcome
    return outcome


async def get(client: FakeClient) -> Any:
    return await client.metad.call("lock.get", GetLock(session=client.session, lock=lock(WRITE)))


@pytest.fixture
async def two(metad: Metad, nursery: trio.Nursery) -> tuple[FakeClient, FakeClient]:
    return (
        await FakeClient(metad, nursery, "one").open(),
        await FakeClient(metad, nursery, "other").open(),
    )


async def test_who_waits_hears_at_once_when_it_is_granted(
    autojump_clock: MockClock, two: tuple[FakeClient, FakeClient]
) -> None:
    one, other = two
    assert await ask(one, 1, WRITE) == GRANTED
    outcomes = []

    async def wait() -> None:
        outcomes.append(await ask(other, 1, WRITE))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        nursery.start_soon(wait)  # a copy
        await trio.sleep(1)
        assert await ask(one, 2, UNLOCK) == GRANTED
    assert outcomes == [GRANTED, GRANTED]
    assert trio.current_time() < 1.5


async def test_a_call_does_not_wait_for_ever(
    autojump_clock: MockClock, two: tuple[FakeClient, FakeClient]
) -> None:
    one, other = two
    await ask(one, 1, WRITE)
    began = trio.current_time()
    assert await ask(other, 1, WRITE) == WAITING
    assert 2 <= trio.current_time() - began <= 4
    assert await cancel(other, 1) == LockOutcome.CANCELLED
    assert await cancel(one, 1) == GRANTED
    assert await ask(one, 2, UNLOCK) == GRANTED
    assert (await get(one)).range is None


async def test_who_has_it(autojump_clock: MockClock, two: tuple[FakeClient, FakeClient]) -> None:
    one, other = two
    await ask(one, 1, WRITE)
    found = await get(other)
    assert (found.range, found.host) == (lock(WRITE).range, "one")
    assert (await get(one)).range is None


async def test_what_operators_are_shown(
    autojump_clock: MockClock,
    two: tuple[FakeClient, FakeClient],
    metad: Metad,
    nursery: trio.Nursery,
) -> None:
    one, other = two
    inode = await one.make(b"f")
    for number, kind, client in ((1, LockKind.FLOCK, one), (2, LockKind.POSIX, one)):
        wanted = Lock(inode=inode, kind=kind, owner=1, range=Range(type=WRITE, start=2, pid=7))
        message = SetLock(session=client.session, number=number, lock=wanted, wait=True)
        await metad.call("lock.set", message)
    await metad.call("lock.set", msgspec.structs.replace(message, session=other.session))
    info: InfoReply = await metad.call("cluster.info", InfoRequest(inode=inode))
    assert [(each.kind, each.waits, each.host, each.pid) for each in info.locks] == [
        ("fcntl", False, "one", 7),
        ("flock", False, "one", 7),
        ("fcntl", True, "other", 7),
    ]
    assert (info.locks[0].type, info.locks[0].start, info.locks[0].end) == ("write", 2, None)


async def test_a_session_that_ends_wakes_who_waits(
    autojump_clock: MockClock, two: tuple[FakeClient, FakeClient], metad: Metad
) -> None:
    one, other = two
    await ask(one, 1, WRITE)
    lost = trio.Event()

    async def wait() -> None:
        with pytest.raises(SessionLost):
            await ask(other, 1, WRITE)
        lost.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await trio.sleep(0.5)
        await metad.call("session.close", SessionRequest(session=other.session))
        await lost.wait()
    assert trio.current_time() < 1


async def test_locks_are_free_when_nothing_of_their_session_can_be_committed_any_more(
    autojump_clock: MockClock,
    two: tuple[FakeClient, FakeClient],
    metad: Metad,
    nursery: trio.Nursery,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The writer of the database is busy, perhaps with a commit of that session."""
    one, other = two
    await ask(one, 1, WRITE)
    write, busy = metad.db.write, trio.Event()

    async def slow(work: Callable[[], Any]) -> Any:
        await busy.wait()
        return await write(work)

    monkeypatch.setattr(metad.db, "write", slow)
    nursery.start_soon(metad.call, "session.close", SessionRequest(session=one.session))
    assert await ask(other, 1, WRITE) == WAITING
    busy.set()
    assert await ask(other, 1, WRITE) == GRANTED


async def test_nothing_is_granted_until_all_have_said_what_they_hold(
    autojump_clock: MockClock, two: tuple[FakeClient, FakeClient], metad: Metad
) -> None:
    one, other = two
    await ask(one, 1, WRITE)
    await metad.restart()
    with pytest.raises(Unavailable):
        await ask(other, 1, WRITE)
    await other.follow()
    assert await ask(other, 1, WRITE) == WAITING
    assert await ask(other, 2, UNLOCK) == GRANTED  # which nobody can mind
    with pytest.raises(Unavailable):
        await get(other)
    await one.follow(locks=HeldLocks(number=1, held=[lock(WRITE)]))
    assert await ask(other, 3, WRITE) == WAITING
    assert (await get(other)).host == "one"
    await ask(one, 2, UNLOCK)
    assert await ask(other, 3, WRITE) == GRANTED


async def test_who_does_not_come_back_is_fenced(
    autojump_clock: MockClock, two: tuple[FakeClient, FakeClient], metad: Metad
) -> None:
    one, other = two
    await ask(one, 1, WRITE)
    await metad.restart()
    await other.follow()
    began = trio.current_time()
    while await ask(other, 1, WRITE) == WAITING:
        await metad.call("session.renew", SessionRequest(session=other.session))
    assert 25 <= trio.current_time() - began <= 32
    with pytest.raises(SessionLost):
        await ask(one, 2, WRITE)


async def test_a_restarted_metad_does_not_believe_a_late_copy(
    autojump_clock: MockClock, two: tuple[FakeClient, FakeClient], metad: Metad
) -> None:
    """It would hold a lock that was given back since, until the session ends."""
    one, other = two
    late = await one.follow(locks=HeldLocks(number=1, held=[lock(WRITE)]))
    await metad.restart()
    with pytest.raises(Stale, match="was started since"):
        async with metad.client.stream("session.events", ADDRESS, late):
            pass
    await other.follow()
    await one.follow(locks=HeldLocks(number=2))
    assert await ask(other, 1, WRITE) == GRANTED
    again = msgspec.structs.replace(late, instance=metad.service.state.instance)
    with pytest.raises(Stale, match="comes after"):
        async with metad.client.stream("session.events", ADDRESS, again):
            pass
    assert await ask(other, 2, UNLOCK) == GRANTED
    assert await ask(one, 3, WRITE) == GRANTED


async def test_numbers_start_where_they_were(
    autojump_clock: MockClock, two: tuple[FakeClient, FakeClient], metad: Metad
) -> None:
    one, _ = two
    await metad.restart()
    await one.follow(locks=HeldLocks(number=3, unanswered=[2], stamp=50))
    await two[1].follow()
    message = SetLock(session=one.session, number=2, lock=lock(WRITE))
    assert (await metad.call("lock.set", message)).stamp > 50
