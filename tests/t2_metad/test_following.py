"""Who may keep the journal: servers that metad knows and that nobody has removed."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest
from trio.testing import MockClock

from dfswire.admin import RemoveTarget, Target
from dfswire.errors import Removed, SessionLost, UsageError
from dfswire.journal import AckJournal, FollowJournal, JournalStatus, Position
from dfswire.messages import Empty
from metad.journal.stream import Follower
from tests.t2_metad.metad_for_tests import FakeServer, Metad


async def follow(metad: Metad, server_id: str, position: Position | None = None) -> Follower:
    request = FollowJournal(
        server_id=server_id, incarnation=1, cluster_id=metad.service.state.cluster_id
    )
    if position is not None:
        request = msgspec.structs.replace(request, position=position)
    return await metad.service.journal.follow(request)


async def keep(metad: Metad, server_id: str) -> AckJournal:
    """It has all there is."""
    frame = await anext(await follow(metad, server_id))
    ack = AckJournal(
        server_id=server_id,
        stream=frame.stream,
        number=metad.service.state.followers.offered.number,
    )
    await metad.call("journal.ack", ack)
    return ack


async def followers(metad: Metad) -> set[str]:
    status: JournalStatus = await metad.call("journal.status", Empty())
    return {each.server_id for each in status.followers}


async def test_a_server_that_nobody_knows_does_not_end_metad(metad: Metad) -> None:
    far = msgspec.structs.replace(metad.db.position, number=1 << 40)
    with pytest.raises(SessionLost, match="server made-up is not registered"):
        await follow(metad, "made-up", far)
    await FakeServer(metad, "s1").register()
    assert await followers(metad) == set()


async def test_an_old_copy_is_noticed_by_a_server_that_it_did_not_know(
    metad: Metad, expect_log: Callable[[str], None]
) -> None:
    expect_log("this database is not the newest")
    await metad.restart(background=False)
    newer = msgspec.structs.replace(metad.db.position, number=1 << 40)
    with pytest.raises(SessionLost):
        await follow(metad, "s1", newer)
    await FakeServer(metad, "s1").register()
    with pytest.raises(UsageError, match="it is an old copy"):
        await follow(metad, "s1", newer)
    with pytest.raises(UsageError, match="it is an old copy"):
        await metad.service.state.followers.until_broken()


async def test_whoever_is_removed_has_no_copy_that_counts(
    metad: Metad, mock_clock: MockClock
) -> None:
    for name in ("s1", "s2"):
        await FakeServer(metad, name).register()
    ack = await keep(metad, "s1")
    await keep(metad, "s2")
    assert await followers(metad) == {"s1", "s2"}
    mock_clock.jump(20)  # silent for that long; only such servers, and drained ones, are removed
    await metad.call("admin.remove", RemoveTarget(server="s1"))
    assert await followers(metad) == {"s2"}
    with pytest.raises(SessionLost):
        await metad.call("journal.ack", ack)
    with pytest.raises(Removed, match="s1 was removed"):
        await follow(metad, "s1")
    await metad.call("admin.enable", Target(server="s1"))
    await keep(metad, "s1")
    assert await followers(metad) == {"s1", "s2"}


async def test_a_disk_that_is_removed_does_not_take_the_journal_along(
    metad: Metad, mock_clock: MockClock
) -> None:
    await FakeServer(metad, "s1").register()
    await FakeServer(metad, "s2").register()
    await keep(metad, "s1")
    mock_clock.jump(20)
    await metad.call("admin.remove", RemoveTarget(disk="s1-d"))
    assert await followers(metad) == {"s1"}
