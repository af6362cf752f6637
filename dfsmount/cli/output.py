"""How the `dfs` command speaks: lines and tables for people, JSON for programs.

All verbs print through it.  JSON has every field, those with default values too, so that a script
finds the same keys every time; octets (chunk ids, digests) are written in hexadecimal.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

import msgspec
import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.filesize import decimal
from rich.markup import escape
from rich.table import Table

PIPE_WIDTH_COLUMNS = 200  # nothing is cut off when the reader is grep


def say(line: str) -> None:
    """One line about an error or a warning, on standard error."""
    typer.echo("dfs: " + " ".join(line.split()), err=True)


def console() -> Console:
    """Where tables go: as wide as the terminal, or wide when there is none."""
    screen = Console(highlight=False)
    return screen if screen.is_terminal else Console(highlight=False, width=PIPE_WIDTH_COLUMNS)


@contextlib.contextmanager
def working(text: str) -> Iterator[None]:
    """Show on a terminal that something takes its time; nothing anywhere else."""
    screen = Console(stderr=True, highlight=False)
    if not screen.is_terminal:
        yield
        return
    with screen.status(escape(text)):
        yield


def plain_table(*headings: str) -> Table:
    """A table without a frame: it can be read, copied, and taken apart with awk."""
    return Table(*headings, box=SIMPLE_HEAD, pad_edge=False, show_edge=False)


def show_json(value: Any) -> None:
    """A message, or a dictionary of plain values and messages, as indented JSON."""
    typer.echo(msgspec.json.format(msgspec.json.encode(plain(value)), indent=2).decode())


def show_json_line(value: Any) -> None:
    """The same on one line, for answers that are a sequence."""
    typer.echo(msgspec.json.encode(plain(value)).decode())


def plain(value: Any) -> Any:
    """`value` in terms of JSON, complete: structs as objects, octets in hexadecimal."""
    if isinstance(value, msgspec.Struct):
        return {name: plain(getattr(value, name)) for name in value.__struct_fields__}
    if isinstance(value, dict):
        return {name: plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value.hex() if isinstance(value, bytes) else value


def size(count_bytes: int) -> str:
    """A number of bytes for people, such as "1.5 GB"."""
    return decimal(count_bytes)


def counted(number: int, one: str, many: str = "") -> str:
    """Such as "1 chunk" and "2 chunks"."""
    return f"{number} {one if number == 1 else many or one + 's'}"


def path_text(path: bytes) -> str:
    """A path for people and JSON; octets that are not UTF-8 are shown as escapes."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")
