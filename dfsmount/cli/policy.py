"""`dfs policy set|show|clear PATH`: how many copies what is below a directory has, and where.

On a mount a path is found by its inode number; with `--url` or `--dir` it counts from the root of
the file system, or is such a number.  A change holds for what is written from now on; what is
there follows in the background, as the job of kind "policy".
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from dfsmount.cli.cluster import (
    AsJson,
    Directory,
    Url,
    ask,
    find_metad,
    place_in_cluster,
    place_on_mount,
)
from dfsmount.cli.output import counted, path_text, plain, say, show_json, size
from dfswire.errors import UsageError
from dfswire.policies import DOMAINS, PolicyReply, PolicyRequest, PolicyTerms, SetPolicy, where_of

policy_app = typer.Typer(
    help="Set, show and clear the policy of a directory.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Where = Annotated[Path, typer.Argument(metavar="PATH")]


@policy_app.command("set")
def set_policy(
    path: Where,
    replicas: Annotated[int, typer.Option(min=1, max=8, help="Copies of each chunk.")],
    domain: Annotated[
        str,
        typer.Option(
            help="host, rack, zone: copies are on different ones; apart: as different as there are."
        ),
    ] = "apart",
    label: Annotated[str, typer.Option(help="Servers must have this label.")] = "",
    chunk_size: Annotated[
        int,
        typer.Option(min=0, help="Bytes of new chunks, a multiple of 65536; 0: as everywhere."),
    ] = 0,
    force: Annotated[
        bool, typer.Option("--force", help="Also when the cluster cannot do that now.")
    ] = False,
    url: Url = "",
    directory: Directory = None,
    as_json: AsJson = False,
) -> None:
    """Give a directory, and everything below it, a policy.  Ends with 1 when it is refused."""
    if domain not in DOMAINS:
        raise UsageError(f"no domain {domain!r}; there are {', '.join(DOMAINS)}")
    try:
        terms = PolicyTerms(
            replicas=replicas, domain=domain, label=label, chunk_size_bytes=chunk_size
        )
    except ValueError as problem:
        raise UsageError(str(problem)) from problem
    address, place = find(path, url, directory)
    reply: PolicyReply = ask(address, "policy.set", SetPolicy(**place, terms=terms, force=force))
    if reply.applied or as_json:
        show(reply, as_json=as_json)
    if not reply.applied:
        if not as_json:
            show_unsatisfied(reply)
        say("the policy was not changed; --force does it nevertheless")
        raise typer.Exit(1)


@policy_app.command("show")
def show_policy(
    path: Where, url: Url = "", directory: Directory = None, as_json: AsJson = False
) -> None:
    """Show what applies to a file or directory, and which directory says so."""
    address, place = find(path, url, directory)
    show(ask(address, "policy.show", PolicyRequest(**place)), as_json=as_json)


@policy_app.command("clear")
def clear_policy(
    path: Where, url: Url = "", directory: Directory = None, as_json: AsJson = False
) -> None:
    """Let a directory follow the one above it again."""
    address, place = find(path, url, directory)
    show(ask(address, "policy.clear", PolicyRequest(**place)), as_json=as_json)


def find(path: Path, url: str, directory: Path | None) -> tuple[str, dict[str, Any]]:
    """The metad to ask, and what to call the path there.  Raises UsageError, OSError."""
    if url or directory is not None:
        return find_metad(url, directory), place_in_cluster(path)
    return place_on_mount(path)


def show(reply: PolicyReply, *, as_json: bool) -> None:
    """What applies, for people or as JSON."""
    if as_json:
        show_json(plain(reply) | {"source_path": path_text(reply.source_path)})
        return
    terms = reply.terms
    label = f" with label {terms.label}" if terms.label else ""
    source = path_text(reply.source_path) if reply.source else "the cluster's default"
    chunks = f", in chunks of {size(terms.chunk_size_bytes)}" if terms.chunk_size_bytes else ""
    apart = f", {where_of(terms.domain)}" if terms.replicas > 1 else ""
    copies = counted(terms.replicas, "copy", "copies")
    typer.echo(f"{copies}{apart}{label}{chunks} (from {source})")
    show_unsatisfied(reply)
    if reply.converging:
        typer.echo("what is there follows in the background ('dfs jobs' shows it)")


def show_unsatisfied(reply: PolicyReply) -> None:
    """What the cluster cannot do now."""
    for reason in reply.unsatisfied:
        typer.echo(f"unsatisfied: {reason}")
