"""A client whose event stream breaks or falls silent: what it learnt meanwhile is not kept."""

from __future__ import annotations

import os
import random
from collections.abc import Callable

import trio
from trio.testing import MockClock

from dfswire.operations import SetAttr
from tests.t3_cluster.files import read_file, write_file
from tests.t3_cluster.gate import gated_pair, reconnect


async def test_a_layout_learnt_before_the_stream_is_open_is_not_kept(
    autojump_clock: MockClock, rng: random.Random
) -> None:
    async with gated_pair(rng) as (_, one, gate, other):
        await write_file(other.vfs, "f", b"old")
        held = await reconnect(gate)
        assert await read_file(one.vfs, "f") == b"old"
        held.release()
        await trio.sleep(1)
        await write_file(other.vfs, "f", b"new")
        assert await read_file(one.vfs, "f") == b"new"


async def test_a_layout_learnt_before_metad_opened_the_stream_is_not_believed_after_it(
    autojump_clock: MockClock, rng: random.Random
) -> None:
    """metad takes it for forgotten then, and tells nobody; the client does not know that yet."""
    async with gated_pair(rng) as (_, one, gate, other):
        inode = await write_file(other.vfs, "f", b"old" * 5000)
        theirs = await other.vfs.open(inode, os.O_WRONLY)
        mine = await one.vfs.open(inode, os.O_RDONLY)
        held = await reconnect(gate)
        assert bytes(await one.vfs.read(mine, 0, 6)) == b"oldold"
        late = gate.reply("session/events")
        held.release()
        await late.arrived.wait()
        await other.vfs.write(theirs, 0, b"new" * 5000)
        await other.vfs.fsync(theirs)
        assert bytes(await one.vfs.read(mine, 0, 6)) == b"newnew"
        late.release()
        await trio.sleep(1)
        assert bytes(await one.vfs.read(mine, 0, 6)) == b"newnew"
        await one.vfs.release(mine)
        await other.vfs.release(theirs)


async def test_an_answer_from_before_the_stream_was_open_is_not_kept(
    autojump_clock: MockClock, rng: random.Random
) -> None:
    async with gated_pair(rng) as (_, one, gate, other):
        inode = await write_file(other.vfs, "f", b"f")
        held = await reconnect(gate)
        late = gate.reply("meta/getattr")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(one.vfs.getattr, inode)
            await late.arrived.wait()
            held.release()
            await trio.sleep(1)
            late.release()
        await other.vfs.setattr(SetAttr(inode=inode, mode=0o600))
        assert (await one.vfs.getattr(inode)).mode & 0o777 == 0o600


async def test_a_stream_that_falls_silent_is_opened_again(
    autojump_clock: MockClock, rng: random.Random
) -> None:
    """metad's host lost its power, say: the connection is dead, and nobody says so."""
    async with gated_pair(rng) as (_, one, gate, other):
        await write_file(other.vfs, "f", b"old")
        assert await read_file(one.vfs, "f") == b"old"
        gate.mute_streams()
        with trio.fail_after(60):
            await write_file(other.vfs, "f", b"new")
        assert await read_file(one.vfs, "f") == b"new"


async def test_a_read_during_which_the_session_is_lost_mixes_nothing(
    autojump_clock: MockClock, rng: random.Random, expect_log: Callable[[str], None]
) -> None:
    """What was dirty when it began is lost, and others may have written since."""
    expect_log("metad ended this client's session")
    expect_log("written bytes are lost")
    async with gated_pair(rng) as (_, one, gate, other):
        inode = await write_file(other.vfs, "f", b"old" * 3000)
        handle = await one.vfs.open(inode, os.O_RDWR)
        await one.vfs.write(handle, 3000, b"lost")
        results = []

        async def read() -> None:
            results.append(bytes(await one.vfs.read(handle, 0, 9000)))

        late = [gate.request("meta/layout") for _ in range(20)]  # it is asked again every 5 s
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            await late[0].arrived.wait()
            assert one.session.grant is not None
            one.session.lost(one.session.grant.session)
            await write_file(other.vfs, "f", b"new" * 3000)
            assert not results
            for each in late:
                each.release()
        assert results == [b"new" * 3000]
