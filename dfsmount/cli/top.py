"""`dfs top`: the cluster as it is at the moment, again and again, until Ctrl-C.

A metad that is away does not end it: the last picture stays, and health is "unknown".  With
`--once` it prints one picture, for scripts; with `--json` one object a line.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated

import trio
import typer
from rich.console import Group
from rich.live import Live
from rich.markup import escape
from rich.text import Text

from dfsmount.cli.cluster import AsJson, Directory, Url, find_metad, talk
from dfsmount.cli.health import health_of, worries_of
from dfsmount.cli.jobs import progress_text
from dfsmount.cli.output import console, plain, show_json_line
from dfsmount.cli.views import (
    health_lines,
    operations,
    rate,
    server_table,
    span,
    summary_lines,
)
from dfswire.client import Client
from dfswire.errors import Unavailable
from dfswire.jobs import JobsRequest, JobStatus
from dfswire.messages import Empty
from dfswire.observe import Traffic
from dfswire.status import ClusterStatus

Show = Callable[[ClusterStatus, Sequence[JobStatus], str], None]
"""Told the last answers, and why there is no newer one."""


def top(
    url: Url = "",
    directory: Directory = None,
    once: Annotated[bool, typer.Option("--once", help="One picture, then end.")] = False,
    interval_s: Annotated[
        float, typer.Option("--interval", min=0.2, max=60, help="Seconds between pictures.")
    ] = 1.0,
    as_json: AsJson = False,
) -> None:
    """Watch the cluster live: servers, traffic, redundancy, mounts."""
    address = find_metad(url, directory)
    screen = console()
    if as_json:
        pictures = 1 if once else None
        with contextlib.suppress(KeyboardInterrupt):
            talk(address, lambda client: watch(client, address, show_line, interval_s, pictures))
        return
    if once:

        def show_once(reply: ClusterStatus, jobs: Sequence[JobStatus], problem: str) -> None:
            screen.print(picture_of(reply, jobs, problem))

        talk(address, lambda client: watch(client, address, show_once, interval_s, pictures=1))
        return
    with (
        contextlib.suppress(KeyboardInterrupt),  # that is how one leaves
        Live(console=screen, screen=screen.is_terminal, auto_refresh=False) as live,
    ):

        def show(reply: ClusterStatus, jobs: Sequence[JobStatus], problem: str) -> None:
            live.update(picture_of(reply, jobs, problem), refresh=True)

        talk(address, lambda client: watch(client, address, show, interval_s))


async def watch(
    client: Client, address: str, show: Show, interval_s: float, pictures: int | None = None
) -> None:
    """Show one picture after the other; the first needs an answer.  Raises Unavailable then."""
    reply: ClusterStatus | None = None
    jobs: list[JobStatus] = []
    answered_s = trio.current_time()
    while pictures is None or pictures > 0:
        began_s, problem = trio.current_time(), ""
        try:
            reply = await client.call("cluster.status", address, Empty())
            jobs = (await client.call("job.list", address, JobsRequest())).jobs
            answered_s = trio.current_time()
        except Unavailable as away:
            if reply is None:
                raise
            problem = f"metad has not answered for {trio.current_time() - answered_s:.0f} s: {away}"
        assert reply is not None
        show(reply, jobs, problem)
        pictures = None if pictures is None else pictures - 1
        if pictures != 0:
            await trio.sleep_until(began_s + interval_s)


def picture_of(reply: ClusterStatus, jobs: Sequence[JobStatus], problem: str = "") -> Group:
    """Everything on one screen."""
    lines = [*health_lines(worries_of(reply), problem), *summary_lines(reply), traffic_line(reply)]
    lines += [*job_lines(jobs), ""]
    return Group(*map(Text.from_markup, lines), server_table(reply.servers))


def show_line(reply: ClusterStatus, jobs: Sequence[JobStatus], problem: str) -> None:
    """The same as one line of JSON."""
    health = health_of(worries_of(reply), problem)
    answer = {"health": health, "problem": problem} | plain(reply) | {"jobs": plain(list(jobs))}
    show_json_line(answer)


def job_lines(jobs: Sequence[JobStatus]) -> Iterator[str]:
    """Those that run."""
    for job in jobs:
        if job.state == "running":
            left = f", done in {span(job.remaining_s)}" if job.remaining_s is not None else ""
            yield escape(f"job      {job.name}: {progress_text(job)}{left} {job.message}".rstrip())


def traffic_line(reply: ClusterStatus) -> str:
    """What all disks do together."""
    parts = [server.traffic for server in reply.servers]
    everything = Traffic(
        read_bytes_per_s=sum(each.read_bytes_per_s for each in parts),
        written_bytes_per_s=sum(each.written_bytes_per_s for each in parts),
        reads_per_s=sum(each.reads_per_s for each in parts),
        writes_per_s=sum(each.writes_per_s for each in parts),
    )
    return (
        f"traffic  {rate(everything.read_bytes_per_s)} read, "
        f"{rate(everything.written_bytes_per_s)} written, {operations(everything)} operations"
    )
