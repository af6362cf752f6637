"""When reading gives a new atime, and how that travels."""

from __future__ import annotations

import stat

import pytest
import trio
from trio.testing import MockClock

from dfsmount.config import NOATIME, RELATIME, STRICTATIME
from dfsmount.leases.attrcache import AttrCache
from dfsmount.names import accesstimes
from dfsmount.names.accesstimes import DAY_NS, SEND_EVERY_S, AccessTimes, is_due
from dfswire.batches import OpResult
from dfswire.errors import Unavailable
from dfswire.messages import Attr
from dfswire.operations import FS_NOATIME, Access

NOW = 10**18
HOUR_NS = 3600 * 10**9


def attr(
    atime_ns: int = 0, mtime_ns: int = 0, ctime_ns: int = 0, *, inode: int = 2, flags: int = 0
) -> Attr:
    return Attr(
        inode=inode,
        mode=stat.S_IFREG,
        uid=0,
        gid=0,
        size=0,
        atime_ns=NOW + atime_ns,
        mtime_ns=NOW + mtime_ns,
        ctime_ns=NOW + ctime_ns,
        flags=flags,
    )


@pytest.mark.parametrize(
    ("known", "relatime"),
    [
        (attr(), True),  # as it was made
        (attr(atime_ns=5), False),
        (attr(atime_ns=5, mtime_ns=5), True),
        (attr(atime_ns=5, ctime_ns=6), True),
        (attr(atime_ns=-DAY_NS + HOUR_NS, mtime_ns=-DAY_NS, ctime_ns=-DAY_NS), False),
        (attr(atime_ns=-DAY_NS, mtime_ns=-2 * DAY_NS, ctime_ns=-2 * DAY_NS), True),
        (attr(atime_ns=DAY_NS, mtime_ns=0), False),
    ],
)
def test_the_rules(known: Attr, relatime: bool) -> None:
    assert is_due(RELATIME, known, NOW) == relatime
    assert is_due(STRICTATIME, known, NOW)
    assert not is_due(NOATIME, known, NOW)
    exempt = attr(flags=FS_NOATIME)
    assert not is_due(RELATIME, exempt, NOW) and not is_due(STRICTATIME, exempt, NOW)


class Metadata:
    """What was submitted."""

    def __init__(self) -> None:
        self.sent: list[Access] = []
        self.problem: Exception | None = None

    async def submit(self, operation: Access) -> OpResult:
        await trio.sleep(0.1)
        if self.problem is not None:
            raise self.problem
        self.sent.append(operation)
        return OpResult()


class World:
    """Times of a mount whose clock stands still at NOW + 100."""

    def __init__(self, rule: str = RELATIME) -> None:
        self.attrs = AttrCache(lambda: True)
        self.metadata = Metadata()
        self.now_ns = NOW + 100
        self.times = AccessTimes(rule, self.attrs, self.metadata, lambda: self.now_ns)

    def read(self, known: Attr) -> int:
        """The atime that stat shows then, counted from NOW."""
        with self.attrs.asking() as token:
            self.attrs.put_attr(known, token)
        self.times.note(known)
        return self.times.overlaid(known).atime_ns - NOW


async def test_a_reading_is_seen_at_once_and_sent_once(autojump_clock: MockClock) -> None:
    world = World()
    known = attr()
    assert world.read(known) == 100
    world.now_ns += 50
    assert world.read(known) == 100, "not due any more"
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.times.run)
        await trio.sleep(SEND_EVERY_S - 1)
        assert not world.metadata.sent
        await trio.sleep(2)
        (operation,) = world.metadata.sent
        assert [(each.inode, each.atime_ns) for each in operation.times] == [(2, NOW + 100)]
        now = world.attrs.attr(2)
        assert now is not None and now.atime_ns == NOW + 100
        assert world.times.overlaid(known) is known, "nothing waits any more"
        world.times.note(now)
        await trio.sleep(60)
        assert len(world.metadata.sent) == 1
        nursery.cancel_scope.cancel()


async def test_a_change_overtakes_the_news_of_a_reading(autojump_clock: MockClock) -> None:
    world = World()
    world.read(attr())
    changed = attr(atime_ns=3, mtime_ns=4, ctime_ns=200)
    with world.attrs.asking() as token:
        world.attrs.put_attr(changed, token)
    assert world.times.overlaid(changed) is changed
    await world.times.send()
    assert world.attrs.attr(2) == changed


async def test_a_clock_that_is_behind_makes_no_endless_news(autojump_clock: MockClock) -> None:
    """metad's clock gave the ctime; ours has not got there yet."""
    world = World()
    assert world.read(attr(ctime_ns=5000)) == 5001
    known = attr(atime_ns=5001, ctime_ns=5000)
    await world.times.send()
    world.read(known)
    await world.times.send()
    assert len(world.metadata.sent) == 1


async def test_strictly_every_reading_counts() -> None:
    world = World(STRICTATIME)
    known = attr(atime_ns=5)
    assert world.read(known) == 100
    world.now_ns += 50
    assert world.read(known) == 150


async def test_many_are_sent_early_and_in_parts(autojump_clock: MockClock) -> None:
    world = World()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(accesstimes, "WAITING_MAX", 4)
        patch.setattr(accesstimes, "SENT_AT_ONCE_MAX", 2)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(world.times.run)
            for inode in range(5):
                world.read(attr(inode=inode + 2))
            await trio.sleep(SEND_EVERY_S / 2)
            assert [len(each.times) for each in world.metadata.sent] == [2, 2, 1]
            nursery.cancel_scope.cancel()


async def test_what_is_read_while_news_are_sent_is_sent_too(autojump_clock: MockClock) -> None:
    world = World(STRICTATIME)
    world.read(attr())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.times.send)
        await trio.sleep(0.05)
        world.now_ns += 50
        world.read(attr())
    await world.times.send()
    assert [each.times[0].atime_ns - NOW for each in world.metadata.sent] == [100, 150]


async def test_news_that_cannot_be_sent_are_dropped(autojump_clock: MockClock) -> None:
    world = World()
    world.metadata.problem = Unavailable("away")
    known = attr()
    world.read(known)
    await world.times.send()
    assert world.times.overlaid(known) is known
