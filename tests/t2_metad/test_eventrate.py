"""Of a flood of events few rows are made, and all are counted."""

from __future__ import annotations

import random

from metad.observe.eventrate import (
    OTHERS,
    OWN_PER_KIND,
    OWN_PER_SUBJECT,
    READY_MAX,
    WINDOW_MAX_S,
    WINDOW_S,
    Entry,
    Intake,
)


def counted(entries: list[Entry]) -> int:
    return sum(each.times for each in entries)


def test_a_few_events_are_kept_one_by_one() -> None:
    intake = Intake()
    intake.add(0.0, 1, "k", "a", "one")
    intake.add(0.1, 2, "k", "b", "two")
    assert intake.due_in_s(0.1) == 0.0
    assert intake.take(0.1) == [Entry(1, "k", "a", "one"), Entry(2, "k", "b", "two")]
    assert intake.take(0.2) == []
    assert intake.due_in_s(0.2) is None


def test_a_subject_that_repeats_itself_is_merged_at_the_end_of_the_window() -> None:
    intake = Intake()
    for number in range(10):
        intake.add(10.0, number, "k", "a", str(number))
    assert len(intake.take(10.0)) == OWN_PER_SUBJECT
    assert intake.due_in_s(20.0) == WINDOW_S - 10
    assert intake.take(10.0 + WINDOW_S - 0.1) == []
    assert intake.take(10.0 + WINDOW_S) == [Entry(9, "k", "a", "9", 10 - OWN_PER_SUBJECT)]
    now = 11.0 + WINDOW_S
    intake.add(now, 99, "k", "a", "again")
    assert len(intake.take(now)) == 1, "a new window"


def test_what_goes_on_for_months_makes_few_rows() -> None:
    intake = Intake()
    written: list[Entry] = []
    day_s, total = 86_400, 0
    for second in range(0, 30 * day_s, 20):
        intake.add(second, second, "disk.failed", "d", "again")
        total += 1
        written += intake.take(second)
    assert len(written) < 30 * 24 * 2 + 50
    assert counted(written + intake.take_all()) == total
    intake.add(31 * day_s, 0, "disk.failed", "other", "the first time")
    assert [each.subject for each in intake.take(31 * day_s)] == ["other"], "told at once"


def test_after_a_calm_time_everything_is_as_before() -> None:
    intake = Intake()
    for second in range(6000):
        intake.add(second, 0, "k", "a", "m")
    intake.take_all()
    later = 6000 + WINDOW_MAX_S * 2
    for _ in range(5):
        intake.add(later, 0, "k", "a", "m")
    assert len(intake.take(later)) == OWN_PER_SUBJECT
    assert intake.due_in_s(later) == WINDOW_S


def test_many_subjects_are_merged_into_one_row() -> None:
    intake = Intake()
    for number in range(5000):
        intake.add(0.0, number, "k", str(number), "lost")
    intake.add(0.0, 0, "other", "x", "not affected")
    assert len(intake.take(0.0)) == OWN_PER_KIND + 1
    assert intake.take(WINDOW_S) == [Entry(4999, "k", OTHERS, "lost", 5000 - OWN_PER_KIND)]


def test_what_can_not_be_written_is_kept_and_bounded(rng: random.Random) -> None:
    intake = Intake()
    total = 0
    for minute in range(200):
        for _ in range(150):
            intake.add(minute * WINDOW_S, 0, f"k{rng.randrange(20)}", str(rng.random()), "m")
            total += 1
        taken = intake.take(minute * WINDOW_S)
        assert len(taken) < 2 * READY_MAX
        intake.put_back(taken)
    assert counted(intake.take_all()) == total
    assert intake.take_all() == []


def test_a_window_that_is_due_ends_whatever_the_clock_says(rng: random.Random) -> None:
    """Else whoever sleeps until it is due would do so again and again, for no time at all."""
    for _ in range(1000):
        intake, now = Intake(), rng.uniform(0, 100)
        for _ in range(OWN_PER_SUBJECT + 1):
            intake.add(now, 1, "server.down", "s", "m")
        intake.take(now)
        for _ in range(3):
            due_s = intake.due_in_s(now)
            if due_s is None:
                break
            now += due_s
            intake.take(now)
        assert intake.due_in_s(now) is None
