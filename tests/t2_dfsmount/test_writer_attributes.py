"""Attributes that a writer commits along with the bytes of its file, or soon after, or loses."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import trio
from trio.testing import MockClock

from dfswire.errors import InputOutput, NoSpace, SessionLost, UnknownChunk
from dfswire.operations import SetAttr
from tests.t2_dfsmount.fakes_data import INODE, FakeCluster, data_path


def chmod(mode: int) -> SetAttr:
    return SetAttr(inode=INODE, mode=mode)


def utimens(mtime_ns: int) -> SetAttr:
    return SetAttr(inode=INODE, atime_ns=3, mtime_ns=mtime_ns)


@pytest.mark.parametrize("inline_max_bytes", [0, 100])
async def test_they_travel_with_the_bytes(autojump_clock: MockClock, inline_max_bytes: int) -> None:
    cluster = FakeCluster()
    async with data_path(cluster, inline_max_bytes=inline_max_bytes) as path:
        writer = path.writer(INODE)
        await writer.write(0, b"12345", now_ns=10)
        writer.change_attributes(chmod(0o600), now_ns=11)
        writer.change_attributes(utimens(5), now_ns=12)
        attr = writer.overlaid(cluster.attr())
        assert (attr.mode, attr.size, attr.atime_ns) == (0o100600, 5, 3)
        assert (attr.mtime_ns, attr.ctime_ns) == (5, 12)
        await writer.flush(durable=False, last=True)
        assert not writer.has_dirty
    (commit,) = cluster.commits
    assert commit.attributes == SetAttr(inode=INODE, mode=0o600, atime_ns=3, mtime_ns=5)
    assert commit.mtime_ns == 5
    assert cluster.ends_lease == [True]


async def test_without_bytes_they_travel_alone(autojump_clock: MockClock) -> None:
    cluster = FakeCluster()
    async with data_path(cluster) as path:
        writer = path.writer(INODE)
        writer.change_attributes(chmod(0o600), now_ns=1)
        assert writer.has_dirty and writer.has_attributes
        assert writer.overlaid(cluster.attr()).mtime_ns == cluster.mtime_ns
        await writer.flush(durable=True)
        assert not writer.has_dirty
        await writer.flush(durable=True)
    assert cluster.changes == [chmod(0o600)] and cluster.commits == []


async def test_they_do_not_grow_old(autojump_clock: MockClock) -> None:
    cluster = FakeCluster()
    async with data_path(cluster) as path:
        writer = path.writer(INODE)
        writer.change_attributes(chmod(0o600), now_ns=1)
        await trio.sleep(6)
        assert cluster.changes == [chmod(0o600)] and not writer.has_dirty


async def test_a_write_after_utimens_sets_the_time_again(autojump_clock: MockClock) -> None:
    cluster = FakeCluster()
    async with data_path(cluster) as path:
        writer = path.writer(INODE)
        writer.change_attributes(utimens(5), now_ns=1)
        await writer.write(0, b"later", now_ns=20)
        attr = writer.overlaid(cluster.attr())
        assert (attr.atime_ns, attr.mtime_ns, attr.ctime_ns) == (3, 20, 20)
        await writer.flush(durable=False)
    assert cluster.commits[0].mtime_ns == 20
    assert cluster.changes == [SetAttr(inode=INODE, atime_ns=3)]


async def test_what_comes_while_others_are_on_their_way_follows(autojump_clock: MockClock) -> None:
    cluster = FakeCluster()
    async with data_path(cluster) as path:
        writer = path.writer(INODE)
        writer.change_attributes(chmod(0o600), now_ns=1)

        async def meanwhile() -> None:
            cluster.before_submit = None
            assert writer.overlaid(cluster.attr()).mode == 0o100600
            writer.change_attributes(chmod(0o640), now_ns=2)
            assert writer.overlaid(cluster.attr()).mode == 0o100640

        cluster.before_submit = meanwhile
        await writer.flush(durable=False)
        assert writer.has_dirty and writer.overlaid(cluster.attr()).mode == 0o100640
        await writer.flush(durable=False)
    assert cluster.changes == [chmod(0o600), chmod(0o640)]


async def test_a_truncation_comes_after_them(autojump_clock: MockClock) -> None:
    cluster = FakeCluster()
    async with data_path(cluster) as path:
        writer = path.writer(INODE)
        writer.change_attributes(utimens(5), now_ns=1)

        async def submit() -> None:
            assert cluster.changes == [utimens(5)]

        await writer.truncate(0, submit)
        assert not writer.has_dirty


async def test_after_an_expired_grant_they_are_sent_again(autojump_clock: MockClock) -> None:
    cluster = FakeCluster()
    async with data_path(cluster) as path:
        writer = path.writer(INODE)
        cluster.submit_problems = [UnknownChunk("expired")]
        await writer.write(0, b"x" * 90, now_ns=1)
        writer.change_attributes(chmod(0o600), now_ns=1)
        await writer.flush(durable=False)
        assert writer.check_error(0) == 0
    assert cluster.changes == [chmod(0o600)] and len(cluster.commits) == 1


@pytest.mark.parametrize(
    ("problem", "told"), [(NoSpace("full"), NoSpace), (SessionLost("fenced"), InputOutput)]
)
async def test_a_loss_is_told(
    autojump_clock: MockClock,
    expect_log: Callable[[str], None],
    problem: NoSpace | SessionLost,
    told: type[Exception],
) -> None:
    expect_log("changed attributes are lost")
    cluster = FakeCluster()
    async with data_path(cluster) as path:
        writer = path.writer(INODE)
        cluster.submit_problems = [problem]
        writer.change_attributes(chmod(0o600), now_ns=1)
        await writer.flush(durable=False)
        assert not writer.has_dirty
        with pytest.raises(told):
            writer.check_error(0)


async def test_with_the_session_they_are_lost(
    autojump_clock: MockClock, expect_log: Callable[[str], None]
) -> None:
    expect_log("changed attributes are lost")
    cluster = FakeCluster()
    async with data_path(cluster) as path:
        writer = path.writer(INODE)
        writer.change_attributes(chmod(0o600), now_ns=1)
        writer.fail("the session is lost")
        assert not writer.has_dirty
        await writer.flush(durable=False)
        with pytest.raises(InputOutput, match="the session is lost"):
            writer.check_error(0)
    assert cluster.changes == []
