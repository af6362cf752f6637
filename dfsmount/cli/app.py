"""The `dfs` command: its verbs, and how it ends.

Every verb is a function in a module beside this one; this one gathers them and turns their errors
into exit statuses.  0: done, or the answer is good.  1: the answer is bad (findings, lost chunks, a
server down).  2: wrong usage, or the cluster is not reached.  An error is one line on standard
error that says what to do; nobody is shown a traceback for it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from contextvars import copy_context
from typing import Annotated

import typer

from dfsmount.cli.admin import disk_app, node_app
from dfsmount.cli.ca import ca_app
from dfsmount.cli.events import events
from dfsmount.cli.fsck import fsck
from dfsmount.cli.helper import install_mount_helper
from dfsmount.cli.info import info
from dfsmount.cli.jobs import job_app, jobs
from dfsmount.cli.metadata import metad_app
from dfsmount.cli.mount import mount, umount
from dfsmount.cli.nodes import nodes
from dfsmount.cli.output import say
from dfsmount.cli.policy import policy_app
from dfsmount.cli.rebalance import rebalance
from dfsmount.cli.repair import repair
from dfsmount.cli.status import status
from dfsmount.cli.top import top
from dfsmount.cli.up import down, up
from dfswire.daemon import software_version
from dfswire.errors import DFSError

USAGE_STATUS = 2
BROKEN_PIPE_STATUS = 141  # 128 + SIGPIPE

app = typer.Typer(
    name="dfs",
    help="Run, look at and mount a dfs cluster.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)
VERBS: tuple[Callable[..., None], ...] = (
    *(up, down, mount, umount, install_mount_helper),
    *(status, nodes, top, events, jobs, info, fsck, repair, rebalance),
)
for verb in VERBS:
    app.command()(verb)
GROUPS = {
    "job": job_app,
    "node": node_app,
    "disk": disk_app,
    "policy": policy_app,
    "metad": metad_app,
    "ca": ca_app,
}
for name, group in GROUPS.items():
    app.add_typer(group, name=name)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"dfs {software_version()}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Print the version and stop."
        ),
    ] = False,
) -> None:
    """Run, look at and mount a dfs cluster."""


def _notes(problem: DFSError) -> list[str]:
    """What was added on the way, such as the id of the request."""
    return getattr(problem, "__notes__", [])


def main(arguments: Sequence[str] | None = None) -> int:
    """Carry out one command line; the exit status."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    if not given or (len(given) == 1 and given[0] in GROUPS):
        given = [*given, "--help"]  # typer's own way is an error of many lines
    try:
        # In a context of its own: what one command finds out about its cluster is not for the next.
        answer = copy_context().run(app, args=given, standalone_mode=False, prog_name="dfs")
        sys.stdout.flush()
        # typer answers with the status of a typer.Exit, and with 130 after Ctrl-C.
        return answer if isinstance(answer, int) else 0
    except typer.TyperException as problem:
        say(f"{problem.format_message()} ('dfs --help' shows the usage)")
    except DFSError as problem:
        say(" ".join([str(problem), *(f"({each})" for each in _notes(problem))]))
    except BrokenPipeError:
        # `dfs status | head`: whoever read has enough.  Nothing may be written at exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE_STATUS
    except OSError as problem:
        say(f"{problem.strerror}: {problem.filename}" if problem.filename else str(problem))
    return USAGE_STATUS
