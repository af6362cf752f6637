"""Is the cluster well, and if not: why, and what can a person do?

Used by `dfs status` and `dfs top`.  The answer is made from one ClusterStatus; the worst comes
first.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from dfswire.status import ClusterStatus, ServerStatus

GONE = ("drained", "removed")  # nothing depends on such servers any more
FULL_FRACTION = 0.05  # of the room for user data that is left


@dataclass(frozen=True)
class Worry:
    """Something that needs attention, and what to do about it."""

    what: str
    do: str


def worries_of(reply: ClusterStatus) -> list[Worry]:
    """What needs attention, the worst first; empty when the cluster is healthy."""
    return list(_worries(reply))


def health_of(worries: list[Worry], silence: str = "") -> dict[str, Any]:
    """The same for JSON.  `silence`: why there is no newer answer than that of `worries`."""
    if silence:
        away = Worry(
            silence, "start metad, if it does not come back; the rest is what it said last"
        )
        worries = [away, *worries]
    return {
        "state": "unknown" if silence else "degraded" if worries else "ok",
        "worries": [{"what": each.what, "do": each.do} for each in worries],
    }


def _worries(reply: ClusterStatus) -> Iterator[Worry]:
    chunks = reply.chunks
    away = [each for each in reply.servers if each.state != "up" and each.admin not in GONE]
    awaited = [each for each in away if not each.heard and each.state != "down"]
    if reply.foreign:
        yield Worry(
            f"chunkds of another cluster name this metad: {', '.join(reply.foreign)}",
            "name their own metad; if it was here and its database is lost: stop this metad, and "
            "'dfs metad restore' makes it again from what those chunkds keep"
            if not reply.servers
            else "name their own metad in their settings",
        )
    elif not reply.servers:
        yield Worry("there are no servers", "start a chunkd that names this metad")
    if chunks.lost:
        yield Worry(
            f"lost chunks (no server that is up has a good replica): {chunks.lost}",
            "bring back the servers that are not up"
            if away
            else "'dfs events --kind chunk' names them, 'dfs info PATH' the servers of a file",
        )
    if chunks.under_replicated > chunks.lost:
        yield Worry(
            f"chunks with too few replicas: {chunks.under_replicated - chunks.lost}",
            _about_repair(reply, away),
        )
    if chunks.misplaced:
        yield Worry(
            f"chunks with copies in one failure domain, or not where their label is: "
            f"{chunks.misplaced}",
            "nothing: they are moved ('dfs jobs'), as soon as every chunk has its replicas",
        )
    if reply.reclaim_held:
        yield Worry(
            f"nothing is deleted: {reply.reclaim_held}", "look, then say 'dfs metad release'"
        )
    if away:
        yield Worry(
            f"not up: {', '.join(map(_silence, away))}",
            "wait some seconds: metad has just started"
            if len(awaited) == len(away)
            else "start its chunkd, or its host",
        )
    for server in reply.servers:
        for disk in server.disks:
            if disk.failed:
                yield Worry(
                    f"failed disk: {disk.path} on {server.address}",
                    "replace it; its chunks are copied from elsewhere meanwhile",
                )
    for reason in reply.unsatisfied:
        yield Worry(f"unsatisfied {reason}", "add servers for it, or change it: 'dfs policy'")
    for reason in reply.stuck:
        yield Worry(
            f"cannot be drained: {reason}", "add servers, or take it back: 'dfs node|disk enable'"
        )
    if reply.journal_copies < reply.journal_copies_wanted:
        yield Worry(
            f"copies of the metadata journal: {reply.journal_copies} of "
            f"{reply.journal_copies_wanted}",
            "start more chunkds"
            if len(away) > len(awaited)
            else "nothing: another chunkd takes over soon",
        )
    if not awaited and reply.free_bytes < reply.total_bytes * FULL_FRACTION:
        yield Worry("nearly full", "add a server or a disk, or delete files")


def _silence(server: ServerStatus) -> str:
    since = "heard" if server.heard else "not heard since metad started"
    why = server.reason or f"{since} {server.last_heartbeat_s:.0f} s ago"
    return f"{server.address} ({server.state}, {why})"


def _about_repair(reply: ClusterStatus, away: list[ServerStatus]) -> str:
    up = sum(each.state == "up" for each in reply.servers)
    if up < reply.replicas:
        return f"{reply.replicas} replicas need as many servers; {up} are up"
    if reply.repair.running:
        return "nothing: it is being repaired"
    return "nothing: it is repaired from the other servers soon"
