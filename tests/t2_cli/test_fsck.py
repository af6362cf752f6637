"""What `dfs fsck` says, and when it ends with 1."""

from __future__ import annotations

import json
from typing import Any

import pytest

from dfsmount.cli import fsck
from dfsmount.cli.app import main
from dfswire.cluster import Finding, FsckReport, FsckRequest


def run(monkeypatch: pytest.MonkeyPatch, count: int, *options: str) -> tuple[int, list[Any]]:
    findings = [Finding(check="nlink", subject="inode 7", message="is 2, should be 1")]
    report = FsckReport(
        findings=findings[:count],
        count=count,
        inodes=1,
        dentries=2,
        extents=3,
        chunks=4,
        replicas=5,
        orphans=6,
    )
    asked: list[Any] = []
    monkeypatch.setattr(fsck, "ask", lambda *question, **_: asked.append(question) or report)
    return main(["fsck", "--url", "h:1", *options]), asked


def test_nothing_found(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    ended, asked = run(monkeypatch, 0, "--limit", "5")
    assert ended == 0
    assert asked == [("h:1", "cluster.fsck", FsckRequest(limit=5))]
    assert "6 orphans: no findings" in capsys.readouterr().out


def test_findings(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(monkeypatch, 3)[0] == 1
    shown = capsys.readouterr().out
    assert "nlink: inode 7: is 2, should be 1\n... and 2 more" in shown
    assert shown.endswith("findings: 3\n")


def test_json(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(monkeypatch, 1, "--json")[0] == 1
    assert json.loads(capsys.readouterr().out)["findings"][0]["check"] == "nlink"
