"""How lost ranges of files are shown, by `dfs fsck --lost`, `dfs info` and `dfs repair`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import typer

from dfsmount.cli.output import path_text, plain
from dfswire.verify import LostFile, LostRange, LostReply


def range_text(lost: LostRange) -> str:
    """One range: its bytes, and whether there is hope."""
    last = lost.offset + lost.length - 1
    known = "lost" if lost.sure else "not readable now, some disks are away or not yet asked"
    return f"bytes {lost.offset}-{last}: {known}"


def as_plain(reply: LostReply) -> dict[str, Any]:
    """The reply in terms of JSON; paths are text."""
    files = [
        {"inode": each.inode, "paths": [path_text(path) for path in each.paths]}
        | {"ranges": plain(each.ranges)}
        for each in reply.files
    ]
    return {"files": files, "count": reply.count}


def name_of(file: LostFile) -> str:
    """A name for people; a file without one is open somewhere."""
    return path_text(file.paths[0]) if file.paths else f"inode {file.inode} (unlinked)"


def show_ranges(name: str, ranges: Iterable[LostRange]) -> None:
    """A line for each range of a file."""
    for each in ranges:
        typer.echo(f"{name}: {range_text(each)}")


def show_lost(reply: LostReply) -> None:
    """All damaged files."""
    for file in reply.files:
        show_ranges(name_of(file), file.ranges)
    hidden = reply.count - len(reply.files)
    if hidden > 0:
        typer.echo(f"... and {hidden} more files (--limit shows them)")
    typer.echo(f"files with lost bytes: {reply.count}" if reply.count else "no bytes are lost")
