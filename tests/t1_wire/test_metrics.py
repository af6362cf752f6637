"""Counting calls, and the page that Prometheus reads."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from dfswire.bodies import BodySource
from dfswire.dispatch import Dispatcher
from dfswire.errors import NoEntry
from dfswire.hosts import Hello
from dfswire.messages import Empty
from dfswire.metrics import BOUNDS_S, Durations, Metrics, counter, gauge
from tests.t1_wire.services import dispatcher
from tests.t1_wire.test_dispatch import Octets


def samples(page: bytes) -> dict[tuple[str, tuple[str, ...]], float]:
    """(name, values of the labels in the order of their names) -> number."""
    return {
        (sample.name, tuple(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(page.decode())
        for sample in family.samples
    }


async def test_durations() -> None:
    metrics = Metrics("test")
    durations = Durations("d_seconds", "D.", ("kind",))
    metrics.registry.register(durations)
    for seconds in (0.0, BOUNDS_S[0], 0.002, 1000.0):
        durations.add(("a",), seconds)
    durations.add(("b",), 0.002)
    found = samples(await metrics.page())
    assert found["d_seconds_count", ("a",)] == 4
    assert found["d_seconds_sum", ("a",)] == pytest.approx(1000.0021)
    below = {
        le: value
        for (name, labels), value in found.items()
        if name == "d_seconds_bucket" and labels[0] == "a"
        for le in [float(labels[1])]
    }
    assert [below[le] for le in (0.0001, 0.001, 0.0025, 30.0, math.inf)] == [2, 2, 3, 3, 4]
    assert found["d_seconds_count", ("b",)] == 1


async def test_what_is_read_at_a_scrape() -> None:
    metrics = Metrics("test")
    known = {"x": 1.0}

    async def prepare() -> None:
        known["x"] += 1

    metrics.read(
        lambda: [
            gauge("g_bytes", "G.", [((k,), v) for k, v in known.items()], ("name",)),
            counter("c_total", "C.", [((), 7)]),
        ],
        prepare,
    )
    found = samples(await metrics.page())
    assert (found["g_bytes", ("x",)], found["c_total", ()]) == (2.0, 7.0)
    assert found["dfs_build_info", ("test", "0.1.0")] == 1
    assert found["process_open_fds", ()] > 0


async def ask(where: Dispatcher, method: str, path: str) -> tuple[int, Any]:
    response = await where.dispatch(method, path, {}, Octets())
    return response.status, response.body


async def test_a_dispatcher_counts_its_calls_and_serves_the_page(
    expect_log: Callable[[str], None],
) -> None:
    expect_log("failed unexpectedly")
    answers: list[Exception] = [NoEntry("none"), ZeroDivisionError("told to")]

    async def hello(request: Empty, body: BodySource) -> Hello:
        if answers:
            raise answers.pop()
        return Hello(service="metad", protocol=1, software="test", cluster_id="c")

    plain = dispatcher("metad", {"metad.hello": hello})
    assert (await ask(plain, "GET", "/metrics"))[0] == 404
    watched = Dispatcher("metad", plain._handlers, Metrics("metad"))
    for _ in range(5):
        await ask(watched, "GET", "/v1/hello")
    assert (await ask(watched, "POST", "/metrics"))[0] == 404
    status, body = await ask(watched, "GET", "/metrics")
    found = samples(body)
    assert status == 200
    counts = {labels: n for (name, labels), n in found.items() if name.endswith("_seconds_count")}
    assert counts == {
        ("metad.hello", "ok"): 3,
        ("metad.hello", "no_entry"): 1,
        ("metad.hello", "internal"): 1,
        ("unknown", "protocol"): 1,
    }
    found = samples((await ask(watched, "GET", "/metrics"))[1])
    assert found["dfs_call_duration_seconds_count", ("metrics", "ok")] == 1
