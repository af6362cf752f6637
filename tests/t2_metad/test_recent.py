"""Chunks too new for an inventory."""

from __future__ import annotations

from metad.copies.recent import RecentChunks

ONE, TWO, THREE = b"1" * 16, b"2" * 16, b"3" * 16


def test_everything_is_recent_at_first() -> None:
    recent = RecentChunks(60.0, now=100.0)
    assert recent(ONE, 159.0)
    assert not recent(ONE, 160.0)


def test_what_was_stored_is_recent_for_a_while() -> None:
    recent = RecentChunks(60.0, now=0.0)
    recent.add([ONE, TWO], 100.0)
    recent.add([ONE], 130.0)
    recent.add([THREE], 165.0)
    assert [recent(chunk, 165.0) for chunk in (ONE, TWO, THREE)] == [True, False, True]
    assert not recent(ONE, 190.0)
