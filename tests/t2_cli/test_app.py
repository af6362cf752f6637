"""How the command ends: its status, and one line that says why."""

from __future__ import annotations

import inspect
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn, get_args

import pytest

from dfsmount.cli import app as module
from dfsmount.cli import status
from dfsmount.cli.app import main
from dfsmount.cli.mount import mount, umount
from dfsmount.cli.up import up


@pytest.fixture(autouse=True)
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No cluster nearby."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DFS_URL", raising=False)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("bogus", "No such command"),
        ("status --bogus", "No such option"),
        ("mount", "Missing argument"),
        ("up --nodes 0", "--nodes"),
        ("status", "which cluster?"),
        ("status --dir nothing", "no cluster in nothing"),
        ("down --dir nothing", "no cluster in nothing"),
        ("status --url http://x:1/y", "not an address"),
        ("mount localhost /tmp", "not an address"),
        ("umount .", "not a dfs mount"),
        ("info /etc/passwd", "not on a dfs mount"),
        (
            "info /no/such/file",
            "no such file (without a mount, give --url or --dir)",
        ),
        ("repair /no/such/file", "no such file (without a mount, give --url or --dir)"),
        ("repair /etc/passwd", "not on a dfs mount"),
        ("policy show /no/such/file", "no such file (without a mount, give --url or --dir)"),
        ("policy show /etc/passwd", "not on a dfs mount"),
        ("info small --url h:1", "small: give a path that starts with / (the cluster's root), or"),
        ("repair small --url h:1", "small: give a path that starts with /"),
        ("policy show small --url h:1", "small: give a path that starts with /"),
        ("up --nodes 2 --replicas 3", "3 replicas need as many nodes"),
        ("up --dir /proc/1/nothing", "/proc/1/nothing"),
    ],
)
def test_what_cannot_be_done_ends_with_2_and_one_line(
    line: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(line.split()) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert words in output.err
    assert output.err.startswith("dfs: ")
    assert output.err.count("\n") == 1


def test_no_metad_there(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # ours, but nobody listens
        address = f"127.0.0.1:{nobody.getsockname()[1]}"
        assert main(["status", "--url", f"http://{address}"]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"dfs: no metad answers at {address}")
    assert error.count("\n") == 1


def test_the_address_may_come_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DFS_URL", "not an address")
    assert main(["status"]) == 2
    assert "not an address" in capsys.readouterr().err


def test_without_arguments_it_shows_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    assert "umount" in capsys.readouterr().out


@pytest.mark.parametrize("group", ["job", "node", "disk", "policy", "metad"])
def test_a_group_without_a_verb_shows_its_help(
    group: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([group]) == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    assert shown.out.startswith(f"Usage: dfs {group} ")
    assert "\nCommands:\n" in shown.out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("dfs 0")


def raising(problem: BaseException) -> NoReturn:
    raise problem


def test_ctrl_c(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(status, "ask", lambda *_: raising(KeyboardInterrupt()))
    assert main(["status", "--url", "localhost:1"]) == 130
    assert capsys.readouterr().err == ""


def test_a_reader_that_has_enough(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    redirected: list[int] = []
    monkeypatch.setattr(os, "dup2", lambda _, target: redirected.append(target))
    monkeypatch.setattr(module, "app", lambda **_: raising(BrokenPipeError()))
    assert main(["status"]) == module.BROKEN_PIPE_STATUS
    assert len(redirected) == 1
    assert capfd.readouterr().err == ""


def test_an_error_of_the_system_without_a_file(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "app", lambda **_: raising(OSError("out of everything")))
    assert main(["status"]) == 2
    assert capsys.readouterr().err == "dfs: out of everything\n"


@pytest.mark.parametrize(
    ("verb", "parameter"), [(up, "mount"), (mount, "directory"), (umount, "directory")]
)
def test_nobody_looks_at_a_mount_point_before_the_command_does(
    verb: Callable[..., None], parameter: str
) -> None:
    """typer stats a Path; on a mount whose metad is away that never ends, and `dfs up` is what
    would start metad again."""
    annotation = inspect.signature(verb, eval_str=True).parameters[parameter].annotation
    assert get_args(annotation)[0] is str
