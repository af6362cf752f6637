"""Which servers are slow, by those who call them."""

from __future__ import annotations

import pytest

from dfswire.health import Experience
from metad.hosts.grayness import HEARD_S, HOLD_S, LONE_S, RELAPSE_S, Grayness

ALL = [f"s{number}" for number in range(6)]


def met(address: str, *, slow: int = 0, failed: int = 0, calls: int = 10) -> Experience:
    return Experience(address=address, calls=calls, slow=slow, failed=failed)


def fine(*addresses: str) -> list[Experience]:
    return [met(address) for address in addresses]


def is_slow(gray: Grayness, address: str, now: float) -> bool:
    gray.update(ALL, now)
    return bool(gray.reason(address, now))


def test_two_who_agree_are_believed_at_once() -> None:
    gray = Grayness()
    gray.report("a", [met("s0", slow=5), *fine("s1", "s2")], 0.0)
    assert not is_slow(gray, "s0", 0.0)
    gray.report("b", [met("s0", failed=3), *fine("s1", "s2")], 1.0)
    assert is_slow(gray, "s0", 1.0)
    assert gray.reason("s0", 1.0) == "2 of 2 that call it: of 20 calls 3 failed, 5 were slow"
    assert not is_slow(gray, "s1", 1.0)


def test_half_of_the_callers_must_agree() -> None:
    gray = Grayness()
    for client in "ab":
        gray.report(client, [met("s0", slow=5), *fine("s1")], 0.0)
    for client in "cde":
        gray.report(client, fine("s0", "s1"), 0.0)
    assert not is_slow(gray, "s0", 0.0)
    gray.report("c", [met("s0", slow=5), *fine("s1")], 1.0)
    assert is_slow(gray, "s0", 1.0)


def test_the_only_caller_is_believed_after_a_while() -> None:
    gray = Grayness()
    for now in range(0, int(LONE_S) + 1, 4):
        gray.report("a", [met("s0", slow=5), *fine("s1", "s2")], now)
        assert is_slow(gray, "s0", now) == (now >= LONE_S)


def test_a_lone_caller_that_paused_begins_anew() -> None:
    gray = Grayness()
    gray.report("a", [met("s0", slow=5), *fine("s1")], 0.0)
    gray.report("a", [met("s0", slow=5), *fine("s1")], HEARD_S)
    assert not is_slow(gray, "s0", HEARD_S)


def test_who_finds_most_servers_bad_speaks_of_itself() -> None:
    gray = Grayness()
    for now in range(0, 40, 4):
        gray.report("a", [met("s0", failed=5), met("s1", failed=5), *fine("s2")], now)
        gray.report("b", fine("s0", "s1", "s2"), now)
        assert not is_slow(gray, "s0", now)
        assert not is_slow(gray, "s1", now)


def test_a_single_hiccup_is_nothing() -> None:
    gray = Grayness()
    for client in "ab":
        gray.report(client, [met("s0", slow=1, calls=1), *fine("s1")], 0.0)
    assert not is_slow(gray, "s0", 0.0)
    gray.report("b", [met("s0", slow=1, calls=1), *fine("s1")], 1.0)
    assert is_slow(gray, "s0", 1.0)


def test_a_few_failures_of_many_calls_are_nothing() -> None:
    gray = Grayness()
    for client in "ab":
        gray.report(client, [met("s2", slow=10, calls=100), *fine("s1")], 0.0)
    assert not is_slow(gray, "s2", 0.0)


def test_it_is_held_and_longer_after_a_relapse() -> None:
    gray = Grayness()

    def fail(now: float) -> None:
        for client in "ab":
            gray.report(client, [met("s0", slow=5), *fine("s1", "s2")], now)
        assert is_slow(gray, "s0", now)

    fail(0.0)
    assert is_slow(gray, "s0", HOLD_S - 1)
    assert not is_slow(gray, "s0", HOLD_S), "it is tried again"
    fail(HOLD_S + 5)
    assert is_slow(gray, "s0", HOLD_S + 5 + 2 * HOLD_S - 1)
    well_s = HOLD_S + 5 + 2 * HOLD_S
    assert not is_slow(gray, "s0", well_s)
    later_s = well_s + RELAPSE_S + 1
    fail(later_s)
    assert not is_slow(gray, "s0", later_s + HOLD_S), "that was long ago"


def test_it_is_held_from_the_last_report_on() -> None:
    """And not for as long as that report counts besides."""
    gray = Grayness()
    for client in "ab":
        gray.report(client, [met("s0", slow=5), *fine("s1", "s2")], 0.0)
    assert all(is_slow(gray, "s0", float(now)) for now in range(int(HOLD_S)))
    assert not is_slow(gray, "s0", HOLD_S)


def test_never_more_than_a_third_are_slow_but_one() -> None:
    gray = Grayness()
    for client in "abcdefgh":
        for address in ALL:
            gray.report(f"{client}{address}", [met(address, slow=9)], 0.0)
    gray.update(ALL, 0.0)
    assert sum(bool(gray.reason(address, 0.0)) for address in ALL) == 2
    two = Grayness()
    for client in "ab":
        two.report(client, [met("s0", slow=9), *fine("s1")], 0.0)
    two.update(["s0"], 0.0)
    assert not two.reason("s0", 0.0), "it is the only one"
    two.update(["s0", "s1"], 0.0)
    assert two.reason("s0", 0.0)
    two.update(["s1", "s2"], 0.0)
    assert not two.reason("s0", 0.0), "what was known of servers that are away is forgotten"


@pytest.mark.parametrize("calls", [0, 1])
def test_who_does_not_call_has_no_opinion(calls: int) -> None:
    gray = Grayness()
    for client in "ab":
        gray.report(client, [met("s0", slow=5), *fine("s1")], 0.0)
    gray.report("c", [met("s0", calls=calls), *fine("s1", "s2")], 0.0)
    assert is_slow(gray, "s0", 0.0)
    gray.forget("s0")
    assert not is_slow(gray, "s0", 0.0)
