"""`dfs events`: what happened to the cluster, as metad remembers it.

One line an event, with `--json` one object a line; `--follow` goes on with what happens from now
on, and survives a metad that is away for a while.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from datetime import datetime
from typing import Annotated

import trio
import typer
from rich.markup import escape

from dfsmount.cli.cluster import AsJson, Directory, Url, find_metad, talk
from dfsmount.cli.output import console, say, show_json_line
from dfswire.client import Client
from dfswire.errors import Unavailable, UsageError
from dfswire.observe import (
    EVENTS_MAX,
    EVENTS_WAIT_MAX_S,
    ClusterEvent,
    EventsReply,
    EventsRequest,
)

DEFAULT_LIMIT = 100
RETRY_S = 1.0
DEADLINE_S = EVENTS_WAIT_MAX_S + 10.0
STYLES = {"info": "default", "warning": "yellow", "error": "red", "critical": "bold red"}
SEVERITY_WIDTH = len("critical")
KIND_WIDTH = len("journal.copies_regained")
UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400}

Show = Callable[[ClusterEvent], None]


def events(
    url: Url = "",
    directory: Directory = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on with what happens from now on.")
    ] = False,
    since: Annotated[
        str, typer.Option(metavar="TIME", help="Not older than that: 10m, 2h, 7d or an ISO time.")
    ] = "",
    kind: Annotated[
        list[str] | None,
        typer.Option(help="Only of this kind, such as 'server' or 'disk.failed'; repeatable."),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(min=1, max=EVENTS_MAX, help=f"The newest so many; {DEFAULT_LIMIT}."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show what happened to the cluster: servers, disks, chunks, repair, mounts."""
    since_ns = moment_ns(since, time.time()) if since else 0
    if limit is None and not since:
        limit = DEFAULT_LIMIT
    first = EventsRequest(
        since_ns=since_ns, kinds=kind or [], limit=limit or EVENTS_MAX, newest=limit is not None
    )
    address = find_metad(url, directory)
    show = show_json_line if as_json else show_line
    talk(address, lambda client: tell(client, address, first, show, follow=follow))


def moment_ns(text: str, now_s: float) -> int:
    """The time that `text` means: so long ago, or an ISO time.  Raises UsageError."""
    if ago := re.fullmatch(r"(\d{1,9})([smhd])", text):
        return int((now_s - int(ago[1]) * UNITS_S[ago[2]]) * 1e9)
    try:
        return int(datetime.fromisoformat(text).timestamp() * 1e9)
    except ValueError as problem:
        raise UsageError(f"not a time: {text!r}; give 10m, 2h, 7d or an ISO time") from problem


async def tell(
    client: Client, address: str, request: EventsRequest, show: Show, *, follow: bool
) -> None:
    """Show the events that `request` finds, all pages of them, and those that come later."""
    reached = silent = False
    while True:
        try:
            reply: EventsReply = await client.call(
                "cluster.events", address, request, deadline_s=DEADLINE_S
            )
        except Unavailable as problem:
            if not (follow and reached):
                raise
            if not silent:
                say(f"metad does not answer, trying again: {problem}")
            silent = True
            await trio.sleep(RETRY_S)
            continue
        if request.after and reply.first > request.after + 1:
            say(f"events {request.after + 1} to {reply.first - 1} are not kept any more")
        for event in reply.events:
            show(event)
        reached, silent = True, False
        more = reply.next_after < reply.last
        if not more and not follow:
            return
        request = EventsRequest(
            after=reply.next_after,
            since_ns=request.since_ns,
            kinds=request.kinds,
            wait_s=0.0 if more else EVENTS_WAIT_MAX_S,
        )


def show_line(event: ClusterEvent) -> None:
    """One event for people."""
    when = datetime.fromtimestamp(event.time_ns / 1e9).astimezone()
    times = f" (x{event.times})" if event.times > 1 else ""
    text = escape(f"{event.subject}: {event.message}{times}")
    style = STYLES[event.severity]
    console().print(
        f"{when.isoformat(sep=' ', timespec='seconds')}  "
        f"[{style}]{event.severity:{SEVERITY_WIDTH}}  {event.kind:{KIND_WIDTH}}[/]  {text}",
        soft_wrap=True,
    )
