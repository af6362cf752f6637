"""`dfs node` and `dfs disk`: drain, enable and remove a server or one of its disks.

Draining copies everything elsewhere first and can be called off at any time.  Removing is for what
is drained or dead; when that would cost the last copy of something, it says of what, and does
nothing unless `--accept-loss` is given.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import msgspec
import typer

from dfsmount.cli.cluster import AsJson, Directory, Url, ask, find_metad
from dfsmount.cli.jobs import Wait, show, watch
from dfsmount.cli.output import counted, path_text, plain, say, show_json, size
from dfswire.admin import AdminReply, Losses, RemoveTarget, Target
from dfswire.hosts import Admin
from dfswire.messages import Empty
from dfswire.status import ClusterStatus

DEADLINE_S = 600.0  # what a removal costs is counted first

Named = Annotated[
    str, typer.Argument(metavar="ID", help="Id (or its beginning); of a server also its address.")
]
AcceptLoss = Annotated[
    bool, typer.Option("--accept-loss", help="Also when the last copies of something are there.")
]


def _verbs(kind: Literal["server", "disk"]) -> typer.Typer:
    """The same three verbs for both."""
    app = typer.Typer(
        help=f"Drain, enable or remove a {kind}.", no_args_is_help=True, rich_markup_mode=None
    )

    @app.command(help=f"Copy everything on a {kind} elsewhere; nothing new is placed there.")
    def drain(
        named: Named,
        url: Url = "",
        directory: Directory = None,
        wait: Wait = False,
        as_json: AsJson = False,
    ) -> None:
        target = Target(**{kind: named})
        _ask("admin.drain", target, url, directory, wait=wait, as_json=as_json)

    @app.command(
        help=f"Let a {kind} take part (again): calls off a drain, takes back what was removed."
    )
    def enable(
        named: Named, url: Url = "", directory: Directory = None, as_json: AsJson = False
    ) -> None:
        target = Target(**{kind: named})
        _ask("admin.enable", target, url, directory, wait=False, as_json=as_json)

    @app.command(
        help=f"Forget a {kind} that is drained or dead.  Ends with 1 when that would lose data."
    )
    def remove(
        named: Named,
        url: Url = "",
        directory: Directory = None,
        accept_loss: AcceptLoss = False,
        wait: Wait = False,
        as_json: AsJson = False,
    ) -> None:
        request = RemoveTarget(accept_loss=accept_loss, **{kind: named})
        _ask("admin.remove", request, url, directory, wait=wait, as_json=as_json)

    return app


def _ask(
    call: str,
    request: Target | RemoveTarget,
    url: str,
    directory: Path | None,
    *,
    wait: bool,
    as_json: bool,
) -> None:
    address = find_metad(url, directory)
    reply: AdminReply = ask(address, call, request, deadline_s=DEADLINE_S)
    if wait and reply.job is not None and reply.job.state == "running":
        job = watch(address, reply.job)
        reply = msgspec.structs.replace(reply, job=job, admin=_state_now(address, reply))
    refused = isinstance(request, RemoveTarget) and reply.admin != "removed"
    if as_json:
        answer = plain(reply)
        for told, file in zip(answer["losses"]["described"], reply.losses.described, strict=True):
            told["path"] = path_text(file.path)
        show_json(answer)
    else:
        _show(reply, refused=refused)
    if refused or (reply.job is not None and reply.job.state == "failed"):
        raise typer.Exit(1)


def _show(reply: AdminReply, *, refused: bool) -> None:
    what = f"disk {reply.disk}" if reply.disk else f"server {reply.server}"
    if reply.losses.chunks:
        show_losses(what, reply.losses, refused=refused)
    if refused:
        say(f"{what} is not removed; --accept-loss does it nevertheless")
        return
    typer.echo(f"{what}: {reply.admin}")
    if reply.job is not None:
        show(reply.job, as_json=False)


def _state_now(address: str, reply: AdminReply) -> Admin:
    """What metad has made of it meanwhile; a drain may also have been called off."""
    status: ClusterStatus = ask(address, "cluster.status", Empty(), deadline_s=DEADLINE_S)
    for server in status.servers:
        if not reply.disk and server.server_id == reply.server:
            return server.admin
        if any(each.disk == reply.disk for each in server.disks):
            return server.disk_admin.get(reply.disk, "enabled")
    return reply.admin  # of a disk that metad has not heard of since its start


def show_losses(what: str, losses: Losses, *, refused: bool) -> None:
    """Which files lose something, and how much of it."""
    would = "would be lost" if refused else "are lost"
    typer.echo(
        f"The last copies of {counted(losses.chunks, 'chunk')} ({size(losses.bytes)}) "
        f"of {counted(losses.files, 'file')} are on {what}; they {would}:"
    )
    for file in losses.described:
        name = path_text(file.path) if file.path else f"inode {file.inode} (without a name)"
        typer.echo(f"  {name}: {counted(file.chunks, 'chunk')}")
    if losses.files > len(losses.described):
        typer.echo(f"  ... and {losses.files - len(losses.described)} more files")


node_app = _verbs("server")
disk_app = _verbs("disk")
