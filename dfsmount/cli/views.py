"""What several verbs show of a cluster: servers, disks, copies of chunks, its health."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.markup import escape
from rich.table import Table

from dfsmount.cli.health import Worry
from dfsmount.cli.output import counted, plain_table, size
from dfswire.health import RepairStatus
from dfswire.hosts import DiskFigures
from dfswire.observe import Traffic
from dfswire.status import ChunkTotals, ClusterStatus, ServerStatus

STYLES = {"up": "green", "suspect": "yellow", "down": "red"}
BAR_CHARACTERS = 30
NAMES = ("server", "disk", "address")  # cut off they would all be the same

Lines = Iterator[str]
"""With rich's markup."""


def health_lines(worries: Sequence[Worry], silence: str = "") -> Lines:
    """OK, or what is wrong and what to do.  `silence`: why there is no newer answer."""
    if silence:
        yield f"health   [bold red]UNKNOWN: {escape(silence)}[/]; this is what it said last"
    elif not worries:
        yield "health   [green]OK[/]"
    for number, worry in enumerate(worries):
        begin = "         " if number or silence else "health   [red]DEGRADED[/]: "
        yield f"{begin}[red]{escape(worry.what)}[/]; {escape(worry.do)}"


def summary_lines(reply: ClusterStatus) -> Lines:
    """Capacity, files, and how safe the data is."""
    chunks = reply.chunks
    replicas = counted(reply.replicas, "replica")
    yield f"cluster  {reply.cluster_id}, version {reply.software}, {replicas}"
    unknown = any(not each.heard and each.state != "down" for each in reply.servers)
    free = "what is free is not known yet" if unknown else f"{size(reply.free_bytes)} free"
    yield f"capacity {size(reply.used_bytes)} used, {free}"
    connected = sum(each.connected for each in reply.sessions)
    away = len(reply.sessions) - connected
    yield f"files    inodes: {reply.inodes}, mounts: {connected}" + (
        f", and {away} that do not answer" if away else ""
    )
    dead = f", waiting to be deleted: {chunks.pending_delete}" if chunks.pending_delete else ""
    yield f"chunks   {chunks.total} ({size(chunks.bytes)}){dead}"
    yield from histogram(chunks, reply.replicas)
    if reply.journal_copies_wanted:
        yield f"journal  {reply.journal_copies} of {reply.journal_copies_wanted} copies in step"
    yield from repair_lines(reply.repair)
    for job in reply.jobs:
        share = f" {100 * job.done / job.total:.0f} %" if job.total else ""
        yield f"job      {escape(job.name)}:{share} {escape(job.message)}"


def histogram(chunks: ChunkTotals, wanted: int) -> Lines:
    """How many chunks have how many good replicas."""
    for copies, count in enumerate(chunks.by_replicas):
        if not count:
            continue
        filled = max(1, round(BAR_CHARACTERS * count / chunks.total))
        colour = "red" if copies == 0 else "yellow" if copies < wanted else "green"
        bar = "#" * filled
        plural = "replica " if copies == 1 else "replicas"
        yield f"         {copies} {plural} [{colour}]{bar:{BAR_CHARACTERS}}[/] {count}"


def repair_lines(repair: RepairStatus) -> Lines:
    """What is being copied, and how long that takes; nothing when nothing is."""
    if repair.chunks or repair.running:
        left = f", done in {span(repair.eta_s)}" if repair.eta_s is not None else ""
        yield (
            f"repair   {counted(repair.chunks, 'chunk')}, {size(repair.bytes_left)} to copy, "
            f"{counted(repair.running, 'copy', 'copies')} under way, "
            f"{rate(repair.bytes_per_s)}{left}"
        )
    if repair.excess:
        copies = "1 copy is one" if repair.excess == 1 else f"{repair.excess} copies are"
        yield f"surplus  {copies} too many and will be deleted"


def rate(bytes_per_s: float) -> str:
    """Bytes a second for people; "-" for none."""
    return f"{size(round(bytes_per_s))}/s" if bytes_per_s >= 1 else "-"


def operations(traffic: Traffic) -> str:
    """Reads and writes a second together."""
    count = traffic.reads_per_s + traffic.writes_per_s
    return f"{count:.0f}/s" if count >= 0.5 else "-"


def state_of(server: ServerStatus) -> str:
    """Its state, with what an operator wants of it, and for how long it has been silent."""
    text = f"[{STYLES.get(server.state, 'default')}]{server.state}[/]"
    if server.admin != "enabled":
        text += f", {server.admin}"
    if server.state == "up":
        return text
    since = "heard" if server.heard else "not heard since metad started"
    return f"{text}, {escape(server.reason) or f'{since} {ago(server.last_heartbeat_s)}'}"


def span(seconds: float) -> str:
    """A time span for people."""
    for unit, length in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


def ago(seconds: float) -> str:
    """How long something is past."""
    return f"{span(seconds)} ago"


def place(server: ServerStatus) -> str:
    """Zone and rack."""
    return escape("/".join(part for part in (server.zone, server.rack) if part) or "-")


def numeric_table(columns: Sequence[str], numeric: Sequence[str]) -> Table:
    """A plain table whose columns of numbers are aligned to the right."""
    table = plain_table()
    for heading in columns:
        right = heading in numeric
        table.add_column(
            heading, justify="right" if right else "left", no_wrap=right or heading in NAMES
        )
    return table


def server_table(servers: Sequence[ServerStatus]) -> Table:
    """One line for each server, with what it does."""
    numbers = ("chunks", "used", "free", "read", "written", "ops", "load")
    table = numeric_table(("server", "address", "state", "place", "host", *numbers), numbers)
    for server in servers:
        table.add_row(
            server.server_id[:8],
            server.address,
            state_of(server),
            place(server),
            escape(server.host.hostname) or "-",
            str(server.chunks),
            size(sum(disk.used_bytes for disk in server.disks)),
            size(server.free_bytes),
            rate(server.traffic.read_bytes_per_s),
            rate(server.traffic.written_bytes_per_s),
            operations(server.traffic),
            f"{server.host.load_1m:.1f}",
        )
    return table


def disk_state(server: ServerStatus, disk: DiskFigures) -> str:
    """failed, what an operator wants, or the state of its server."""
    if disk.failed:
        return "[red]failed[/]"
    admin = server.disk_admin.get(disk.disk, "enabled")
    return f"[{STYLES.get(server.state, 'default')}]{server.state}[/]" + (
        f", {admin}" if admin != "enabled" else ""
    )
