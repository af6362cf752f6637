"""`dfs fsck`: does the metadata agree with itself, and can every file be read?

Ends with 1 when something is wrong.  Without `--repair` nothing is changed, and nothing has to be
stopped for it.  A repair is shown first, and done after a yes: what can be counted or found anew is
set right, what has no place any more gets one in /lost+found, and nothing is guessed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import typer

from dfsmount.cli.cluster import AsJson, Directory, Url, ask, find_metad
from dfsmount.cli.jobs import watch
from dfsmount.cli.lost import as_plain, show_lost
from dfsmount.cli.output import plain, show_json, working
from dfswire.errors import Unavailable, UsageError
from dfswire.fsck import FsckReport, FsckRequest
from dfswire.jobs import JobsReply, JobsRequest, JobStatus, StartJob
from dfswire.verify import FindLost, LostReply

DEEP_JOB = "verify"
CHECK_DEADLINE_S = 3600.0  # some hundred million rows


def fsck(
    url: Url = "",
    directory: Directory = None,
    limit: Annotated[
        int, typer.Option(min=1, max=100_000, help="Describe so many findings at most.")
    ] = 1000,
    repair: Annotated[
        bool, typer.Option("--repair", help="Show what can be repaired, and do it after a yes.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="With --repair: do not ask.")] = False,
    lost: Annotated[
        bool, typer.Option("--lost", help="Only list the files of which bytes cannot be read.")
    ] = False,
    deep: Annotated[
        bool, typer.Option("--deep", help="Verify every copy of every chunk as well, as a job.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Check the metadata, and repair it; ends with 1 when something is wrong."""
    if lost and (repair or deep):
        raise UsageError("--lost only looks; give it without --repair and --deep")
    if yes and not repair:
        raise UsageError("--yes is for --repair: give both")
    metad = find_metad(url, directory)
    verified = _verify_all(metad, limit, quiet=as_json) if deep else None
    if lost:
        _list_lost(metad, limit, as_json)
        return
    # To repair without asking is one step; nothing is shown before, as nobody is there.
    wanted: Literal["no", "plan", "do"] = "no"
    if repair:
        wanted = "do" if yes else "plan"
    report = _ask(metad, limit, wanted)
    if as_json:
        show_json(plain(report) | ({"deep": verified.as_plain()} if verified else {}))
    else:
        show(report)
        if report.fixes and not report.repaired and typer.confirm("Repair this?"):
            report = _ask(metad, limit, "do")
            show(report)
    if report.count or (verified and verified.lost.count):
        raise typer.Exit(1)


@dataclass(frozen=True)
class Verified:
    """What came of --deep: the job, with its figures, and the files with lost bytes."""

    job: JobStatus
    lost: LostReply

    def as_plain(self) -> dict[str, Any]:
        """In terms of JSON."""
        return {"job": plain(self.job), "lost": as_plain(self.lost)}


def _verify_all(metad: str, limit: int, *, quiet: bool) -> Verified:
    """Have every copy read; what is bad is repaired meanwhile, what is lost is listed.

    Ctrl-C does not stop the job; the same command again goes on watching it.
    """
    job: JobStatus = ask(metad, "job.start", StartJob(kind=DEEP_JOB, name=_deep_name(metad)))
    if job.state == "running":
        job = watch(metad, job)
    found = Verified(job, _find_lost(metad, limit))
    if not quiet:
        typer.echo(f"job {job.job} ({job.name}) {job.state}: {job.message}")
        show_lost(found.lost)
    if job.state != "done":
        raise Unavailable(f"the copies were not all verified: job {job.job} {job.state}")
    return found


def _deep_name(metad: str) -> str:
    """That of the job that runs or was stopped, or a new one."""
    reply: JobsReply = ask(metad, "job.list", JobsRequest())
    known = [each for each in reply.jobs if each.kind == DEEP_JOB]
    return next((each.name for each in known if each.state != "done"), "")


def _ask(metad: str, limit: int, repair: Literal["no", "plan", "do"]) -> FsckReport:
    request = FsckRequest(limit=limit, repair=repair)
    with working("checking"):
        report: FsckReport = ask(metad, "cluster.fsck", request, deadline_s=CHECK_DEADLINE_S)
    return report


def _find_lost(metad: str, limit: int) -> LostReply:
    request = FindLost(limit=limit)
    with working("looking"):
        reply: LostReply = ask(metad, "cluster.lost", request, deadline_s=CHECK_DEADLINE_S)
    return reply


def _list_lost(metad: str, limit: int, as_json: bool) -> None:
    reply = _find_lost(metad, limit)
    if as_json:
        show_json(as_plain(reply))
    else:
        show_lost(reply)
    if reply.count:
        raise typer.Exit(1)


def show(report: FsckReport) -> None:
    """The report for people."""
    for finding in report.findings:
        typer.echo(f"{finding.check}: {finding.subject}: {finding.message}")
    hidden = report.count - len(report.findings)
    if hidden > 0:
        typer.echo(f"... and {hidden} more (--limit shows them)")
    verb = "repaired" if report.repaired else "repair would do"
    for fix in report.fixes:
        typer.echo(f"{verb}: {fix.check}: {fix.subject}: {fix.message}")
    if report.fixes_count > len(report.fixes):
        typer.echo(f"... and {report.fixes_count - len(report.fixes)} more")
    typer.echo(
        f"checked {report.inodes} inodes, {report.dentries} names, {report.extents} extents, "
        f"{report.chunks} chunks, {report.replicas} replicas, {report.orphans} orphans: "
        + (f"findings: {report.count}" if report.count else "no findings")
    )
