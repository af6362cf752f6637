"""Packs and their memory: growth, reuse, and what a commit says of them."""

from __future__ import annotations

from trio.testing import MockClock

from dfsmount.files.packs import (
    IDLE_BUFFERS_MAX,
    SMALL_BYTES,
    BufferPool,
    Pack,
    extents_of,
    layered,
)

CHUNK = 20 * SMALL_BYTES


async def test_a_small_pack_grows_and_keeps_its_bytes(autojump_clock: MockClock) -> None:
    pool = BufferPool(CHUNK)
    pack = Pack(pool, CHUNK, small=True)
    written = b""
    while pack.room:
        part = bytes([len(written) % 251]) * min(3001, pack.room)
        before = pack.view(0, len(written))
        assert pack.append(len(written), part) == len(written)
        assert before == written, "views taken before it grew stay good"
        written += part
    assert pack.view(0, CHUNK) == written and len(pack.ranges) == 1
    pack.free()
    assert pool.take(CHUNK).obj is not Pack(pool, CHUNK, small=True).view(0, 0).obj


async def test_full_size_buffers_are_reused_and_few_are_kept(autojump_clock: MockClock) -> None:
    pool = BufferPool(CHUNK)
    packs = [Pack(pool, CHUNK, small=False) for _ in range(IDLE_BUFFERS_MAX + 3)]
    memory = {id(pack.view(0, 0).obj) for pack in packs}
    for pack in packs:
        pack.free()
    again = [Pack(pool, CHUNK, small=False) for _ in range(IDLE_BUFFERS_MAX)]
    assert {id(pack.view(0, 0).obj) for pack in again} <= memory


async def test_a_pack_of_a_file_with_other_chunks(autojump_clock: MockClock) -> None:
    pool = BufferPool(CHUNK)
    large = Pack(pool, 3 * CHUNK, small=True)
    for part in range(3):
        large.append(part * CHUNK, bytes([part]) * CHUNK)
    assert not large.room
    assert large.view(0, 3 * CHUNK) == b"".join(bytes([part]) * CHUNK for part in range(3))
    narrowed = Pack(pool, CHUNK, small=True)
    narrowed.append(0, b"x" * SMALL_BYTES)
    narrowed.limit_bytes = SMALL_BYTES // 2
    assert narrowed.room == 0, "nothing more goes in, and nothing is lost"
    assert narrowed.view(0, SMALL_BYTES) == b"x" * SMALL_BYTES


async def test_later_packs_lie_over_earlier_ones(autojump_clock: MockClock) -> None:
    pool = BufferPool(CHUNK)
    first, second = Pack(pool, CHUNK, small=True), Pack(pool, CHUNK, small=True)
    first.append(0, b"aaaaaa")
    second.append(2, b"bb")
    second.overwrite(0, b"B")
    found = [(one.offset, one.data) for one in extents_of(layered([first, second]))]
    assert found == [(0, b"aa"), (2, b"Bb"), (4, b"aa")]
