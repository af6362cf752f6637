"""What a chunkd that keeps the journal is sent: from where it goes on, in parts, and anew."""

from __future__ import annotations

import os
from collections.abc import Callable

import msgspec
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from dfswire.errors import SessionLost, Unavailable, UsageError
from dfswire.journal import ENTRIES_BYTES, Entry, Position
from metad.journal import window
from tests.t2_metad.followers_for_tests import (
    SIGN_OF_LIFE_S,
    START,
    TERM,
    Copies,
    Keeper,
    after,
    history,
)

ExpectLog = Callable[[str], None]


def has(keeper: Keeper, *entries: Entry) -> Keeper:
    """It has these, from an earlier connection."""
    keeper.is_complete = True
    keeper.position, keeper.previous = entries[-1].position, entries[-1].previous
    return keeper


def restarted(copies: Copies) -> Copies:
    """metad is started again on what it has committed."""
    position = copies.followers.offered
    return Copies(position=msgspec.structs.replace(position, term=copies.term + TERM))


async def first_base(keeper: Keeper) -> Position:
    """Where it is told to go on."""
    await keeper.connect()
    frame = await keeper.receive()
    assert frame.base is not None
    return frame.base


# --- where it goes on ----------------------------------------------------------------------------


async def test_who_has_nothing_begins_where_metad_is(autojump_clock: MockClock) -> None:
    copies = Copies(position=history(START, 3)[-1].position)
    last = copies.offer()
    keeper = Keeper(copies, "one")
    assert await first_base(keeper) == last.position
    assert not keeper.is_complete, "it needs a snapshot"


async def test_who_was_away_goes_on_where_it_was(autojump_clock: MockClock) -> None:
    copies = Copies()
    keeper = await Keeper(copies, "one").in_step()
    copies.offer()
    await keeper.keep()
    await keeper.leave()
    for _ in range(3):
        copies.offer()
    before = keeper.position
    assert await first_base(keeper) == before
    assert keeper.is_complete
    assert keeper.position == copies.followers.offered, "and the rest came along"


async def test_who_was_away_for_too_long_begins_anew(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(window, "KEPT_BYTES", 1000)
    copies = Copies()
    keeper = await Keeper(copies, "one").in_step()
    copies.offer()
    await keeper.keep()
    await keeper.leave()
    for _ in range(10):
        copies.offer(bytes(300))
    assert await first_base(keeper) == copies.followers.offered
    assert not keeper.is_complete


async def test_who_lags_further_than_metad_remembers_is_dropped(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, expect_log: ExpectLog
) -> None:
    expect_log("one is not waited for any more: it lags too far behind")
    monkeypatch.setattr(window, "KEPT_BYTES", 1000)
    copies = Copies()
    keeper = await Keeper(copies, "one").in_step()
    for _ in range(10):
        copies.offer(bytes(300))
    with pytest.raises(StopAsyncIteration):
        await keeper.receive()
    assert copies.followers.in_step == 0
    assert copies.followers.safe == copies.followers.offered.number


async def test_after_a_restart_it_goes_on_in_the_new_term(autojump_clock: MockClock) -> None:
    copies = Copies()
    keeper = await Keeper(copies, "one").in_step()
    copies.offer()
    await keeper.keep()
    keeper.copies = restarted(copies)
    base = await first_base(keeper)
    assert (base.number, base.digest) == (1, copies.followers.offered.digest)
    assert base.term == copies.term + TERM, "what others have in the old term is overruled"
    assert keeper.is_complete


async def test_an_entry_that_was_never_committed_is_replaced(autojump_clock: MockClock) -> None:
    copies = Copies()
    keeper = await Keeper(copies, "one").in_step()
    copies.offer()
    await keeper.keep()
    later = restarted(copies)
    copies.offer()
    await keeper.keep()  # metad crashes before its own disk has it
    keeper.copies = later
    base = await first_base(keeper)
    assert (base.number, base.term) == (1, later.term)
    assert keeper.is_complete
    entry = later.offer()
    await keeper.keep()
    assert (keeper.position, keeper.previous) == (entry.position, entry.previous)
    assert later.followers.safe == 2


async def test_of_an_older_epoch_nothing_counts(autojump_clock: MockClock) -> None:
    """The cluster was restored to an earlier moment: what came after it is left behind."""
    left = history(START, 9)
    kept = msgspec.structs.replace(left[3].position, epoch=2, term=TERM)
    copies = Copies(position=kept)
    keeper = has(Keeper(copies, "one"), *left)
    assert await first_base(keeper) == kept
    assert not keeper.is_complete
    assert copies.followers.in_step == 0


async def test_another_history_is_not_gone_on_with(
    autojump_clock: MockClock, expect_log: ExpectLog
) -> None:
    expect_log("one has another history: entry 2 is not ours; it starts anew")
    copies = Copies()
    for _ in range(4):
        copies.offer()
    other = history(START, 2, body=b"other")
    keeper = has(Keeper(copies, "one"), *other)
    assert await first_base(keeper) == copies.followers.offered
    assert not keeper.is_complete
    assert [kind for kind, _message in copies.told] == ["journal.diverged"]


async def test_whether_it_is_another_history_may_be_unknown(autojump_clock: MockClock) -> None:
    """The entry before is not in memory any more: this one may be one that was called back."""
    entries = history(START, 3)
    copies = Copies(position=entries[-1].position)
    keeper = has(Keeper(copies, "one"), *entries[:2], after(entries[1].position, body=b"rival"))
    assert await first_base(keeper) == copies.followers.offered
    assert not keeper.is_complete
    assert copies.told == []


# --- a database that was set back ----------------------------------------------------------------


@pytest.mark.parametrize("beyond", [2, 5])
async def test_who_knows_more_ends_this_metad(
    autojump_clock: MockClock, nursery: trio.Nursery, expect_log: ExpectLog, beyond: int
) -> None:
    expect_log("this database is not the newest")
    copies = Copies(expected=True)
    entry = copies.offer()
    refused: list[str] = []

    async def wait() -> None:
        with pytest.raises(Unavailable) as info:
            await copies.followers.until_safe(entry.number)
        refused.append(str(info.value))

    nursery.start_soon(wait)
    await wait_all_tasks_blocked()
    keeper = has(Keeper(copies, "one"), *history(entry.position, beyond))
    with pytest.raises(UsageError, match=f"has entry {1 + beyond} .* this database ends with 1"):
        await keeper.connect()
    await wait_all_tasks_blocked()
    assert len(refused) == 1, "whoever waited is not answered"
    assert "must not go on" in refused[0]
    with pytest.raises(Unavailable):
        await copies.followers.until_safe(0)
    with pytest.raises(UsageError, match="an old copy"):
        await copies.followers.until_broken()
    assert copies.states() == {}


async def test_one_entry_more_is_no_proof_unless_it_does_not_follow(
    autojump_clock: MockClock, expect_log: ExpectLog
) -> None:
    copies = Copies()
    entry = copies.offer()
    rival = after(entry.position)
    keeper = has(Keeper(copies, "one"), rival)
    assert (await first_base(keeper)).number == 1
    expect_log("this database is not the newest")
    stranger = has(Keeper(copies, "two"), *history(START, 2, body=b"other"))
    with pytest.raises(UsageError, match="old copy"):
        await stranger.connect()


async def test_a_later_epoch_ends_this_metad(
    autojump_clock: MockClock, expect_log: ExpectLog
) -> None:
    expect_log("this database is not the newest")
    copies = Copies()
    for _ in range(5):
        copies.offer()
    after_restore = msgspec.structs.replace(START, epoch=2)
    keeper = has(Keeper(copies, "one"), after(after_restore))
    with pytest.raises(UsageError, match="restored elsewhere"):
        await keeper.connect()


# --- a commit that failed ------------------------------------------------------------------------


async def test_what_was_given_out_and_not_committed_is_called_back(
    autojump_clock: MockClock,
) -> None:
    copies = Copies()
    one, slow = [await Keeper(copies, name).in_step() for name in ("one", "slow")]
    entry = copies.offer()
    await one.keep()
    assert copies.followers.safe == 1
    before = one._number
    copies.withdraw(entry)
    assert copies.followers.safe == copies.followers.offered.number == 0
    with pytest.raises(SessionLost):
        await one.acknowledge(1, stream=before)
    for keeper in (one, slow):
        base = (await keeper.receive()).base
        assert base is not None
        assert (base.number, base.term, base.digest) == (0, TERM + 1, START.digest)
        assert keeper.is_complete
    second = copies.offer()
    assert second.term == TERM + 1
    await slow.keep()
    assert copies.followers.safe == 1
    assert slow.position == second.position


async def test_who_heard_that_it_does_not_count_hears_it_again(autojump_clock: MockClock) -> None:
    copies = Copies()
    keeper = await Keeper(copies, "one").in_step()
    copies.offer()
    await keeper.keep()
    copies.withdraw(copies.offer())
    await keeper.receive()
    await keeper.leave()
    base = await first_base(keeper)
    assert (base.number, base.term) == (1, TERM + 1)


async def test_what_was_safe_before_stays_so(autojump_clock: MockClock) -> None:
    copies = Copies()
    keeper = await Keeper(copies, "one").in_step()
    first = copies.offer()
    await keeper.keep()
    copies.withdraw(copies.offer())
    assert await copies.waited_s(first.number) == 0
    assert copies.followers.offered.digest == first.digest


async def test_standing_by_it_hears_nothing_of_that(autojump_clock: MockClock) -> None:
    copies = Copies(0)
    keepers = [await Keeper(copies, str(number)).connect() for number in range(3)]
    copies.withdraw(copies.offer())
    assert (await keepers[2].receive()).base is None


# --- frames --------------------------------------------------------------------------------------


async def test_an_idle_stream_gives_signs_of_life(autojump_clock: MockClock) -> None:
    copies = Copies()
    keeper = await Keeper(copies, "one").in_step()
    began_s = trio.current_time()
    frame = await keeper.receive()
    assert trio.current_time() - began_s == pytest.approx(SIGN_OF_LIFE_S)
    assert (frame.base, frame.entries, frame.part) == (None, [], b"")


async def test_entries_come_several_in_a_frame_and_large_ones_in_parts(
    autojump_clock: MockClock,
) -> None:
    copies = Copies()
    keeper = await Keeper(copies, "one").in_step()
    sizes = [100, 400_000, 400_000, 400_000, 3 * ENTRIES_BYTES, 5, 2 * ENTRIES_BYTES]
    bodies = [os.urandom(size) for size in sizes]
    for body in bodies:
        copies.offer(body)
    frames = 0
    while keeper.position.number < len(sizes):
        frame = await keeper.receive()
        frames += 1
        assert sum(map(len, frame.entries)) + len(frame.part) < ENTRIES_BYTES + 1000
    assert [entry.body for entry in keeper.runs[-1][1]] == bodies
    assert frames == 2 + 4 + 1 + 3
    await keeper.acknowledge()
    assert copies.followers.safe == len(sizes)


async def test_half_of_a_large_entry_is_forgotten(autojump_clock: MockClock) -> None:
    copies = Copies()
    keeper = await Keeper(copies, "one").in_step()
    large = copies.offer(bytes(2 * ENTRIES_BYTES))
    assert (await keeper.receive()).part
    copies.withdraw(large)
    entry = copies.offer()
    await keeper.receive()
    assert keeper.position == entry.position
    await keeper.acknowledge()
    assert copies.followers.safe == entry.number


async def test_a_new_snapshot_is_announced(autojump_clock: MockClock) -> None:
    copies = Copies()
    keeper = await Keeper(copies, "one").in_step()
    copies.followers.announce_snapshot(7)
    frame = await keeper.receive()
    assert (frame.snapshot, frame.entries) == (7, [])
    assert (await keeper.receive()).snapshot == 7


async def test_who_leaves_while_it_waits_hears_the_end(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    copies = Copies()
    keeper = await Keeper(copies, "one").in_step()
    ended: list[bool] = []

    async def receive() -> None:
        with pytest.raises(StopAsyncIteration):
            await keeper.receive()
        ended.append(True)

    nursery.start_soon(receive)
    await wait_all_tasks_blocked()
    await keeper.leave()
    await wait_all_tasks_blocked()
    assert ended == [True]
