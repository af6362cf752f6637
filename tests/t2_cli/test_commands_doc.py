"""docs/commands.md lists exactly the commands that there are, and each of them can speak JSON."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from dfsmount.cli.app import app

DOCUMENT = Path(__file__).resolve().parents[2] / "docs/commands.md"
README = DOCUMENT.parent.parent / "README.md"


def commands(group: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """(how it is called, the command) of all of them."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*words, name))
        else:
            yield " ".join((*words, name)), command


ALL = dict(commands(typer.main.get_command(app)))


def test_all_commands_are_documented() -> None:
    rows = re.findall(
        r"^\| (`dfs .+?) \| (.+) \| (.+) \| (.+) \|$", DOCUMENT.read_text(), re.MULTILINE
    )
    named = {
        name
        for calls, *_ in rows
        for name in re.findall(r"`dfs ([a-z][a-z -]*?)(?: [A-Z\[].*?)?`", calls)
    }
    assert named == set(ALL), "docs/commands.md needs a row for each command, and no others"


@pytest.mark.parametrize("name", sorted(ALL))
def test_each_can_speak_json(name: str) -> None:
    options = {option for parameter in ALL[name].params for option in parameter.opts}
    assert "--json" in options


@pytest.mark.parametrize("name", sorted({name.split()[0] for name in ALL}))
def test_the_readme_names_it(name: str) -> None:
    assert f"`dfs {name}" in README.read_text()
