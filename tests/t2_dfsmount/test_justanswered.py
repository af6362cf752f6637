"""Names that the kernel may not have taken in yet."""

from __future__ import annotations

from dfsmount.leases.justanswered import TAKEN_IN_S, JustAnswered


def test_a_name_may_be_on_its_way_for_a_while() -> None:
    names = JustAnswered()
    assert not names.has_any_of([(1, b"a")], 0.0)
    names.note(1, b"a", 10.0)
    assert names.has_any_of([(1, b"x"), (1, b"a")], 10.0 + TAKEN_IN_S / 2)
    assert not names.has_any_of([(2, b"a"), (1, b"b")], 10.0)
    assert not names.has_any_of([(1, b"a")], 10.0 + TAKEN_IN_S)


def test_the_last_answer_counts_and_old_ones_are_forgotten() -> None:
    names = JustAnswered()
    names.note(1, b"a", 0.0)
    names.note(1, b"b", 0.1)
    names.note(1, b"a", 0.2)
    assert names.has_any_of([(1, b"a")], 0.1 + TAKEN_IN_S)
    names.note(1, b"c", 0.15 + TAKEN_IN_S)
    assert list(names._answered_s) == [(1, b"a"), (1, b"c")]
