"""`dfs jobs` and `dfs job`: the long work that metad does in the background.

Whatever starts a job can wait for it with a progress bar (`watch`); interrupting that leaves the
job running.  `dfs job status` and a waiting command end with 1 when the job failed.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated

import trio
import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from dfsmount.cli.cluster import AsJson, Directory, Url, ask, find_metad, talk
from dfsmount.cli.output import console, plain_table, say, show_json, size
from dfswire.client import Client
from dfswire.errors import Unavailable, UsageError
from dfswire.jobs import JobRequest, JobsReply, JobsRequest, JobStatus, StartJob

POLL_S = 0.5
DEADLINE_S = 10.0
NO_ARGUMENT = "{}"
STYLES = {"running": "cyan", "stopped": "yellow", "done": "green", "failed": "red"}

Wait = Annotated[bool, typer.Option("--wait", help="Show the progress until it has ended.")]
Number = Annotated[int, typer.Argument(metavar="JOB", min=1)]

job_app = typer.Typer(
    help="Start, look at and stop one job.", no_args_is_help=True, rich_markup_mode=None
)


def jobs(url: Url = "", directory: Directory = None, as_json: AsJson = False) -> None:
    """Show the jobs that run, and those that ended in the last days."""
    reply: JobsReply = ask(find_metad(url, directory), "job.list", JobsRequest())
    if as_json:
        show_json(reply)
        return
    table = plain_table("job", "kind", "state", "progress", "left", "started", "message")
    for each in reply.jobs:
        table.add_row(
            str(each.job),
            each.kind,
            f"[{STYLES[each.state]}]{each.state}[/]",
            progress_text(each),
            left_text(each),
            datetime.fromtimestamp(each.started_ns // 10**9).isoformat(" "),
            each.message.replace("[", "\\["),
        )
    console().print(table)


@job_app.command()
def start(
    what: Annotated[str, typer.Argument(help="A kind of job, or the number of a stopped one.")],
    argument: Annotated[
        str, typer.Option(metavar="JSON", help="What the kind wants to know.")
    ] = NO_ARGUMENT,
    name: Annotated[
        str, typer.Option(help="The same name again is the same job, and starts nothing twice.")
    ] = "",
    url: Url = "",
    directory: Directory = None,
    wait: Wait = False,
    as_json: AsJson = False,
) -> None:
    """Start a job, or let a stopped or failed one go on."""
    address = find_metad(url, directory)
    begun: JobStatus
    if what.isdecimal():
        if name or argument != NO_ARGUMENT:
            raise UsageError(f"job {what} has its argument and its name already")
        begun = ask(address, "job.resume", JobRequest(job=int(what)))
    else:
        begun = ask(address, "job.start", StartJob(kind=what, argument=argument, name=name))
    follow(address, begun, wait=wait, as_json=as_json)


@job_app.command()
def status(
    job: Number,
    url: Url = "",
    directory: Directory = None,
    wait: Wait = False,
    as_json: AsJson = False,
) -> None:
    """Show one job; ends with 1 when it failed."""
    address = find_metad(url, directory)
    reply: JobsReply = ask(address, "job.list", JobsRequest(job=job))
    follow(address, reply.jobs[0], wait=wait, as_json=as_json)


@job_app.command()
def stop(job: Number, url: Url = "", directory: Directory = None, as_json: AsJson = False) -> None:
    """Stop a job; `dfs job start NUMBER` lets it go on where it was."""
    stopped: JobStatus = ask(find_metad(url, directory), "job.stop", JobRequest(job=job))
    show(stopped, as_json=as_json)


def follow(address: str, job: JobStatus, *, wait: bool, as_json: bool) -> None:
    """Show a job, at once or when it has ended.  Ends with 1 when it failed."""
    if wait and job.state == "running":
        job = watch(address, job)
    show(job, as_json=as_json)
    if job.state == "failed":
        raise typer.Exit(1)


def watch(address: str, job: JobStatus) -> JobStatus:
    """A progress bar on standard error until the job runs no more; how it ended.

    A metad that is away for a while is waited for.
    """

    async def poll(client: Client) -> JobStatus:
        now = job
        with bar() as progress:
            task = progress.add_task(job.name, total=None)
            while now.state == "running":
                progress.update(
                    task,
                    completed=now.done,
                    total=now.total or None,
                    description=f"{now.name} {progress_text(now)} {now.message}".strip(),
                )
                await trio.sleep(POLL_S)
                try:
                    reply: JobsReply = await client.call(
                        "job.list", address, JobsRequest(job=job.job), deadline_s=DEADLINE_S
                    )
                except Unavailable as problem:
                    progress.update(task, description=f"{now.name} (metad is away: {problem})")
                    continue
                now = reply.jobs[0]
        return now

    return talk(address, poll)


def bar() -> Progress:
    """For people only: nothing is drawn where there is no terminal."""
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True, highlight=False),
        transient=True,
    )


def show(job: JobStatus, *, as_json: bool) -> None:
    """One job for people, or as JSON."""
    if as_json:
        show_json(job)
        return
    typer.echo(f"job {job.job} ({job.name}) {job.state}: {progress_text(job)}")
    if job.message:
        typer.echo(job.message)
    if job.state == "running" and (left := left_text(job)) != "-":
        typer.echo(f"{left} left")
    if job.errors:
        say(f"{job.errors} steps failed and were tried again")


def progress_text(job: JobStatus) -> str:
    """Such as "12 of 40 chunks"."""
    done, total = (
        (size(job.done), size(job.total)) if job.unit == "bytes" else (job.done, job.total)
    )
    unit = "" if job.unit == "bytes" else f" {job.unit}"
    return f"{done} of {total}{unit}" if job.total else f"{done}{unit}"


def left_text(job: JobStatus) -> str:
    """How long it will take at the present rate; "-" when nobody can tell."""
    if job.remaining_s is None:
        return "-"
    return str(timedelta(seconds=round(job.remaining_s)))
