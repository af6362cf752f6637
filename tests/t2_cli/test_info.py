"""What `dfs info` says about a file, with and without a mount."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from dfsmount.cli import info
from dfsmount.cli.app import main
from dfsmount.cli.mounts import Mount
from dfswire.info import InfoReply, InfoRequest
from tests.t2_cli.answers import file_info

GOOD = file_info(("good", "up"), ("good", "down"))


def answering(monkeypatch: pytest.MonkeyPatch, reply: InfoReply) -> list[Any]:
    asked: list[Any] = []
    monkeypatch.setattr(info, "ask", lambda *question: asked.append(question) or reply)
    return asked


def test_by_path_without_a_mount(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = answering(monkeypatch, GOOD)
    assert main(["info", "/a b", "--url", "h:1"]) == 0
    assert asked == [("h:1", "cluster.info", InfoRequest(path=b"/a b"))]
    shown = capsys.readouterr().out
    assert "path     /[x]\\xff" in shown
    assert "inode    9, -rw-r--r--, names: 2" in shown
    assert "in metadata" in shown
    assert "chunk 1, from 1" in shown
    assert "server down" in shown
    assert "fcntl read          3-5     process 77 at h[1]:/m" in shown
    assert "fcntl read, waits   3-      process 78 at h[1]:/m" in shown


def test_by_number_without_a_mount(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = answering(monkeypatch, GOOD)
    assert main(["info", "4", "--url", "h:1"]) == 0
    assert asked == [("h:1", "cluster.info", InfoRequest(inode=4))]


def test_by_inode_on_a_mount(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = answering(monkeypatch, GOOD)
    file = tmp_path / "file"
    file.touch()
    device = file.stat().st_dev
    mount = Mount("m:1", tmp_path, (os.major(device), os.minor(device)))
    monkeypatch.setattr("dfsmount.cli.mounts.mounts_now", lambda: [mount])
    assert main(["info", str(file)]) == 0
    assert asked == [("m:1", "cluster.info", InfoRequest(inode=file.stat().st_ino))]


def test_json(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    answering(monkeypatch, GOOD)
    assert main(["info", "/x", "--url", "h:1", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["paths"] == ["/a b", "/[x]\\xff"]
    assert answer["chunks"][0]["chunk"] == "000102030405060708090a0b0c0d0e0f"
    assert answer["chunks"][0]["replicas"][1]["server_state"] == "down"
    assert answer["extents"][0] == {"offset": 0, "length": 4, "chunk": "", "chunk_offset": 0}


@pytest.mark.parametrize("replica", [("bad", "up"), ("good", "down")])
def test_bytes_that_nobody_has_end_with_1(
    replica: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    answering(monkeypatch, file_info(replica))
    assert main(["info", "/x", "--url", "h:1"]) == 1
