"""`dfs status`: the servers, how full they are, and how safe the data is.

Ends with 1 when something needs attention: a server that is not up, a failed disk, chunks with too
few replicas or with none.
"""

from __future__ import annotations

import typer
from rich.table import Table

from dfsmount.cli.cluster import AsJson, Directory, Url, ask, find_metad
from dfsmount.cli.output import console, plain_table, show_json, size
from dfswire.cluster import ClusterStatus, ServerStatus
from dfswire.messages import Empty

STYLES = {"up": "green", "suspect": "yellow", "down": "red"}


def status(url: Url = "", directory: Directory = None, as_json: AsJson = False) -> None:
    """Show servers, capacity and redundancy.  Ends with 1 when something needs attention."""
    reply: ClusterStatus = ask(find_metad(url, directory), "cluster.status", Empty())
    worries = worries_of(reply)
    if as_json:
        show_json(reply)
    else:
        show(reply, worries)
    if worries:
        raise typer.Exit(1)


def worries_of(reply: ClusterStatus) -> list[str]:
    """What needs attention, the worst first; empty when the cluster is healthy."""
    chunks = reply.chunks
    away = [server.address for server in reply.servers if server.state != "up"]
    failed = [
        f"{disk.path} on {server.address}"
        for server in reply.servers
        for disk in server.disks
        if disk.failed
    ]
    found = [
        (chunks.lost, f"lost chunks (no server that is up has a good replica): {chunks.lost}"),
        (chunks.under_replicated, f"chunks with too few replicas: {chunks.under_replicated}"),
        (away, f"not up: {', '.join(away)}"),
        (failed, f"failed disks: {', '.join(failed)}"),
        (not reply.servers, "there are no servers"),
    ]
    return [sentence for bad, sentence in found if bad]


def show(reply: ClusterStatus, worries: list[str]) -> None:
    """The status for people."""
    screen = console()
    screen.print(server_table(reply.servers))
    screen.print()
    chunks = reply.chunks
    spread = ", ".join(
        f"{count} with {copies}" for copies, count in enumerate(chunks.by_replicas) if count
    )
    lines = [
        ("cluster", f"{reply.cluster_id}, version {reply.software}, {reply.replicas} replicas"),
        ("capacity", f"{size(reply.used_bytes)} used, {size(reply.free_bytes)} free"),
        ("files", f"inodes: {reply.inodes}, mounts: {len(reply.sessions)}"),
        ("chunks", f"{chunks.total} ({size(chunks.bytes)})" + (f": {spread}" if spread else "")),
        ("health", "; ".join(worries) or "good"),
    ]
    for name, text in lines:
        colour = "red" if name == "health" and worries else "default"
        screen.print(f"{name:9}[{colour}]{text}[/{colour}]")


def server_table(servers: list[ServerStatus]) -> Table:
    """One line for each server."""
    table = plain_table()
    for heading in ("server", "address", "state", "place", "host", "chunks", "used", "free"):
        numeric = heading in ("chunks", "used", "free")
        table.add_column(heading, justify="right" if numeric else "left")
    for server in servers:
        heard = "" if server.state == "up" else f", heard {server.last_heartbeat_s:.0f} s ago"
        table.add_row(
            server.server_id[:8],
            server.address,
            f"[{STYLES[server.state]}]{server.state}[/]{heard}",
            "/".join(part for part in (server.zone, server.rack) if part) or "-",
            server.host.hostname or "-",
            str(server.chunks),
            size(sum(disk.used_bytes for disk in server.disks)),
            size(server.free_bytes),
        )
    return table
