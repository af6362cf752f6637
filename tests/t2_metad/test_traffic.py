"""Rates come from the counters of heartbeats."""

from __future__ import annotations

import msgspec
import pytest

from dfswire.hosts import DiskFigures
from dfswire.observe import Traffic
from metad.hosts.traffic import FORGOTTEN_S, WINDOW_S, TrafficMeter, total
from tests.t2_metad.machines_for_tests import disk


def figures(count: int) -> DiskFigures:
    return msgspec.structs.replace(
        disk("d"),
        read_bytes=1000 * count,
        written_bytes=100 * count,
        reads=10 * count,
        writes=count,
    )


def test_rates() -> None:
    meter = TrafficMeter()
    assert meter.of("d", 0) == Traffic()
    meter.note([figures(1)], 0)
    assert meter.of("d", 0) == Traffic()
    meter.note([figures(5)], 2)
    expected = Traffic(
        read_bytes_per_s=2000, written_bytes_per_s=200, reads_per_s=20, writes_per_s=2
    )
    assert meter.of("d", 2) == expected
    assert meter.of("d", 2 + FORGOTTEN_S + 1) == Traffic(), "a server that is silent"
    assert total([expected, expected]).read_bytes_per_s == 4000
    assert total([]) == Traffic()


def test_only_the_last_seconds_count() -> None:
    meter = TrafficMeter()
    for second in range(60):
        meter.note([figures(second**2)], second)
        assert len(meter._seen["d"]) <= WINDOW_S + 2
    # 59 ** 2 - 54 ** 2 in five seconds
    assert meter.of("d", 59).writes_per_s == pytest.approx((59**2 - 54**2) / 5)


def test_a_daemon_that_was_started_anew() -> None:
    meter = TrafficMeter()
    meter.note([figures(100)], 0)
    meter.note([figures(0)], 1)
    assert meter.of("d", 1) == Traffic()
    meter.note([figures(1)], 2)
    assert meter.of("d", 2).writes_per_s == 1


def test_two_heartbeats_at_once() -> None:
    meter = TrafficMeter()
    meter.note([figures(1)], 0)
    meter.note([figures(2)], 0)
    assert meter.of("d", 0) == Traffic()
