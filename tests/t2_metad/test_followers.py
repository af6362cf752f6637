"""Who of the chunkds that keep the journal counts, who is waited for, and for how long."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from dfswire.errors import SessionLost, WrongCluster
from metad.journal.followers import LAG_ENTRIES, SPARES
from tests.t2_metad.followers_for_tests import WAIT_S, Copies, Keeper

ExpectLog = Callable[[str], None]


async def test_without_anybody_nobody_waits(autojump_clock: MockClock) -> None:
    for copies in (Copies(0), Copies(1)):
        number = copies.offer().number
        assert copies.followers.safe == number
        assert await copies.waited_s(number) == 0
        assert copies.told == []


async def test_an_entry_is_safe_when_a_copy_is_on_disk(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    copies = Copies()
    one = await Keeper(copies, "one").in_step()
    assert copies.states() == {"one": "in step"}
    assert copies.told == [("journal.copies_regained", "1 of 1 copies of the journal")]
    entry = copies.offer()
    answered: list[float] = []

    async def wait() -> None:
        answered.append(await copies.waited_s(entry.number))

    nursery.start_soon(wait)
    await one.receive()
    await wait_all_tasks_blocked()
    assert one.position == entry.position
    assert answered == [], "it was sent, and nobody has said that it is on a disk"
    await one.acknowledge()
    await wait_all_tasks_blocked()
    assert answered == [0]
    assert copies.followers.safe == entry.number
    assert (copies.followers.waits, copies.followers.wait_seconds) == (1, 0)


@pytest.mark.parametrize(("wanted", "enough"), [(1, 1), (2, 2), (3, 3)])
async def test_so_many_copies_as_are_wanted(
    autojump_clock: MockClock, wanted: int, enough: int
) -> None:
    copies = Copies(wanted)
    keepers = [await Keeper(copies, str(number)).in_step() for number in range(3)]
    assert copies.followers.in_step == 3
    number = copies.offer().number
    for confirmed, keeper in enumerate(keepers, 1):
        assert (copies.followers.safe >= number) == (confirmed > enough)
        await keeper.keep()
        assert (copies.followers.safe >= number) == (confirmed >= enough)


async def test_with_fewer_than_wanted_all_of_them(
    autojump_clock: MockClock, expect_log: ExpectLog
) -> None:
    expect_log("two is not waited for any more")
    copies = Copies(2)
    one = await Keeper(copies, "one").in_step()
    copies.offer()
    await one.keep()
    assert copies.followers.safe == 1
    two = await Keeper(copies, "two").in_step()
    assert copies.told[-1] == ("journal.copies_regained", "2 of 2 copies of the journal")
    number = copies.offer().number
    await one.keep()
    assert copies.followers.safe < number
    assert await copies.waited_s(number) == WAIT_S
    assert (copies.followers.waits, copies.followers.wait_seconds) == (1, WAIT_S)
    assert copies.told[-1] == ("journal.copies_lost", "1 of 2 copies of the journal")
    assert copies.states() == {"one": "in step"}
    with pytest.raises(StopAsyncIteration):
        await two.receive()


async def test_who_lags_delays_nobody_longer_than_a_second(
    autojump_clock: MockClock, nursery: trio.Nursery, expect_log: ExpectLog
) -> None:
    expect_log("lame is not waited for any more: it did not confirm entry")
    copies = Copies()
    lame = await Keeper(copies, "lame").in_step()
    waits: list[float] = []

    async def write() -> None:
        waits.append(await copies.waited_s(copies.offer().number))

    for _ in range(10):
        nursery.start_soon(write)
        await trio.sleep(WAIT_S / 20)
    await lame.receive()
    await trio.sleep(2 * WAIT_S)
    assert len(waits) == 10
    assert max(waits) == pytest.approx(WAIT_S)
    assert min(waits) == pytest.approx(WAIT_S * 11 / 20), "one that is dropped is so for all"
    assert copies.told[-1] == ("journal.copies_lost", "0 of 1 copies of the journal")
    assert await copies.waited_s(copies.offer().number) == 0
    with pytest.raises(SessionLost):
        await lame.acknowledge()


async def test_who_dies_delays_nobody(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    copies = Copies()
    one = await Keeper(copies, "one").in_step()
    number = copies.offer().number
    waits: list[float] = []

    async def wait() -> None:
        waits.append(await copies.waited_s(number))

    nursery.start_soon(wait)
    await wait_all_tasks_blocked()
    await one.leave()
    await wait_all_tasks_blocked()
    assert waits == [0]
    assert copies.states() == {}
    assert copies.told[-1] == ("journal.copies_lost", "0 of 1 copies of the journal")


async def test_who_is_catching_up_is_not_waited_for(autojump_clock: MockClock) -> None:
    copies = Copies()
    for _ in range(3):
        copies.offer()
    new = await Keeper(copies, "new").connect()
    assert copies.states() == {"new": "catching up"}
    assert await copies.waited_s(copies.offer().number) == 0
    await new.keep()
    assert copies.states() == {"new": "in step"}
    assert copies.followers.safe == 4


async def test_from_when_on_somebody_is_in_step(autojump_clock: MockClock) -> None:
    copies = Copies()
    entries = [copies.offer() for _ in range(LAG_ENTRIES + 10)]
    keeper = await Keeper(copies, "one").connect()
    await keeper.receive()
    assert keeper.position == entries[-1].position
    await keeper.acknowledge(entries[8].number)
    assert copies.followers.in_step == 0
    await keeper.acknowledge(entries[9].number)
    assert copies.followers.in_step == 1
    # And then it is waited for, so it cannot fall far behind again.
    assert copies.followers.safe == len(entries), "what was safe without it stays so"


async def test_spares_follow_and_the_others_stand_by(autojump_clock: MockClock) -> None:
    copies = Copies(2)
    keepers = [await Keeper(copies, str(number)).connect() for number in range(2 + SPARES + 2)]
    active = keepers[: 2 + SPARES]
    for keeper in active:
        await keeper.keep()
    assert list(copies.states().values()) == ["in step"] * 4 + ["standby"] * 2
    copies.offer()
    began_s = trio.current_time()
    frame = await keepers[-1].receive()
    assert (frame.base, frame.entries) == (None, [])
    assert trio.current_time() - began_s == 5, "a sign of life, and no entry"
    with pytest.raises(SessionLost):
        await keepers[-1].acknowledge()


async def test_who_is_gone_is_replaced(autojump_clock: MockClock, expect_log: ExpectLog) -> None:
    expect_log("0 is not waited for any more")
    copies = Copies()
    keepers = [await Keeper(copies, str(number)).connect() for number in range(1 + SPARES + 2)]
    for keeper in keepers[: 1 + SPARES]:
        await keeper.keep()
    await keepers[1].leave()
    assert copies.states()["3"] == "catching up"
    await keepers[3].keep()
    assert copies.states()["3"] == "in step"
    # Now all but one leave, and that one is silent: the last that stands by takes its place.
    await keepers[2].leave()
    assert copies.states()["4"] == "catching up"
    await keepers[3].leave()
    number = copies.offer().number
    assert await copies.waited_s(number) == WAIT_S
    assert copies.states() == {"4": "catching up"}
    await keepers[4].keep()
    assert copies.states() == {"4": "in step"}


async def test_the_same_server_counts_once(autojump_clock: MockClock) -> None:
    copies = Copies(2)
    one = await Keeper(copies, "one").in_step()
    before = one.stream
    await one.connect()
    with pytest.raises(StopAsyncIteration):
        await anext(before)
    assert copies.followers.in_step == 0
    await one.keep()
    assert copies.followers.in_step == 1
    await before.aclose()  # that its connection is gone is noticed late
    assert copies.states() == {"one": "in step"}


async def test_acknowledgements_of_something_else(autojump_clock: MockClock) -> None:
    copies = Copies()
    one = await Keeper(copies, "one").in_step()
    entry = copies.offer()
    await one.acknowledge(entry.number + 7)  # nothing was sent
    assert copies.followers.safe < entry.number
    with pytest.raises(SessionLost):
        await one.acknowledge(entry.number, stream=1)
    with pytest.raises(SessionLost):
        await Keeper(copies, "nobody").acknowledge(1, stream=1)
    await one.receive()
    await one.acknowledge()
    await one.acknowledge(0)  # late
    assert copies.followers.safe == entry.number


async def test_another_cluster(autojump_clock: MockClock) -> None:
    copies = Copies()
    request = Keeper(copies, "one").request()
    request = type(request)(server_id="one", incarnation=1, cluster_id="d" * 32)
    with pytest.raises(WrongCluster):
        await copies.followers.follow(request)


# --- the first second of a metad -----------------------------------------------------------------


async def test_after_a_start_the_first_change_waits_for_a_copy(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    copies = Copies(expected=True)
    number = copies.offer().number
    waits: list[float] = []

    async def wait() -> None:
        waits.append(await copies.waited_s(number))

    nursery.start_soon(wait)
    await trio.sleep(WAIT_S / 4)
    keeper = await Keeper(copies, "one").connect()
    await wait_all_tasks_blocked()
    assert waits == []
    await keeper.keep()
    await wait_all_tasks_blocked()
    assert waits == [pytest.approx(WAIT_S / 4)]


async def test_after_a_start_nobody_waits_longer_than_a_second(autojump_clock: MockClock) -> None:
    copies = Copies(expected=True)
    await trio.sleep(WAIT_S / 2)
    assert await copies.waited_s(copies.offer().number) <= WAIT_S
    assert await copies.waited_s(copies.offer().number) == 0
    late = Copies(expected=True)
    await trio.sleep(2 * WAIT_S)
    assert await late.waited_s(late.offer().number) == 0
