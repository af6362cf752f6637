"""`dfs nodes`: everything about each server, or with `--disks` about each of their disks.

Ends with 1 when one of them is not up, or a disk failed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from dfsmount.cli.cluster import AsJson, Directory, Url, ask, find_metad
from dfsmount.cli.health import GONE
from dfsmount.cli.output import console, show_json, size
from dfsmount.cli.views import (
    ago,
    disk_state,
    numeric_table,
    operations,
    place,
    rate,
    state_of,
)
from dfswire.messages import Empty
from dfswire.observe import Traffic
from dfswire.status import ClusterStatus, ServerStatus


def nodes(
    url: Url = "",
    directory: Directory = None,
    disks: Annotated[bool, typer.Option("--disks", help="One line for each disk.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show the servers and their disks.  Ends with 1 when one is not up or a disk failed."""
    reply: ClusterStatus = ask(find_metad(url, directory), "cluster.status", Empty())
    if as_json:
        show_json({"servers": reply.servers})
    else:
        console().print(disk_table(reply.servers) if disks else node_table(reply.servers))
    present = [each for each in reply.servers if each.admin not in GONE]
    if any(each.state != "up" or any(disk.failed for disk in each.disks) for each in present):
        raise typer.Exit(1)


def node_table(servers: Sequence[ServerStatus]) -> Table:
    """One line for each server."""
    numbers = ("disks", "used", "free", "load", "read", "written", "ops", "starts")
    table = numeric_table(
        ("id", "address", "state", "place", "labels", "host", *numbers, "seen", "version"), numbers
    )
    for server in servers:
        failed = sum(disk.failed for disk in server.disks)
        table.add_row(
            server.server_id,
            server.address,
            state_of(server),
            place(server),
            escape(",".join(server.labels)) or "-",
            escape(server.host.hostname) or "-",
            f"{len(server.disks)}" + (f" ([red]{failed} failed[/])" if failed else ""),
            size(sum(disk.used_bytes for disk in server.disks)),
            size(server.free_bytes),
            f"{server.host.load_1m:.1f}/{server.host.cpu_count}",
            rate(server.traffic.read_bytes_per_s),
            rate(server.traffic.written_bytes_per_s),
            operations(server.traffic),
            str(server.incarnation),
            ago(server.last_heartbeat_s),
            escape(server.software),
        )
    return table


def disk_table(servers: Sequence[ServerStatus]) -> Table:
    """One line for each disk."""
    numbers = ("chunks", "used", "free", "size", "bad", "scrub", "read", "written", "ops")
    table = numeric_table(("disk", "server", "path", "state", *numbers), numbers)
    for server in servers:
        for disk in server.disks:
            traffic = server.disk_traffic.get(disk.disk, Traffic())
            table.add_row(
                disk.disk,
                server.address,
                escape(disk.path),
                disk_state(server, disk),
                str(disk.chunks),
                size(disk.used_bytes),
                size(disk.free_bytes),
                size(disk.total_bytes),
                str(disk.quarantined),
                f"{disk.scrub_fraction:.0%}" if disk.scrub_fraction else "-",
                rate(traffic.read_bytes_per_s),
                rate(traffic.written_bytes_per_s),
                operations(traffic),
            )
    return table
