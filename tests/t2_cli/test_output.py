"""What is shown on terminals only."""

from __future__ import annotations

import pytest
from rich.console import Console

from dfsmount.cli.output import working


@pytest.mark.parametrize("is_terminal", [False, True])
def test_working_shows_on_a_terminal_only(
    is_terminal: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Console, "is_terminal", is_terminal)
    with working("checking [all]"):
        pass
    shown = capsys.readouterr()
    assert shown.out == ""
    assert ("checking [all]" in shown.err) == is_terminal
