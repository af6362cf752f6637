"""What `dfs nodes` says of servers and disks."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from dfsmount.cli import nodes
from dfsmount.cli.app import main
from dfsmount.cli.views import ago, rate
from dfswire.observe import Traffic
from dfswire.status import ServerStatus
from tests.t2_cli.answers import State, cluster, server

BUSY = Traffic(read_bytes_per_s=5e6, written_bytes_per_s=0, reads_per_s=20, writes_per_s=1)


def run(monkeypatch: pytest.MonkeyPatch, servers: list[ServerStatus], *options: str) -> int:
    asked: list[Any] = []
    reply = cluster(*servers)
    monkeypatch.setattr(nodes, "ask", lambda *question: asked.append(question) or reply)
    return main(["nodes", "--url", "h:1", *options])


def busy(state: State = "up", **more: Any) -> ServerStatus:
    return msgspec.structs.replace(
        server(state), traffic=BUSY, disk_traffic={"d1": BUSY}, incarnation=42, **more
    )


def test_servers(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(monkeypatch, [busy(labels=["ssd", "[x]"])]) == 0
    heading, _, line = capsys.readouterr().out.splitlines()
    assert heading.split()[:4] == ["id", "address", "state", "place"]
    for text in ("127.0.0.1:1", "ssd,[x]", "a[b]c", "5.0 MB/s", "21/s", " 42 ", "7 s ago", "0.1.0"):
        assert text in line


def test_disks(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    drained = msgspec.structs.replace(
        server(port=2), disk_admin={"d1": "draining"}, admin="draining"
    )
    assert run(monkeypatch, [busy(), drained, server(failed=True, port=3)], "--disks") == 1
    lines = capsys.readouterr().out.splitlines()[2:]
    assert "5.0 MB/s" in lines[0]
    assert "up, draining" in lines[1]
    assert "failed" in lines[2]
    scrubbed = msgspec.structs.replace(server().disks[0], scrub_fraction=0.42)
    half = msgspec.structs.replace(server(), disks=[scrubbed])
    assert run(monkeypatch, [half], "--disks") == 0
    assert " 42% " in capsys.readouterr().out


@pytest.mark.parametrize("state", ["suspect", "down"])
def test_one_that_is_away(
    state: State, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, [busy(state)]) == 1
    assert f"{state}, heard 7 s ago" in capsys.readouterr().out
    assert run(monkeypatch, [busy(state, admin="drained")]) == 0
    assert f"{state}, drained, heard 7 s ago" in capsys.readouterr().out


def test_json(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(monkeypatch, [busy()], "--json") == 0
    (found,) = json.loads(capsys.readouterr().out)["servers"]
    assert found["incarnation"] == 42
    assert found["traffic"]["read_bytes_per_s"] == 5e6
    assert found["disks"][0]["reads"] == 0


def test_numbers_for_people() -> None:
    assert [rate(each) for each in (0, 0.4, 1500)] == ["-", "-", "1.5 kB/s"]
    assert [ago(each) for each in (3, 100, 600, 7200, 999_999)] == [
        "3 s ago",
        "100 s ago",
        "10 min ago",
        "2 h ago",
        "12 d ago",
    ]
