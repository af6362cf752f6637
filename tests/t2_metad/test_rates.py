"""How fast repair goes, and what counts as lost when disks come and go."""

from __future__ import annotations

import random

import pytest

from metad.copies.losses import START_EVERY_S, Losses
from metad.upkeep.rates import BURST_S, METER_S, Meter, Throttle


def test_the_mean_rate_is_kept_whatever_the_sizes(rng: random.Random) -> None:
    throttle = Throttle(100.0, 0)
    now, done = 0.0, 0
    while now < 1000.0:
        if throttle.allows(["a", "b"], now):
            size = rng.randrange(1, 400)
            throttle.spend(["a", "b"], size, now)
            done += size
        else:
            now += rng.uniform(0, 1)
    assert done == pytest.approx(100_000, rel=0.03)


def test_each_disk_has_a_rate_of_its_own() -> None:
    throttle = Throttle(0, 100.0)
    throttle.spend(["a", "b"], int(100 * BURST_S), 0.0)
    assert not throttle.allows(["a", "c"], 0.0)
    assert throttle.allows(["c"], 0.0)
    assert throttle.allows(["a"], 0.1)


def test_no_limit() -> None:
    throttle = Throttle(0, 0)
    throttle.spend(["a"], 1 << 60, 0.0)
    assert throttle.allows(["a"], 0.0)


def test_a_rate_is_that_of_the_last_while() -> None:
    meter = Meter()
    assert meter.per_s(0.0) == 0.0
    meter.add(100, 10.0)
    assert meter.per_s(10.0) == 100.0
    assert meter.per_s(15.0) == 20.0
    meter.add(200, 20.0)
    assert meter.per_s(20.0) == 30.0
    assert meter.per_s(20.0 + METER_S) == 200 / METER_S
    assert meter.per_s(21.0 + METER_S) == 0.0


def test_one_start_for_a_server_in_half_a_minute() -> None:
    losses = Losses()
    assert losses.update({"a": "s1"}, 0.0) == {"a"}
    assert losses.update({}, 1.0) == set(), "it is back, and counts at once"
    assert losses.update({"a": "s1"}, 2.0) == set()
    assert losses.update({"a": "s1", "c": "s2"}, 3.0) == {"c"}, "of another server"
    assert losses.update({"a": "s1", "c": "s2"}, START_EVERY_S) == {"a", "c"}


def test_the_disks_of_a_server_are_lost_together() -> None:
    losses = Losses()
    assert losses.update({"a": "s1", "b": "s1"}, 0.0) == {"a", "b"}
    assert losses.update({"a": "s1", "b": "s1", "c": "s1"}, 10.0) == {"a", "b"}
    assert losses.update({"a": "s1", "b": "s1", "c": "s1"}, 30.0) == {"a", "b", "c"}


def test_a_disk_that_flaps_for_ten_minutes_starts_at_most_twenty_copyings() -> None:
    losses = Losses()
    starts, before = 0, False
    for second in range(600):
        lost = "a" in losses.update({"a": "s1"} if second % 2 else {}, float(second))
        starts += lost and not before
        before = lost
    assert 1 < starts <= 600 / START_EVERY_S
