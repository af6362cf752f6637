"""`dfs fsck`: does the metadata agree with itself?  Ends with 1 when it does not.

Nothing is repaired, and nothing has to be stopped for it.
"""

from __future__ import annotations

from typing import Annotated

import typer

from dfsmount.cli.cluster import AsJson, Directory, Url, ask, find_metad
from dfsmount.cli.output import show_json
from dfswire.cluster import FsckReport, FsckRequest

CHECK_DEADLINE_S = 3600.0  # some hundred million rows


def fsck(
    url: Url = "",
    directory: Directory = None,
    limit: Annotated[
        int, typer.Option(min=1, max=100_000, help="Describe so many findings at most.")
    ] = 1000,
    as_json: AsJson = False,
) -> None:
    """Check the metadata; ends with 1 when something is wrong."""
    report: FsckReport = ask(
        find_metad(url, directory),
        "cluster.fsck",
        FsckRequest(limit=limit),
        deadline_s=CHECK_DEADLINE_S,
    )
    if as_json:
        show_json(report)
    else:
        show(report)
    if report.count:
        raise typer.Exit(1)


def show(report: FsckReport) -> None:
    """The report for people."""
    for finding in report.findings:
        typer.echo(f"{finding.check}: {finding.subject}: {finding.message}")
    hidden = report.count - len(report.findings)
    if hidden > 0:
        typer.echo(f"... and {hidden} more (--limit shows them)")
    typer.echo(
        f"checked {report.inodes} inodes, {report.dentries} names, {report.extents} extents, "
        f"{report.chunks} chunks, {report.replicas} replicas, {report.orphans} orphans: "
        + (f"findings: {report.count}" if report.count else "no findings")
    )
