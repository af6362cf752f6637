"""`dfs metad`: is the metadata safe, a copy of it, and making it again when its disk is lost.

What needs metad's own code (replaying, checking) is done by `python -m metad.tool`.
"""

from __future__ import annotations

import datetime
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from dfsmount.cli.cluster import (
    AsJson,
    Directory,
    Url,
    address_of,
    ask,
    find_metad,
    talk,
    tls_directory,
)
from dfsmount.cli.events import moment_ns
from dfsmount.cli.fsck import CHECK_DEADLINE_S
from dfsmount.cli.output import say, show_json, working
from dfswire.client import Client
from dfswire.credentials import ENVIRONMENT
from dfswire.errors import ProtocolError, UsageError
from dfswire.fsck import FsckReport, FsckRequest
from dfswire.journal import (
    ENTRIES_BYTES,
    JournalStatus,
    Snapshot,
    SnapshotRequest,
    content_digest,
)
from dfswire.messages import Empty
from dfswire.status import ClusterStatus

TAKE_DEADLINE_S = 600.0
FINDINGS_MAX = 100
LAST = 20  # entries, where nothing else is said
PREFIX = "sqlite://"

metad_app = typer.Typer(
    help="The journal, backups and the restoring of metadata.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@metad_app.command()
def journal(
    url: Url = "",
    directory: Directory = None,
    last: Annotated[int, typer.Option("--last", min=0, help="Show the last N entries.")] = 0,
    entries: Annotated[
        str, typer.Option("--entries", metavar="A-B", help="Show entries A to B, or from A-.")
    ] = "",
    since: Annotated[
        str,
        typer.Option(
            "--since", metavar="TIME", help="Entries from then on: 10m, 2h or an ISO time."
        ),
    ] = "",
    until: Annotated[
        str, typer.Option("--until", metavar="TIME", help="Entries up to then, likewise.")
    ] = "",
    statements: Annotated[
        bool, typer.Option("--statements", help="With the SQL of each entry.")
    ] = False,
    sources: Annotated[
        list[str] | None,
        typer.Option(
            "--from", metavar="HOST:PORT", help="Read entries from these chunkds, without metad."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """How far the journal is and who keeps it; or entries of it, as chunkds keep them.

    Ends with 1 when there are too few copies.
    """
    if last or entries or since or until or statements or sources:
        options = [f"--last={last or (0 if entries or since or until else LAST)}"]
        options += [f"--since={_moment(since)}"] if since else []
        options += [f"--until={_moment(until)}"] if until else []
        options += _numbers(entries) if entries else []
        options += ["--statements"] if statements else []
        addresses = [address_of(each) for each in sources or []]
        list_entries(addresses or _chunkds(find_metad(url, directory)), options, as_json)
        return
    reply: JournalStatus = ask(find_metad(url, directory), "journal.status", Empty())
    if as_json:
        show_json(reply)
    else:
        typer.echo(f"entry {reply.position.number} of epoch {reply.position.epoch}")
        typer.echo(f"copies: {reply.copies} of {reply.wanted}, all up to entry {reply.safe}")
        for each in reply.followers:
            typer.echo(f"  {each.server_id}  {each.state}, entry {each.number}")
        if reply.reclaim_held:
            typer.echo(f"nothing is deleted: {reply.reclaim_held}; see 'dfs metad release'")
    if reply.copies < reply.wanted:
        raise typer.Exit(1)


def _numbers(text: str) -> list[str]:
    """Of A-B, A- or A, from 1 on.  Raises UsageError."""
    first, dash, end = text.partition("-")
    if not first.isdecimal() or (end and not end.isdecimal()):
        raise UsageError(f"not a range of entries: {text!r}; write 100-200 or 100-")
    if int(first) < 1 or (end and int(end) < int(first)):
        raise UsageError(f"not a range of entries: {text!r}; write 100-200 or 100-")
    return [f"--first={first}", f"--end={end or 0 if dash else first}"]


def _moment(text: str) -> str:
    """As metad.tool understands it.  Raises UsageError."""
    at_s = moment_ns(text, time.time()) / 1e9
    return datetime.datetime.fromtimestamp(at_s, datetime.UTC).isoformat()


def _chunkds(metad: str) -> list[str]:
    """Those that can be asked."""
    status: ClusterStatus = ask(metad, "cluster.status", Empty())
    found = [each.address for each in status.servers if each.state != "down"]
    if not found:
        raise UsageError("no chunkd is up that could have entries")
    return found


def list_entries(addresses: Sequence[str], options: Sequence[str], as_json: bool) -> None:
    """Print entries, and what was in the way of more."""
    _status, found = _tool("journal", *addresses, *options)
    if as_json:
        show_json(found)
        return
    for warning in found["warnings"]:
        say(f"warning: {warning}")
    for each in found["entries"]:
        at = datetime.datetime.fromtimestamp(each["time_ns"] / 1e9).isoformat(" ", "milliseconds")
        changes = ", ".join(f"{kind} {rows}" for kind, rows in each["changes"].items())
        typer.echo(
            f"{each['number']}  {at}  epoch {each['epoch']} term {each['term']}  "
            f"{each['size_bytes']} bytes  {changes}"
        )
        for text, rows in each["statements"]:
            typer.echo(f"    {rows} x {text}")


@metad_app.command()
def release(url: Url = "", directory: Directory = None, as_json: AsJson = False) -> None:
    """After a restore: what the restored metadata does not know may be deleted."""
    reply: JournalStatus = ask(find_metad(url, directory), "journal.release", Empty())
    if as_json:
        show_json(reply)
    else:
        typer.echo("deleting goes on")


@metad_app.command()
def backup(file: Path, url: Url = "", directory: Directory = None, as_json: AsJson = False) -> None:
    """Write a copy of the metadata, as it is now, to a new FILE: a database for a metad."""
    if file.exists():
        raise UsageError(f"{file} exists: name another file")
    address = find_metad(url, directory)
    status: JournalStatus = ask(address, "journal.status", Empty())
    part = file.with_name(file.name + ".part")
    try:
        number = status.position.number
        snapshot = talk(address, lambda client: _fetch(client, address, number, part))
        part.rename(file)
    finally:
        part.unlink(missing_ok=True)
    if as_json:
        show_json(snapshot)
    else:
        typer.echo(f"{file}: entry {snapshot.position.number}, {snapshot.size_bytes} bytes")


async def _fetch(client: Client, address: str, number: int, part: Path) -> Snapshot:
    digest, received = content_digest(), 0
    request = SnapshotRequest(number=number)
    snapshot: Snapshot
    snapshot, _none = await client.call(
        "journal.snapshot", address, request, deadline_s=TAKE_DEADLINE_S
    )
    with part.open("wb") as made:
        while received < snapshot.size_bytes:
            request = SnapshotRequest(
                digest=snapshot.digest, offset=received, length=4 * ENTRIES_BYTES
            )
            _same, data = await client.call("journal.snapshot", address, request)
            made.write(data)
            digest.update(data)
            received += len(data)
    if digest.digest() != snapshot.digest:
        raise ProtocolError("the copy was damaged on its way")
    return snapshot


@metad_app.command()
def check(
    file: Annotated[str, typer.Argument(metavar="[FILE]")] = "",
    url: Url = "",
    directory: Directory = None,
    as_json: AsJson = False,
) -> None:
    """Look through the metadata of a running metad, which goes on meanwhile; or through a FILE (or
    sqlite:// URL): a backup, or the database of a metad on this host.  1: it is bad."""
    if file:
        status, found = _tool("check", _file(file))
    else:
        status, found = _check_running(find_metad(url, directory))
    if as_json:
        show_json(found)
    else:
        _show_check(found)
    raise typer.Exit(status)


def _file(url: str) -> str:
    """Of sqlite:///absolute/path, also with the slash too many that people write; or a path."""
    path = url.removeprefix(PREFIX)
    return "/" + path.lstrip("/") if path.startswith("/") else path


def _show_check(found: dict[str, Any]) -> None:
    for finding in found["findings"]:
        typer.echo(finding)
    if hidden := found["count"] - len(found["findings"]):
        typer.echo(f"... and {hidden} more")
    where = f"entry {found['entry']} of epoch {found['epoch']}"
    if found["entry"] is None:
        where = "its entry cannot be read"
    typer.echo(f"{where}: " + (f"findings: {found['count']}" if found["count"] else "no findings"))


def _check_running(metad: str) -> tuple[int, dict[str, Any]]:
    """metad looks at one moment of its database, no earlier than the entry that is named."""
    before: JournalStatus = ask(metad, "journal.status", Empty())
    with working("checking"):
        report: FsckReport = ask(
            metad, "cluster.fsck", FsckRequest(limit=FINDINGS_MAX), deadline_s=CHECK_DEADLINE_S
        )
    findings = [f"{each.check}: {each.subject}: {each.message}" for each in report.findings]
    position = before.position
    return (1 if report.count else 0), {
        "entry": position.number,
        "epoch": position.epoch,
        "findings": findings,
        "count": report.count,
    }


@metad_app.command()
def restore(
    sources: Annotated[
        list[str], typer.Option("--from", metavar="HOST:PORT", help="A chunkd; all there are.")
    ],
    to: Annotated[str, typer.Option("--to", metavar="URL", help="metad's `url`: what is made.")],
    at: Annotated[
        str,
        typer.Option("--at", metavar="TIME", help="As it was then: 10m, 2h or 2026-03-31T12:00."),
    ] = "",
    epoch: Annotated[
        int,
        typer.Option(
            "--epoch", min=0, help="What there was up to this epoch, before a later restore."
        ),
    ] = 0,
    accept_loss: Annotated[
        bool, typer.Option("--accept-loss", help="Though something is known to be missing.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Make metad's database again from the journals that chunkds keep."""
    options = ["--at", _moment(at)] if at else []
    options += ["--epoch", str(epoch)] if epoch else []
    options += ["--accept-loss"] if accept_loss else []
    addresses = [address_of(each) for each in sources]
    _status, done = _tool("restore", *addresses, "--to", _file(to), *options)
    if as_json:
        show_json(done)
        return
    for warning in done["warnings"]:
        say(f"warning: {warning}")
    typer.echo(
        f"restored up to entry {done['entry']} ({done['replayed']} replayed), epoch {done['epoch']}"
    )
    typer.echo("Start metad; nothing is deleted until 'dfs metad release'.")


def _tool(*arguments: str) -> tuple[int, dict[str, Any]]:
    """Run metad's part.  Raises UsageError with what it complains about."""
    done = subprocess.run(
        [sys.executable, "-m", "metad.tool", *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, ENVIRONMENT: tls_directory()},
    )
    if done.returncode > 1 or not done.stdout:
        lines = done.stderr.strip().splitlines() or ["it ended without a word"]
        raise UsageError(lines[-1])
    return done.returncode, msgspec.json.decode(done.stdout, type=dict)
