"""Receive buffers: bounded per length of the chain, reused, never handed out twice."""

from __future__ import annotations

import trio
from trio.testing import MockClock

from chunkd.buffers import REUSED_MIN_BYTES, Buffers


async def test_writers_wait_for_a_place_at_their_own_chain_length(
    autojump_clock: MockClock,
) -> None:
    buffers = Buffers(2)
    finished: list[tuple[str, float]] = []

    async def hold(name: str, chain_length: int) -> None:
        async with buffers.borrow(100, chain_length):
            await trio.sleep(1)
        finished.append((name, trio.current_time() - started))

    started = trio.current_time()
    async with trio.open_nursery() as nursery:
        for number in range(3):
            nursery.start_soon(hold, f"head{number}", 2)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(hold, "last", 0)
    at = dict(finished)
    assert sorted(round(at[f"head{number}"]) for number in range(3)) == [1, 1, 2]
    assert round(at["last"]) == 1


async def test_large_buffers_are_reused_and_small_ones_are_not() -> None:
    buffers = Buffers(2)
    async with buffers.borrow(REUSED_MIN_BYTES, 0) as first:
        first[0] = 77
        async with buffers.borrow(REUSED_MIN_BYTES, 0) as second:
            second[0] = 78
            assert first[0] == 77
    async with buffers.borrow(REUSED_MIN_BYTES - 5, 0) as again:
        assert again[0] in (77, 78)
        assert len(again) == REUSED_MIN_BYTES - 5
    async with buffers.borrow(10, 0) as small:
        assert bytes(small) == bytes(10)
