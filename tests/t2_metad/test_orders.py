"""Orders: kept until their result, never twice, never taken for another's."""

from __future__ import annotations

import pytest

from dfswire.orders import OrderResult
from metad.hosts import orders
from metad.hosts.orders import OrderQueue

ONE, TWO = b"1" * 16, b"2" * 16


def done(order_id: int) -> OrderResult:
    return OrderResult(order_id=order_id, ok=True)


def test_an_order_is_given_out_once_and_again_without_a_result() -> None:
    queue = OrderQueue(100, timeout_s=60.0)
    assert queue.add("delete", ONE, "x")
    (order,) = queue.take(["x", "y"], 0.0)
    assert order.order_id == 100
    assert queue.take(["x"], 59.0) == []
    assert queue.take(["x"], 60.0) == [order], "under the same id"
    assert queue.find(done(100), ["x"]) == order
    queue.finish(order)
    queue.finish(order)
    assert queue.find(done(100), ["x"]) is None
    assert queue.take(["x"], 1000.0) == []


def test_the_same_thing_is_not_queued_twice() -> None:
    queue = OrderQueue(1)
    assert queue.add("delete", ONE, "x")
    assert not queue.add("delete", ONE, "x")
    assert queue.add("verify", ONE, "x") and queue.add("delete", ONE, "y")
    assert queue.add("delete", TWO, "x")


def test_a_result_counts_only_from_the_server_of_the_disk() -> None:
    queue = OrderQueue(1)
    queue.add("copy", ONE, "x")
    assert queue.find(done(1), ["y"]) is None
    assert queue.find(done(1), ["x"]) is not None


def test_the_queue_and_what_a_heartbeat_takes_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(orders, "QUEUED_PER_DISK_MAX", 3)
    monkeypatch.setattr(orders, "TAKEN_PER_HEARTBEAT_MAX", 2)
    queue = OrderQueue(1)
    added = [queue.add("delete", bytes([number]) * 16, "x") for number in range(5)]
    assert added == [True, True, True, False, False]
    assert len(queue.take(["x"], 0.0)) == 2
    assert len(queue.take(["x"], 0.0)) == 1


def test_copies_under_way() -> None:
    queue = OrderQueue(1)
    queue.add("copy", ONE, "x")
    queue.add("copy", ONE, "y")
    queue.add("delete", TWO, "y")
    for order in queue.copies()[:1]:
        queue.finish(order)
    assert [each.disk for each in queue.copies()] == ["y"]


def test_what_is_called_off_is_not_given_out_again_and_forgotten_with_its_result() -> None:
    queue = OrderQueue(1, timeout_s=60.0)
    queue.add("copy", ONE, "x")
    (order,) = queue.take(["x"], 0.0)
    queue.call_off(order)
    assert queue.called_off(["y"]) == []
    assert queue.called_off(["x"]) == queue.called_off(["x"]) == [1], "until it is heard"
    assert queue.take(["x"], 100.0) == []
    assert queue.find(done(1), ["x"]) == order, "it may have been made"
    assert queue.finish(order)
    assert queue.called_off(["x"]) == []
    assert not queue.finish(order)


def test_what_nobody_was_told_of_is_just_forgotten() -> None:
    queue = OrderQueue(1)
    queue.add("copy", ONE, "x")
    (order,) = queue.copies()
    queue.call_off(order)
    assert queue.take(["x"], 0.0) == []
    assert queue.called_off(["x"]) == []
    queue.call_off(order)


def test_a_process_that_started_anew_knows_nothing_to_call_off() -> None:
    queue = OrderQueue(1)
    queue.add("copy", ONE, "x")
    (order,) = queue.take(["x"], 0.0)
    queue.call_off(order)
    queue.restart(["x"])
    assert queue.called_off(["x"]) == []
    assert queue.take(["x"], 1.0) == []


def test_an_order_can_be_withdrawn_until_it_is_given_out() -> None:
    queue = OrderQueue(1)
    assert queue.withdraw("delete", ONE, "x"), "there is none"
    queue.add("delete", ONE, "x")
    queue.add("delete", TWO, "x")
    assert [(each.disk, each.chunk) for each in queue.of_kind("delete")] == [
        ("x", ONE),
        ("x", TWO),
    ]
    assert queue.of_kind("verify") == []
    assert queue.withdraw("delete", ONE, "x")
    assert not queue.is_given_out("delete", TWO, "x")
    queue.take(["x"], 0.0)
    assert queue.is_given_out("delete", TWO, "x")
    assert not queue.withdraw("delete", TWO, "x")
    queue.restart(["x"])
    assert queue.withdraw("delete", TWO, "x")
