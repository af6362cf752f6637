"""What metad orders is carried out once, in its order, and what became of it is told."""

from __future__ import annotations

import msgspec
import pytest
import trio
from trio.testing import MockClock

from dfswire import codec
from dfswire.orders import Order
from tests.suites.chunkstore import A, B, ExpectLog, put
from tests.t2_chunkd.lines import DATA, Kind, Line


@pytest.mark.parametrize("kind", ["copy", "delete", "verify"])
async def test_orders_are_carried_out(line: Line, autojump_clock: MockClock, kind: Kind) -> None:
    put(line.two.store, A, DATA)
    if kind != "copy":
        put(line.one.store, A, DATA)
    line.metad.orders.append(line.order(kind))
    async with line.running():
        await trio.sleep(3.5)
    assert line.results() == [(1, True)]
    assert (A in line.one.store.files) == (kind != "delete")


async def test_orders_that_fail_say_so(
    line: Line, autojump_clock: MockClock, expect_log: ExpectLog
) -> None:
    expect_log("is bad")
    put(line.one.store, A, DATA)
    line.one.store.corrupt(A)
    line.metad.orders += [line.order("verify", 1), line.order("copy", 2)]
    line.metad.orders.append(Order(order_id=3, kind="delete", chunk=A, disk="elsewhere"))
    async with line.running():
        await trio.sleep(3.5)
    assert sorted(line.results()) == [(1, False), (2, False), (3, False)]
    assert line.reports() == [(A, "bad"), (A, "bad")]


async def test_orders_of_a_kind_that_a_later_release_has(
    line: Line, autojump_clock: MockClock
) -> None:
    """They fail, nothing is done to the chunk, and the others in the same answer are obeyed."""
    put(line.one.store, A, DATA)
    put(line.one.store, B, DATA)
    document = {"order_id": 1, "kind": "polish", "chunk": A, "disk": "one", "varnish": True}
    line.metad.orders.append(codec.decode(Order, msgspec.msgpack.encode(document)))
    line.metad.orders.append(Order(order_id=2, kind="delete", chunk=B, disk="one"))
    async with line.running():
        await trio.sleep(3.5)
    assert sorted(line.results()) == [(1, False), (2, True)]
    assert set(line.one.store.files) == {A}
    reasons = [each.reason for beat in line.metad.heartbeats for each in beat.results]
    assert "not_supported: this chunkd knows no order to polish" in reasons


async def test_deleting_what_is_gone_is_a_success(line: Line, autojump_clock: MockClock) -> None:
    line.metad.orders.append(line.order("delete"))
    async with line.running():
        await trio.sleep(3.5)
    assert line.results() == [(1, True)]


async def test_verifying_what_is_gone_reports_it(line: Line, autojump_clock: MockClock) -> None:
    line.metad.orders.append(line.order("verify"))
    async with line.running():
        await trio.sleep(3.5)
    assert line.results() == [(1, False)]
    assert line.reports() == [(A, "missing")]


async def test_an_order_given_twice_is_taken_once(line: Line, autojump_clock: MockClock) -> None:
    line.metad.orders += [line.order("verify"), line.order("verify")]
    put(line.one.store, A, DATA)
    async with line.running():
        await trio.sleep(3.5)
    assert line.results() == [(1, True)]


async def test_orders_about_one_chunk_are_carried_out_in_their_order(
    line: Line, autojump_clock: MockClock
) -> None:
    """A verification that was ordered after a deletion finds what that has left."""
    put(line.one.store, A, DATA)
    async with line.running():
        await trio.sleep(0.5)
        line.metad.orders = [
            line.order("delete", 1),
            line.order("verify", 2),
            line.order("copy", 3),
            line.order("verify", 4),
        ]
        put(line.two.store, A, DATA)
        await trio.sleep(2.5)
    assert line.results() == [(1, True), (2, False), (3, True), (4, True)]


async def test_what_is_called_off_is_not_carried_out_and_has_a_result(
    line: Line, autojump_clock: MockClock
) -> None:
    put(line.one.store, A, DATA)
    async with line.running():
        await trio.sleep(0.5)
        line.metad.orders = [line.order("verify", 1), line.order("delete", 2)]
        line.metad.called_off = [2, 3]
        await trio.sleep(2.5)
    assert sorted(line.results()) == [(1, True), (2, False), (3, False)]
    assert A in line.one.store.files
