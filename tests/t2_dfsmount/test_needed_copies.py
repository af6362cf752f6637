"""A write, and an fsync, wait for as many servers as the policy of the file promises."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import trio
from trio.testing import MockClock

from dfswire.errors import InputOutput
from tests.t2_dfsmount.fakes_data import INODE, FakeCluster, data_path


@pytest.mark.parametrize(("needed", "kept"), [(1, True), (2, False), (0, False)])
async def test_a_chunk_on_fewer_servers_is_not_acknowledged(
    autojump_clock: MockClock, expect_log: Callable[[str], None], needed: int, kept: bool
) -> None:
    if not kept:
        expect_log("written bytes are lost")
    cluster = FakeCluster(count=3, replicas=2)
    cluster.needed = needed
    _first, *others = cluster.servers.values()
    for server in others:
        server.is_down = True
    async with data_path(cluster) as path:
        writer = path.writer(INODE)
        await writer.write(0, b"abc", now_ns=1)
        await writer.flush(durable=True)
        if kept:
            assert writer.check_error(0) == 0 and path.durability.count() == 0
        else:
            with pytest.raises(InputOutput):
                writer.check_error(0)


async def test_fsync_waits_for_one_disk_where_one_copy_is_all(autojump_clock: MockClock) -> None:
    """As of a copied range, of which only metad can say how it is kept."""
    cluster = FakeCluster(count=3, replicas=1)
    cluster.needed = 1
    async with data_path(cluster, replicas=2) as path:
        writer = path.writer(INODE)
        await writer.write(0, b"abc", now_ns=1)
        await writer.flush(durable=False)
        path.durability.note_copied(INODE, 0, 3)
        began = trio.current_time()
        await path.durability.settle(INODE)
        assert trio.current_time() - began < 1 and path.durability.count() == 0
