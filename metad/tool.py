"""What is done with metadata without a metad: `python -m metad.tool`, for `dfs metad`.

`restore` makes the database again from chunkds, `journal` lists entries that they keep, `check`
looks at a file.  Each prints one JSON object; what
cannot be done is one line on standard error and status 2.
"""

from __future__ import annotations

import datetime
import sqlite3
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Annotated

import msgspec
import trio
import typer

from dfswire.client import Client
from dfswire.credentials import credentials_of_environment
from dfswire.errors import DFSError, UsageError
from dfswire.journal import Position
from metad.checks import fsck
from metad.journal.replay import position_of
from metad.recovery.listing import Listing, Range, list_entries
from metad.recovery.restore import Restored, Wish, restore
from metad.storage.causes import refusal
from metad.storage.connections import is_taken, read_only_uri
from metad.storage.database import Database
from metad.storage.sumsfile import damaged_at_rest, described

FINDINGS_MAX = 100

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command("restore")
def restore_command(
    sources: Annotated[list[str], typer.Argument(metavar="HOST:PORT...")],
    to: Annotated[Path, typer.Option("--to")],
    at: Annotated[str, typer.Option("--at")] = "",
    epoch: Annotated[int, typer.Option("--epoch")] = 0,
    accept_loss: Annotated[bool, typer.Option("--accept-loss")] = False,
) -> None:
    """Make the database `to` from the journals of chunkds."""
    at_ns = moment_ns(at)
    if at_ns is not None and at_ns > time.time_ns():
        raise UsageError(f"{at} has not been yet; without --at everything is restored")

    async def run() -> Restored:
        client = Client(credentials=credentials_of_environment())
        try:
            wish = Wish(at_ns=at_ns, epoch=epoch or None, accept_loss=accept_loss)
            return await restore(client, sources, to, wish)
        finally:
            await client.aclose()

    done = trio.run(run)
    typer.echo(
        msgspec.json.encode(
            {
                "snapshot": done.snapshot.number,
                "entry": done.position.number,
                "time_ns": done.position.time_ns,
                "replayed": done.replayed,
                "epoch": done.epoch,
                "asked": done.asked,
                "warnings": done.warnings,
            }
        ).decode()
    )


@app.command("journal")
def journal_command(
    sources: Annotated[list[str], typer.Argument(metavar="HOST:PORT...")],
    last: Annotated[int, typer.Option("--last")] = 0,
    first: Annotated[int, typer.Option("--first")] = 0,
    end: Annotated[int, typer.Option("--end")] = 0,
    since: Annotated[str, typer.Option("--since")] = "",
    until: Annotated[str, typer.Option("--until")] = "",
    statements: Annotated[bool, typer.Option("--statements")] = False,
) -> None:
    """List entries of the journal."""
    wanted = Range(
        last=last,
        first=first,
        end=end,
        since_ns=moment_ns(since) or 0,
        until_ns=moment_ns(until) or 0,
    )

    async def run() -> Listing:
        client = Client(credentials=credentials_of_environment())
        try:
            return await list_entries(client, sources, wanted, statements=statements)
        finally:
            await client.aclose()

    typer.echo(msgspec.json.encode(trio.run(run)).decode())


@app.command("check")
def check_command(file: Path) -> None:
    """Is the database in `file` whole, and does it keep its invariants?  1 when not.

    Its pages are compared with their checksums unless a metad uses it, which does so itself.
    """
    if not file.is_file():
        raise UsageError(f"there is no file {file}")
    position: Position | None = None
    findings: list[str] = []
    count = 0
    try:
        if not is_taken(str(file)) and (rotten := damaged_at_rest(str(file))[0]):
            findings.append(described(rotten, str(file)))
    except OSError as problem:
        raise UsageError(f"cannot read {file}: {problem}") from problem
    try:
        with closing(sqlite3.connect(read_only_uri(str(file)), uri=True)) as connection:
            position = position_of(connection)
            verdict = connection.execute("PRAGMA integrity_check(1)").fetchall()
            if verdict != [("ok",)]:
                findings.append(f"SQLite: {verdict[0][0]}")
        if not findings:
            database = Database(str(file), inline=True, lock=None, read_only=True)
            report = fsck.run(database, FINDINGS_MAX)
            database.close()
            findings += [
                f"{each.check}: {each.subject}: {each.message}" for each in report.findings
            ]
            count = report.count
    except (sqlite3.DatabaseError, UnicodeDecodeError) as problem:
        refused = refusal(problem, str(file))
        if not isinstance(refused, UsageError):  # it is not the file's fault
            raise refused from problem
        findings.append(f"SQLite: {problem}")
    count = max(count, len(findings))
    where = (None, None) if position is None else (position.number, position.epoch)
    answer = {"entry": where[0], "epoch": where[1], "findings": findings, "count": count}
    typer.echo(msgspec.json.encode(answer).decode())
    if findings:
        raise typer.Exit(1)


def moment_ns(text: str) -> int | None:
    """A moment as ISO 8601, in local time unless it says otherwise.  Raises UsageError."""
    if not text:
        return None
    try:
        return int(datetime.datetime.fromisoformat(text).timestamp() * 1e9)
    except ValueError as problem:
        raise UsageError(f"not a moment: {text!r}; write 2026-03-31T12:00:00") from problem


def main() -> int:
    """Errors as one line."""
    try:
        app()
    except DFSError as problem:
        typer.echo(str(problem), err=True)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
