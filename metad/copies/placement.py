"""Which disks take the replicas of a chunk.

Pure; chance comes in as `rng`.  Used for grants to clients and for the destinations of repair.  It
promises: never two replicas on one server, never a disk without room, and failure domains (zone,
then rack, then host) as different as the cluster allows.  Among equals, chance weighted by free
space and divided by load decides, so a new empty disk is not run over.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from dfswire.errors import Full, NoSpace

RESERVE_BYTES = 64 << 20  # for the daemon's own files and for chunks granted but not yet reported
_SAME_HOST, _OTHER_HOST, _OTHER_RACK, _OTHER_ZONE = range(4)


@dataclass(frozen=True)
class Candidate:
    """A healthy disk of a server that is up, with its place in the failure domains."""

    disk: str
    server_id: str
    address: str
    zone: str = ""
    rack: str = ""
    host: str = ""
    total_bytes: int = 0
    free_bytes: int = 0
    labels: frozenset[str] = frozenset()
    load: float = 0.0  # runnable tasks per CPU
    slow: bool = False  # chosen only when it can't be done without


def spare_bytes(total_bytes: int, free_bytes: int) -> int:
    """What may still be written: free space less 1 %, and less 64 MiB (10 % of a tiny disk)."""
    reserve = max(total_bytes // 100, min(RESERVE_BYTES, total_bytes // 10))
    return max(free_bytes - reserve, 0)


def choose(
    candidates: Iterable[Candidate],
    count: int,
    chunk_bytes: int,
    rng: random.Random,
    *,
    taken: Sequence[Candidate] = (),
    preferred_host: str = "",
    label: str = "",
) -> list[Candidate]:
    """Up to `count` disks for replicas of one chunk, in the order in which they were chosen.

    `taken` are disks that have a replica already: their servers are not chosen, their domains are
    avoided.  Servers with `label` come before others, slow ones after all others.  The first one is
    on `preferred_host` if possible.  May return fewer, even none.
    """
    chosen: list[Candidate] = []
    open_ = [each for each in candidates if _has_room(each, chunk_bytes)]
    while len(chosen) < count:
        used = [*taken, *chosen]
        servers = {each.server_id for each in used}
        open_ = [each for each in open_ if each.server_id not in servers]
        if not open_:
            break
        quick = [each for each in open_ if not each.slow] or open_
        labelled = [each for each in quick if label in each.labels] if label else quick
        best = _most_different(labelled or quick, used)
        if not used and preferred_host:
            best = [each for each in best if each.host == preferred_host] or best
        chosen.append(_by_chance(best, rng))
    return chosen


def choose_for_grant(
    candidates: Collection[Candidate],
    replicas: int,
    chunk_bytes: int,
    rng: random.Random,
    *,
    avoid: Collection[str] = (),
    preferred_host: str = "",
    label: str = "",
) -> list[Candidate]:
    """Disks for a new chunk: at least min(replicas, 2), on distinct servers.

    Raises Full when there are enough servers, but too few with room; NoSpace when they are too few.

    Addresses in `avoid` (the client can't reach them) and slow servers are used only when it can't
    be done without: rather one copy less for a moment, which repair makes, than a slow write.
    """
    least = min(replicas, 2)
    quick = [each for each in candidates if not each.slow]
    reachable = [each for each in quick if each.address not in avoid]
    for allowed in (reachable, quick, candidates):
        chosen = choose(
            allowed, replicas, chunk_bytes, rng, preferred_host=preferred_host, label=label
        )
        if len(chosen) >= least:
            return chosen
    kind = Full if len({each.server_id for each in candidates}) >= least else NoSpace
    raise kind(
        f"{least} servers that are up and have room are needed for a chunk; there are {len(chosen)}"
    )


def capacity_bytes(bytes_by_server: Mapping[str, int], replicas: int) -> int:
    """How much data fits with `replicas` copies on distinct servers.

    Not simply the sum divided by the copies: what the largest server has beyond all others together
    is of no use.  With fewer servers than replicas each server has a copy (but two at least).
    """
    sizes = sorted(bytes_by_server.values(), reverse=True)
    copies = min(replicas, len(sizes))
    if copies < min(replicas, 2):
        return 0
    while copies > 1 and sizes[0] * copies > sum(sizes):
        sizes, copies = sizes[1:], copies - 1
    return sum(sizes) // copies if copies else 0


def _has_room(candidate: Candidate, chunk_bytes: int) -> bool:
    return spare_bytes(candidate.total_bytes, candidate.free_bytes) >= chunk_bytes


def domain_of(place: Candidate, domain: str) -> tuple[str, ...]:
    """Which zone, rack or host a disk is in; a server without a name for that is one of its own."""
    host = place.host or place.server_id
    if domain == "zone":
        return (place.zone,) if place.zone else ("", place.rack or host)
    if domain == "rack":
        return (place.zone, place.rack) if place.rack else (place.zone, "", host)
    return (place.zone, place.rack, host)


def _distance(one: Candidate, other: Candidate) -> int:
    if one.zone != other.zone:
        return _OTHER_ZONE
    if one.rack != other.rack:
        return _OTHER_RACK
    return _OTHER_HOST if one.host != other.host else _SAME_HOST


def _most_different(open_: Sequence[Candidate], used: Sequence[Candidate]) -> list[Candidate]:
    """Those whose nearest used disk is farthest away."""
    if not used:
        return list(open_)
    distances = [min(_distance(each, other) for other in used) for each in open_]
    largest = max(distances)
    return [each for each, distance in zip(open_, distances, strict=True) if distance == largest]


def _by_chance(candidates: Sequence[Candidate], rng: random.Random) -> Candidate:
    weights = [each.free_bytes / (1.0 + max(each.load, 0.0)) for each in candidates]
    return rng.choices(candidates, weights=weights)[0]
