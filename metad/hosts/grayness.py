"""Servers whose heartbeats are in time, and which those who need them find slow or do not reach.

Pure.  Clients and chunkds report what they met at each server (dfswire/health.py); `Grayness` says
which servers to treat as slow, and why.  The rules:

* A reporter finds a server bad when at least a fifth of its calls there failed or were slow.  One
  that finds most of the servers it calls bad speaks of itself and is not heard; with two servers,
  one bad, nobody knows better than it.
* A server is slow when at least half of those who called it lately find it bad, they are two or
  more, and met more than a hiccup (CALLS_LEAST bad calls together); or when the only one who calls
  it finds it bad again and again for LONE_S.  Bad calls are few: clients go elsewhere after one.
* It is slow until HOLD_S after the last report by which that is so.  Since few call a slow server,
  that it is well again is found out by trying; if it fails within RELAPSE_S of that, it is held
  twice as long, up to HOLD_MAX_S.
* Never more than a third of all servers, but one: when everything is slow, nobody is better.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from dfswire.health import Experience

HEARD_S = 15.0  # a report counts for so long: sessions are renewed every 5 s
LONE_S = 8.0
HOLD_S = 30.0
HOLD_MAX_S = 600.0
RELAPSE_S = 300.0
CALLS_LEAST = 3
BAD_SHARE = 0.2
REPORTERS_MAX = 10_000


@dataclass
class _Opinion:
    """What one reporter last said of one server; `bad_since_s` while it finds it bad."""

    at_s: float
    failed: int
    slow: int
    calls: int
    bad_since_s: float | None
    bad_reports: int  # without a good one between them
    bad_calls: int  # in these


@dataclass
class _Server:
    """What is known of one server, by its address."""

    opinions: dict[str, _Opinion] = field(default_factory=dict)
    slow_until_s: float = 0.0
    hold_s: float = HOLD_S
    reason: str = ""


class Grayness:
    """The reports of the last while, and what follows from them."""

    def __init__(self) -> None:
        self._servers: dict[str, _Server] = {}
        self._distrusted: dict[str, float] = {}  # reporter -> until

    def report(self, reporter: str, experiences: Iterable[Experience], now: float) -> None:
        """Somebody tells what it met since its last report."""
        experiences = [each for each in experiences if each.calls > 0]
        bad = [each for each in experiences if _is_bad(each)]
        if len(bad) * 2 > len(experiences) and len(experiences) > 1:
            self._distrusted[reporter] = now + HEARD_S
        elif experiences:
            self._distrusted.pop(reporter, None)
        for each in experiences:
            server = self._servers.setdefault(each.address, _Server())
            before = server.opinions.get(reporter)
            if before is None and len(server.opinions) >= REPORTERS_MAX:
                continue
            server.opinions[reporter] = _opinion(each, before, now)

    def update(self, addresses: Iterable[str], now: float) -> None:
        """Judge the servers at these addresses (all that are up); called every second or so."""
        present = set(addresses)
        self._servers = {
            address: server for address, server in self._servers.items() if address in present
        }
        self._distrusted = {who: until for who, until in self._distrusted.items() if until > now}
        for server in self._servers.values():
            server.opinions = {
                who: each for who, each in server.opinions.items() if _fresh(each, now)
            }
        allowed = max(len(present) // 3, 1) if len(present) > 1 else 0
        slow = sum(server.slow_until_s > now for server in self._servers.values())
        for _, server in sorted(self._servers.items(), key=lambda item: item[0]):
            was_slow = server.slow_until_s > now
            reason, reported_s = self._verdict(server, now)
            if reason and (was_slow or slow < allowed):
                self._condemn(server, was_slow, reason, reported_s)
                slow += not was_slow

    def reason(self, address: str, now: float) -> str:
        """Why the server is to be treated as slow; empty when it is not."""
        server = self._servers.get(address)
        return server.reason if server is not None and server.slow_until_s > now else ""

    def forget(self, address: str) -> None:
        """A process has started there: what its predecessor did says nothing of it."""
        self._servers.pop(address, None)

    def _verdict(self, server: _Server, now: float) -> tuple[str, float]:
        """What speaks against it, empty when not enough does; and since when nothing more did."""
        heard = {who: each for who, each in server.opinions.items() if who not in self._distrusted}
        bad = [each for each in heard.values() if each.bad_since_s is not None]
        if not bad or len(bad) * 2 < len(heard):
            return "", 0.0
        if sum(each.bad_calls for each in bad) < CALLS_LEAST:
            return "", 0.0
        lasting_s = max(now - each.bad_since_s for each in bad if each.bad_since_s is not None)
        if len(bad) < 2 and (lasting_s < LONE_S or bad[0].bad_reports < 2):
            return "", 0.0
        failed, slow = sum(each.failed for each in bad), sum(each.slow for each in bad)
        calls = sum(each.calls for each in bad)
        reason = (
            f"{len(bad)} of {len(heard)} that call it: of {calls} calls {failed} failed, "
            f"{slow} were slow"
        )
        return reason, max(each.at_s for each in bad)

    def _condemn(self, server: _Server, was_slow: bool, reason: str, reported_s: float) -> None:
        server.reason = reason
        if not was_slow:
            relapse = server.slow_until_s > 0 and reported_s - server.slow_until_s < RELAPSE_S
            server.hold_s = min(server.hold_s * 2, HOLD_MAX_S) if relapse else HOLD_S
        server.slow_until_s = max(server.slow_until_s, reported_s + server.hold_s)


def _opinion(experience: Experience, before: _Opinion | None, now: float) -> _Opinion:
    since_s, reports, bad_calls = None, 0, 0
    if _is_bad(experience):
        since_s, reports, bad_calls = now, 1, experience.failed + experience.slow
        if before is not None and before.bad_since_s is not None and _fresh(before, now):
            since_s = before.bad_since_s
            reports += before.bad_reports
            bad_calls += before.bad_calls
    return _Opinion(
        now, experience.failed, experience.slow, experience.calls, since_s, reports, bad_calls
    )


def _is_bad(experience: Experience) -> bool:
    bad = experience.failed + experience.slow
    return bad > 0 and bad >= BAD_SHARE * experience.calls


def _fresh(opinion: _Opinion, now: float) -> bool:
    return now - opinion.at_s < HEARD_S
