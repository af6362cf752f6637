"""Which copies of a chunk are too many.

Pure.  trim.py asks before it gives copies up, and again in the transaction that does so; repair,
drain, rebalancing and a change of policy all leave copies behind that only this may condemn.  It
promises: what stays are `wanted` copies that count, on as many servers, and in as many failure
domains (of the policy's kind first) as that many of today's copies can be.  A copy that does not
count at this moment (its server is away, or back for too short a time) is neither relied on nor
condemned.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations

from dfswire.policies import Domain
from metad.copies.placement import Candidate, domain_of


@dataclass(frozen=True)
class Held:
    """A good copy, and where it is.

    `counts`: its server is up for long enough, its disk is well.  `unwanted`: it shall go as soon
    as the others suffice (its disk is drained, or too full).
    """

    place: Candidate
    counts: bool = True
    unwanted: bool = False


@dataclass(frozen=True)
class Surplus:
    """`keep`: the disks whose copies are relied on; `trim`: those whose copies may go."""

    keep: list[str]
    trim: list[str]


def surplus(copies: Iterable[Held], wanted: int, domain: Domain = "host") -> Surplus:
    """What may go; nothing as long as `wanted` others do not suffice without it."""
    copies = list(copies)
    lasting = [each.place for each in copies if each.counts and not each.unwanted]
    keep = best_spread(lasting, wanted, domain)
    if not keep:
        return Surplus([], [])
    kept = {each.disk for each in keep}
    trim = [each for each in copies if each.counts and each.place.disk not in kept]
    trim.sort(key=lambda each: (not each.unwanted, _free_share(each.place), each.place.disk))
    return Surplus(sorted(kept), [each.place.disk for each in trim])


def best_spread(
    places: Sequence[Candidate], wanted: int, domain: Domain = "host"
) -> list[Candidate]:
    """`wanted` of these on as many servers, in as many failure domains as can be.

    Among equal ones those on the emptier disks.  Empty when there are too few servers.
    """
    if wanted < 1 or len({each.server_id for each in places}) < wanted:
        return []
    ordered = sorted(places, key=lambda each: each.disk)
    return max(map(list, combinations(ordered, wanted)), key=lambda each: _merit(each, domain))


def spread(places: Sequence[Candidate]) -> tuple[int, int, int, int]:
    """On how many servers these are, and in how many zones, racks and hosts: more is better."""
    return (
        len({each.server_id for each in places}),
        len({each.zone for each in places}),
        len({(each.zone, each.rack) for each in places}),
        len({(each.zone, each.rack, each.host) for each in places}),
    )


def _merit(chosen: Sequence[Candidate], domain: Domain) -> tuple[object, ...]:
    servers, *others = spread(chosen)
    domains = len({domain_of(each, domain) for each in chosen})
    return servers, domains, *others, min(_free_share(each) for each in chosen)


def _free_share(place: Candidate) -> float:
    return place.free_bytes / place.total_bytes if place.total_bytes else 0.0
