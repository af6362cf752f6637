"""`dfs status`: is the cluster well, how full is it, and how safe is the data?

Ends with 1 when something needs attention: a server that is not up, a failed disk, chunks with too
few replicas or with none.
"""

from __future__ import annotations

import typer

from dfsmount.cli.cluster import AsJson, Directory, Url, ask, find_metad
from dfsmount.cli.health import health_of, worries_of
from dfsmount.cli.output import console, plain, show_json
from dfsmount.cli.views import health_lines, server_table, summary_lines
from dfswire.messages import Empty
from dfswire.status import ClusterStatus


def status(url: Url = "", directory: Directory = None, as_json: AsJson = False) -> None:
    """Show health, capacity and redundancy.  Ends with 1 when something needs attention."""
    reply: ClusterStatus = ask(find_metad(url, directory), "cluster.status", Empty())
    worries = worries_of(reply)
    if as_json:
        show_json({"health": health_of(worries)} | plain(reply))
    else:
        screen = console()
        for line in health_lines(worries):
            screen.print(line, soft_wrap=True)
        for line in summary_lines(reply):
            screen.print(line, soft_wrap=True)
        screen.print()
        screen.print(server_table(reply.servers))
    if worries:
        raise typer.Exit(1)
