"""Chunks that have their copies, but not where their policy wants them.

Two copies on one server or in one rack are two copies, and one loss takes both.  `wanted_places`,
which is pure, says for a policy which domain each disk is in, and how many domains a chunk can be
in at all: what the servers cannot do is no fault of a chunk.  The others are synchronous functions
on the database that look at every chunk; they belong in a thread (bench/chunks.py, a million
chunks: 7 s on two cores with a load of 13).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from metad.copies.placement import Candidate, domain_of
from metad.copies.policies import Policy
from metad.storage.database import Database

# `attainable` and `servers` are how many domains and servers a chunk's copies can be on.
_MISPLACED = (
    "WITH place (disk, domain, server) AS MATERIALIZED (SELECT d.key, json_extract(value, '$[0]'), "
    "json_extract(value, '$[1]') FROM json_each(?1) JOIN disk d ON d.identity = json_each.key) "
    "SELECT {} FROM chunk c WHERE c.state = 'live' AND c.policy = ?2 AND c.good > 0 AND "
    "(SELECT count(DISTINCT p.domain) < min(c.good, ?3) OR count(DISTINCT p.server) < "
    "min(c.good, ?4) FROM replica r JOIN place p ON p.disk = r.disk "
    "WHERE r.chunk = c.id AND r.state = 'good')"
)


class Places(NamedTuple):
    """Disk -> (domain, server), of the disks whose copies are where a policy wants them; how many
    different ones of each a chunk can have."""

    of_disks: dict[str, tuple[str, str]]
    attainable: int
    servers: int


class Found(NamedTuple):
    """A chunk that is misplaced."""

    chunk: bytes
    length: int
    policy: int


def wanted_places(
    policy: Policy, known: Iterable[Candidate], usable: Iterable[Candidate]
) -> Places:
    """`known`: every disk that may have copies; `usable`: those that could take some now.

    While no server with the label is there, a chunk may be anywhere.
    """
    usable = list(usable)
    labelled = [each for each in usable if policy.label in each.labels] if policy.label else []
    allowed = labelled or usable
    return Places(
        {
            each.disk: (json.dumps(domain_of(each, policy.domain)), each.server_id)
            for each in known
            if not labelled or policy.label in each.labels
        },
        min(policy.replicas, len({domain_of(each, policy.domain) for each in allowed})),
        min(policy.replicas, len({each.server_id for each in allowed})),
    )


def counts(db: Database, places: Mapping[int, Places]) -> dict[int, int]:
    """By policy: how many chunks could be in more of its domains, or on more servers."""
    return {row[1]: db.read(_MISPLACED.format("count(*)"), row)[0][0] for row in _rows(places)}


def count(db: Database, places: Mapping[int, Places]) -> int:
    """The same in all."""
    return sum(counts(db, places).values())


def find(db: Database, places: Mapping[int, Places], limit: int) -> list[Found]:
    """Some of them."""
    found: list[Found] = []
    for row in _rows(places):
        query = _MISPLACED.format("c.id, c.length, c.policy") + " LIMIT ?5"
        found += [Found(*each) for each in db.read(query, (*row, limit - len(found)))]
    return found


def _rows(places: Mapping[int, Places]) -> Iterator[tuple[str, int, int, int]]:
    for policy, wanted in sorted(places.items()):
        if wanted.attainable > 0 and wanted.servers > 0:
            yield json.dumps(wanted.of_disks), policy, wanted.attainable, wanted.servers
