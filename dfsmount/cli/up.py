"""`dfs up` and `dfs down`: a whole cluster on this machine, in one directory."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
import typer

from dfsmount.cli.cluster import AsJson, ask, find_metad
from dfsmount.cli.lifecycle import DEFAULT_NODES, bring_up, mount_up, plan, take_down
from dfsmount.cli.localcluster import DEFAULT_DIRECTORY, LocalCluster
from dfsmount.cli.output import show_json, working
from dfswire.hosts import Hello
from dfswire.messages import Empty

Place = Annotated[Path, typer.Option("--dir", help="Where the cluster keeps everything.")]


def up(
    directory: Place = DEFAULT_DIRECTORY,
    nodes: Annotated[
        int | None,
        typer.Option(min=1, max=64, help=f"How many chunkds; {DEFAULT_NODES} for a new cluster."),
    ] = None,
    replicas: Annotated[
        int | None, typer.Option(min=1, max=8, help="How many copies of each chunk.")
    ] = None,
    tls: Annotated[
        bool, typer.Option("--tls", help="With certificates on all sides; kept from then on.")
    ] = False,
    mount: Annotated[
        str,  # not a Path, see mount.py
        typer.Option(metavar="PATH", help="Mount it there as well; the directory is made."),
    ] = "",
    options: Annotated[
        str, typer.Option("-o", help="Options of that mount, comma separated.")
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Start a cluster on this machine, or what is missing of it."""

    def report(subject: str, what: str) -> None:
        if not as_json:
            typer.echo(f"{subject:10} {what}")

    cluster = plan(directory, nodes, replicas, tls=tls)
    with cluster.lock(), working("starting"):
        cluster = bring_up(cluster, report)
        _remember(cluster)
        point = mount_up(cluster, Path(mount), options, report) if mount else None
    url = f"http://{cluster.metad_address}"
    if as_json:
        show_json({"url": url, "directory": str(cluster.directory), "mount": str(point or "")})
        return
    typer.echo(f"The cluster is up at {url}; 'dfs status --dir {directory}' shows it,")
    options = f" -o tls={cluster.tls_of('client')}" if cluster.settings.tls else ""
    typer.echo(f"'dfs mount {url} DIR{options}' mounts it, 'dfs down --dir {directory}' stops it.")


def _remember(cluster: LocalCluster) -> None:
    """Which cluster it is: without its database, metad must not make a new one the next time."""
    if not cluster.settings.cluster_id:
        address = find_metad("", cluster.directory)
        hello: Hello = ask(address, "metad.hello", Empty())
        settings = msgspec.structs.replace(cluster.settings, cluster_id=hello.cluster_id)
        LocalCluster(cluster.directory, settings).write_files()


def down(
    directory: Place = DEFAULT_DIRECTORY,
    force: Annotated[
        bool, typer.Option("--force", help="Unmount even what is in use; its data may be lost.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Unmount what 'dfs up' mounted, and stop the cluster.  Its data stays."""
    cluster = LocalCluster.open(directory)
    reported: dict[str, str] = {}

    def report(subject: str, what: str) -> None:
        reported[subject] = what
        if not as_json:
            typer.echo(f"{subject:10} {what}")

    with cluster.lock(), working("stopping"):
        take_down(cluster, report, force=force)
    if as_json:
        show_json({"stopped": reported})
    elif not reported:
        typer.echo("nothing was running")
