"""`dfs rebalance`: copies move from the fullest disks to the emptiest ones.

metad does it by itself, slowly, when disks differ too much; `--now` does it at once, `--dry-run`
shows what would be done.
"""

from __future__ import annotations

from typing import Annotated

import typer

from dfsmount.cli.cluster import AsJson, Directory, Url, ask, find_metad
from dfsmount.cli.jobs import Wait, follow
from dfsmount.cli.output import console, counted, plain_table, show_json, size
from dfswire.errors import UsageError
from dfswire.jobs import JobStatus, StartJob
from dfswire.moving import RebalancePlan, RebalanceRequest

DEADLINE_S = 600.0


def rebalance(
    url: Url = "",
    directory: Directory = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan only.")] = False,
    now: Annotated[
        bool, typer.Option("--now", help="Begin, without waiting for a reason.")
    ] = False,
    wait: Wait = False,
    as_json: AsJson = False,
) -> None:
    """Make disks equally full: give --dry-run or --now."""
    if dry_run == now:
        raise UsageError("give either --dry-run or --now")
    if dry_run and wait:
        raise UsageError("--wait is for --now; --dry-run begins nothing")
    address = find_metad(url, directory)
    if now:
        begun: JobStatus = ask(address, "job.start", StartJob(kind="rebalance"))
        follow(address, begun, wait=wait, as_json=as_json)
        return
    plan: RebalancePlan = ask(
        address, "cluster.rebalance_plan", RebalanceRequest(), deadline_s=DEADLINE_S
    )
    if as_json:
        show_json(plan)
    else:
        show(plan)


def show(plan: RebalancePlan) -> None:
    """The plan for people."""
    table = plain_table("disk", "used", "then")
    for disk in plan.disks:
        table.add_row(disk.disk, f"{disk.before:.1%}", f"{disk.after:.1%}")
    console().print(table)
    for move in plan.described:
        typer.echo(
            f"{move.chunk.hex()} ({size(move.bytes)}): {move.source[:8]} -> {move.destination[:8]}"
        )
    if plan.moves > len(plan.described):
        typer.echo(f"... and {plan.moves - len(plan.described)} more")
    more = "" if plan.complete else ", and then more"
    typer.echo(
        f"{counted(plan.moves, 'move')} of {size(plan.bytes)} together{more}; nothing was done"
    )
