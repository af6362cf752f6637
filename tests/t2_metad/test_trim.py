"""Copies that are too many go, and only those, whatever happens in between."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

import pytest
import trio
from trio.testing import MockClock

from metad.copies import replicas
from metad.copies.verified import NOTES_MAX, VALID_S, Verified
from metad.storage.database import Database
from tests.t2_metad.metad_for_tests import FakeClient, FakeServer, Metad

NAMES = ["s1", "s2", "s3", "s4"]


@dataclass
class Cluster:
    """A chunk with three good copies where two are wanted, on servers up for two minutes."""

    metad: Metad
    servers: dict[str, FakeServer]
    chunk: bytes

    def states(self) -> dict[str, str]:
        return dict(replicas.replicas_of(self.metad.db, self.chunk))

    def good(self) -> int:
        stored = self.metad.db.read_one("SELECT good FROM chunk WHERE id = ?", (self.chunk,))
        assert stored is not None
        good: int = stored[0]
        return good

    async def look(self) -> int:
        return await self.metad.service.trimmer.run_once()

    async def beat(self) -> dict[str, list[str]]:
        """Disk -> the kinds of all its orders that are not obeyed."""
        for server in self.servers.values():
            await server.beat()
        return {
            disk: [order.kind for order in server.orders]
            for disk, server in self.servers.items()
            if server.orders
        }

    async def obey(self, *, ok: bool = True) -> None:
        for server in self.servers.values():
            await server.obey(ok=ok)

    async def condemn(self) -> str:
        """As far as the commit that condemns a copy; its disk."""
        assert await self.look() == 0
        await self.beat()
        await self.obey()
        assert await self.look() == 1
        (disk,) = [disk for disk, state in self.states().items() if state == "excess"]
        return disk


async def pass_time(three: Cluster, clock: MockClock, seconds: float) -> None:
    for _ in range(int(seconds / 2)):
        clock.jump(2.0)
        for server in three.servers.values():
            await server.beat()


@pytest.fixture
async def three(
    db: Database, nursery: trio.Nursery, mock_clock: MockClock
) -> AsyncIterator[Cluster]:
    metad = Metad(db, nursery)
    await metad.start(background=False)
    servers = [await FakeServer(metad, name).register() for name in NAMES[:3]]
    client = await FakeClient(metad, nursery).open()
    chunk = (await client.store(await client.make(b"f"))).chunk
    cluster = Cluster(metad, {each.disk: each for each in servers}, chunk)
    # One that was ordered, or reported and then verified, would be known to be good already.
    await db.write(
        lambda: [replicas.set_replica(db, chunk, disk, "good") for disk in cluster.servers]
    )
    await pass_time(cluster, mock_clock, 120)
    assert set(cluster.states().values()) == {"good"}
    assert cluster.good() == 3
    yield cluster
    metad.crash()


async def test_those_that_stay_are_verified_before_one_goes(
    three: Cluster, mock_clock: MockClock
) -> None:
    assert await three.look() == 0
    asked = await three.beat()
    assert list(asked.values()) == [["verify"], ["verify"]]
    assert await three.look() == 0, "nothing is proven yet"
    await three.obey()
    assert await three.look() == 1
    (victim,) = [disk for disk, state in three.states().items() if state == "excess"]
    assert victim not in asked
    assert three.good() == 2, "it counts for nothing from now on"
    assert await three.beat() == {victim: ["delete"]}
    await three.obey()
    assert three.states() == dict.fromkeys(asked, "good")
    assert await three.look() == 0


async def test_a_copy_that_turns_out_bad_is_not_relied_on(
    three: Cluster, mock_clock: MockClock
) -> None:
    await three.look()
    first, _ = await three.beat()
    await three.servers[first].report(three.chunk, "bad")
    await three.obey(ok=False)
    assert await three.look() == 0
    assert three.good() == 2


async def test_a_server_that_came_back_just_now_is_not_relied_on(
    three: Cluster, mock_clock: MockClock
) -> None:
    await three.servers["s1-d"].register(incarnation=2)
    assert await three.look() == 0
    assert await three.beat() == {}
    await pass_time(three, mock_clock, 50)
    assert await three.look() == 0
    assert await three.beat() == {}


async def test_what_was_verified_before_the_server_was_away_is_verified_again(
    three: Cluster, mock_clock: MockClock
) -> None:
    await three.look()
    first, _ = await three.beat()
    await three.obey()
    mock_clock.jump(5.0)  # all are silent for so long
    await pass_time(three, mock_clock, 80)
    assert await three.look() == 0
    assert first in await three.beat()


async def test_another_loss_before_the_commit_stops_it(
    three: Cluster, mock_clock: MockClock
) -> None:
    assert await three.look() == 0
    kept = await three.beat()
    await three.obey()
    gone = next(iter(kept))
    del three.servers[gone]
    mock_clock.jump(3.0)
    await three.beat()
    assert await three.look() == 0
    assert "excess" not in three.states().values()


async def test_another_loss_in_the_commit_stops_it(
    three: Cluster, mock_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    await three.look()
    kept = await three.beat()
    await three.obey()
    write = three.metad.db.write

    async def late(work: Callable[[], object]) -> object:
        with three.metad.db.transaction():
            replicas.set_replica(three.metad.db, three.chunk, next(iter(kept)), "bad")
        return await write(work)

    with monkeypatch.context() as patch:
        patch.setattr(three.metad.db, "write", late)
        assert await three.look() == 0
    assert sorted(three.states().values()) == ["bad", "good", "good"]


async def test_a_restarted_metad_goes_on_deleting(three: Cluster, mock_clock: MockClock) -> None:
    victim = await three.condemn()
    await three.metad.restart(background=False)
    for server in three.servers.values():
        await server.register()
    await three.look()
    assert await three.beat() == {victim: ["delete"]}
    await three.obey()
    assert victim not in three.states()


async def test_after_a_loss_a_condemned_copy_is_kept_if_no_order_was_given(
    three: Cluster, mock_clock: MockClock
) -> None:
    victim = await three.condemn()
    gone = next(disk for disk in three.states() if disk != victim)
    server = three.servers.pop(gone)
    await three.metad.restart(background=False)
    for each in three.servers.values():
        await each.register()
    await three.look()
    assert await three.beat() == {}, "the third may be heard any moment"
    await pass_time(three, mock_clock, 12)
    await three.look()
    assert await three.beat() == {victim: ["verify"]}
    assert three.states()[victim] == "excess"
    await three.obey()
    assert three.states()[victim] == "good"
    assert server.orders == []


async def test_an_order_that_was_given_is_never_followed_by_trust(
    three: Cluster, mock_clock: MockClock
) -> None:
    victim = await three.condemn()
    await three.beat()
    (delete,) = three.servers[victim].orders
    assert delete.kind == "delete"
    others = set(three.states()) - {victim}
    await three.servers[others.pop()].report(three.chunk, "missing")
    await three.look()
    await three.beat()
    assert three.servers[victim].orders == [delete], "no verification on top of it"
    await three.servers[victim].report(three.chunk, "good")
    assert three.states()[victim] == "excess"
    await three.servers[victim].report(three.chunk, "bad")
    assert three.states()[victim] == "excess"
    await three.obey()
    assert victim not in three.states()


async def test_a_deletion_that_failed_is_ordered_again(
    three: Cluster, mock_clock: MockClock
) -> None:
    victim = await three.condemn()
    await three.beat()
    await three.obey(ok=False)
    await three.look()
    assert await three.beat() == {victim: ["delete"]}


async def test_a_copy_is_given_up_when_asked_and_not_before_the_others_suffice(
    three: Cluster, mock_clock: MockClock
) -> None:
    trimmer = three.metad.service.trimmer
    trimmer.give_up(three.chunk, "s1-d")
    trimmer.give_up(b"x" * 16, "s1-d")
    assert await three.look() == 0
    assert set(await three.beat()) == {"s2-d", "s3-d"}
    await three.obey()
    assert await three.look() == 1
    assert three.states()["s1-d"] == "excess"
    await three.beat()
    await three.obey()
    trimmer.give_up(three.chunk, "s2-d")
    assert await three.look() == 0
    assert await three.beat() == {}, "two are wanted"


async def test_more_is_asked_for_than_can_go(three: Cluster, mock_clock: MockClock) -> None:
    """A move that lost its point left its wish behind: it must not hold up the next one."""
    trimmer = three.metad.service.trimmer
    trimmer.give_up(three.chunk, "s2-d")
    trimmer.give_up(three.chunk, "s1-d")
    trimmer.give_up(three.chunk, "s2-d")
    assert await three.look() == 0
    assert set(await three.beat()) == {"s1-d", "s3-d"}
    await three.obey()
    assert await three.look() == 1
    assert three.states() == {"s1-d": "good", "s2-d": "excess", "s3-d": "good"}
    await three.beat()
    await three.obey()
    assert await three.look() == 0
    assert trimmer.is_idle, "what can't go is not kept in mind"


async def test_a_condemned_copy_on_a_server_that_is_down_waits(
    three: Cluster, mock_clock: MockClock
) -> None:
    victim = await three.condemn()
    server = three.servers.pop(victim)
    await pass_time(three, mock_clock, 12)
    await three.look()
    assert server.orders == []
    assert three.states()[victim] == "excess"
    three.servers[victim] = server
    await server.register()
    await three.look()
    assert await three.beat() == {victim: ["delete"]}


def test_notes_age_and_are_bounded() -> None:
    verified = Verified()
    verified.note(b"a", "d", 10.0)
    assert verified.since(b"a", "d", 10.0, 10.0)
    assert not verified.since(b"a", "d", 10.1, 11.0)
    assert not verified.since(b"a", "d", 0.0, 10.0 + VALID_S)
    verified.forget(b"a", "d")
    assert not verified.since(b"a", "d", 0.0, 10.0)
    for number in range(NOTES_MAX + 1):
        verified.note(b"%d" % number, "d", 10.0)
    assert not verified.since(b"0", "d", 0.0, 10.0)
    assert verified.since(b"1", "d", 0.0, 10.0)
